// SPDX-License-Identifier: MIT
#pragma once

#include <stdbool.h>

// Removes everything from this process that an engine does not need. A seccomp filter allows memory, futexes and
// its own descriptors and answers EPERM to any other call. The process gets no new privileges and no core dump, and
// its private memory is limited to 1.5 GiB more than it has (the engine's buffer of translations reserves 1 GiB of
// address space). Returns 0 or an errno; ENOSYS and EINVAL mean that the kernel has no seccomp.
int cuc_confine(void);
