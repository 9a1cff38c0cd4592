// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 2

bool cuc_send(int socket, const void *message, size_t size, const int *descriptors, int count) {
    struct iovec part = {(void *)message, size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
    } control;
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(rights), descriptors, (size_t)count * sizeof(int));
    }
    ssize_t sent;
    do sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)size;
}

bool cuc_receive(int socket, void *message, size_t size, int *descriptors, int count) {
    struct iovec part = {message, size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
    } control;
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    for (int i = 0; i < count; i++) descriptors[i] = -1;
    ssize_t received;
    do received = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    if (received != (ssize_t)size) return false;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        size_t bytes = rights->cmsg_len - CMSG_LEN(0);
        if (bytes > (size_t)count * sizeof(int)) bytes = (size_t)count * sizeof(int);
        memcpy(descriptors, CMSG_DATA(rights), bytes);
    }
    return true;
}

// How long to poll for the turn before sleeping, nanoseconds. Most turns are shorter, because a guest executes few
// instructions between two exits. In a virtual machine, waking up on another processor costs 25 µs, and noticing
// the turn while polling less than 1 µs.
#define SPIN_NANOSECONDS 50000

static uint32_t this_processor(void) {
    int processor = sched_getcpu();
    return processor < 0 ? UINT32_MAX : (uint32_t)processor;
}

static uint64_t now(void) {
    struct timespec time = {0, 0};
    // The clock may need a system call, which the filter of the CPU process forbids. Then do not poll.
    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0) return UINT64_MAX;
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static bool is_turn_of(struct cuc_turn *turn, uint32_t side) {
    return __atomic_load_n(&turn->side, __ATOMIC_ACQUIRE) == side;
}

// On one processor, polling blocks the other side, so sleep immediately.
static bool spin(struct cuc_turn *turn, uint32_t side) {
    uint32_t *others = &turn->processor[1 - side], mine = this_processor();
    __atomic_store_n(&turn->processor[side], mine, __ATOMIC_RELAXED);
    uint64_t start = now(), end = start > UINT64_MAX - SPIN_NANOSECONDS ? 0 : start + SPIN_NANOSECONDS;
    while (now() < end && __atomic_load_n(others, __ATOMIC_RELAXED) != mine)
        for (int i = 0; i < 16; i++) {
            if (is_turn_of(turn, side)) return true;
            __builtin_ia32_pause();
        }
    return is_turn_of(turn, side);
}

void cuc_pass_turn(struct cuc_turn *turn, uint32_t side) {
    __atomic_store_n(&turn->side, side, __ATOMIC_RELEASE);
    syscall(SYS_futex, &turn->side, FUTEX_WAKE, 1, NULL, NULL, 0);
}

bool cuc_has_turn(struct cuc_turn *turn, uint32_t side, const struct timespec *limit) {
    if (spin(turn, side)) return true;
    uint32_t others = __atomic_load_n(&turn->side, __ATOMIC_ACQUIRE);
    if (others == side) return true;
    syscall(SYS_futex, &turn->side, FUTEX_WAIT, others, limit, NULL, 0);
    __atomic_store_n(&turn->processor[side], this_processor(), __ATOMIC_RELAXED);
    return is_turn_of(turn, side);
}
