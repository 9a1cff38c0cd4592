// SPDX-License-Identifier: MIT
// The process that CPU processes are forked from. It is forked from the monitor once and has nothing of it but code:
// descriptors are closed and shared memory is unmapped. It ends with the monitor, and the CPU processes with it.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

// A new CPU process with these descriptors. Returns its process identifier, or a negative errno.
pid_t cuc_launch(const char *library, int channel, int socket);

// Whether a CPU process has ended, and how (`status` as of waitpid). True once only.
bool cuc_has_ended(pid_t process, int *status);
// Ends a CPU process, and does not wait for that.
void cuc_end(pid_t process);
