// SPDX-License-Identifier: MIT
#pragma once

#include <stdbool.h>

// Takes from this process all that an engine does not need: a seccomp filter that lets it use memory, futexes and
// its own descriptors and answers EPERM to anything else, no new privileges, no core dump, and a limit on private
// memory of 1.5 GiB more than it has (the engine's buffer of translations is 1 GiB of address space).
// Returns 0, or an errno; ENOSYS and EINVAL where the kernel has no seccomp.
int cuc_confine(void);
