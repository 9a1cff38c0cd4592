// SPDX-License-Identifier: MIT
// Counts the heap allocations of one thread. For tests: it interposes malloc in the test program.
#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

/// False under a sanitizer, which has its own malloc.
bool allocation_counter_works(void);
/// Allocations of the calling thread so far.
uint64_t allocation_count(void);

#endif
