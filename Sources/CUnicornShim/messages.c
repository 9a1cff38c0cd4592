#define _GNU_SOURCE
#include "messages.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_DESCRIPTORS 2

bool cuc_send(int socket, const void *message, size_t size, const int *descriptors, int count) {
    struct iovec part = {(void *)message, size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
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
        char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
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

void cuc_pass_turn(uint32_t *turn, uint32_t side) {
    __atomic_store_n(turn, side, __ATOMIC_RELEASE);
    syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

bool cuc_has_turn(uint32_t *turn, uint32_t side, const struct timespec *limit) {
    uint32_t now = __atomic_load_n(turn, __ATOMIC_ACQUIRE);
    if (now == side) return true;
    syscall(SYS_futex, turn, FUTEX_WAIT, now, limit, NULL, 0);
    return __atomic_load_n(turn, __ATOMIC_ACQUIRE) == side;
}
