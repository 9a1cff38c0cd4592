// SPDX-License-Identifier: MIT
// The process from which CPU processes are forked. It is forked from the monitor once and keeps only its code:
// descriptors are closed and shared memory is unmapped. It ends with the monitor, and the CPU processes end with
// it.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

// Starts a CPU process with these descriptors. Returns its process identifier, or a negative errno.
pid_t cuc_launch(const char *library, int channel, int socket);

// Whether a CPU process has ended, and how (`status` as from waitpid). Returns true only once.
bool cuc_has_ended(pid_t process, int *status);
// Kills a CPU process without waiting.
void cuc_end(pid_t process);
