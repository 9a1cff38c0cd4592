// SPDX-License-Identifier: MIT
// How the monitor, the launcher and the CPU processes reach each other: descriptors over sockets, and whose turn it is.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

// One message with at most 2 descriptors. False with errno set.
bool cuc_send(int socket, const void *message, size_t size, const int *descriptors, int count);
// Descriptors that did not come are -1. False at the end of the other side and for a message of another size.
bool cuc_receive(int socket, void *message, size_t size, int *descriptors, int count);

enum { CUC_TURN_MONITOR = 0, CUC_TURN_CPU = 1 };
// Whose turn it is, in memory that both sides write.
struct cuc_turn {
    uint32_t side;          // the futex that the other side waits on
    uint32_t processor[2];  // where each side ran last: who waits for one on another processor does not sleep at once
};
// Gives the turn to `side` and wakes it.
void cuc_pass_turn(struct cuc_turn *turn, uint32_t side);
// Waits for the turn of `side`, at most `limit` (NULL: for ever). False if it has not come yet.
bool cuc_has_turn(struct cuc_turn *turn, uint32_t side, const struct timespec *limit);
