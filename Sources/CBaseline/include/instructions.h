// SPDX-License-Identifier: MIT
// The measured part of `minivmm bench --instructions`: system calls between two readings of the time stamp counter, with
// nothing else between them. Under QEMU's -icount shift=0 the counter advances by 1 with each instruction.
#ifndef CBASELINE_INSTRUCTIONS_H
#define CBASELINE_INSTRUCTIONS_H

#include <stdbool.h>
#include <stdint.h>

/// Whether this processor has the counter. All other functions return 0 or do nothing if it does not.
bool cbaseline_has_counter(void);

/// The time stamp counter.
uint64_t cbaseline_counter(void);

/// The advance of the counter between its two readings around a loop of 2 × `iterations` instructions, at least one. It includes
/// the instructions of the reading itself.
uint64_t cbaseline_count_loop(uint64_t iterations);

/// The advance of the counter if there is no system call between its two readings.
uint64_t cbaseline_count_nothing(void);

/// ioctl(2) without the C library. Returns the advance of the counter, including the instructions of the reading. `result` gets
/// the kernel's answer, a value or a negative errno.
uint64_t cbaseline_count_ioctl(int fd, unsigned long request, void *_Nullable argument, int64_t *_Nonnull result);

/// Spins until an interrupt has been handled, or until the counter has advanced by `limit`. Returns the instructions that the
/// interrupt took, or 0 if there was none. `at` gets the counter at the end.
uint64_t cbaseline_await_interrupt(uint64_t limit, uint64_t *_Nonnull at);

/// Writes a byte to each of `pages` pages of 4 KiB.
void cbaseline_touch(uint64_t address, uint64_t pages);

#endif
