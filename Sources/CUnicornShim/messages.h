// SPDX-License-Identifier: MIT
// Communication between the monitor, the launcher and the CPU processes: messages with descriptors over sockets,
// and turns.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

// Sends one message with at most 2 descriptors. Returns false with errno set.
bool cuc_send(int socket, const void *message, size_t size, const int *descriptors, int count);
// Receives one message. Missing descriptors are -1. Returns false if the other side has closed the socket or the
// message has another size.
bool cuc_receive(int socket, void *message, size_t size, int *descriptors, int count);

enum { CUC_TURN_MONITOR = 0, CUC_TURN_CPU = 1 };
// Whose turn it is, in shared memory.
struct cuc_turn {
    uint32_t side;          // the futex that the other side waits on
    uint32_t processor[2];  // where each side ran last; if they differ, the waiting side polls before it sleeps
};
// Gives the turn to `side` and wakes it.
void cuc_pass_turn(struct cuc_turn *turn, uint32_t side);
// Waits at most `limit` (NULL: forever) for the turn of `side`. Returns false if it is not its turn yet.
bool cuc_has_turn(struct cuc_turn *turn, uint32_t side, const struct timespec *limit);
