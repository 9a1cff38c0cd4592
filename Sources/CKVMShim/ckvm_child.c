// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CKVMShim.h"

// Sent over the socket in both directions.
struct message {
    uint64_t address;
    uint32_t length;
    uint32_t is_write;
    int64_t result;
    unsigned char bytes[CKVM_CHILD_CHUNK];
};

// The child of a process with threads may call only async-signal-safe functions: nothing here allocates.
static _Noreturn void serve(int socket) {
    static struct message message;
    for (;;) {
        ssize_t got = recv(socket, &message, sizeof message, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got != sizeof message || message.length > sizeof message.bytes) _exit(0);
        message.result = message.is_write ? ckvm_copy_to(message.address, message.bytes, message.length)
                                          : ckvm_copy_from(message.bytes, message.address, message.length);
        if (send(socket, &message, sizeof message, MSG_NOSIGNAL) != sizeof message) _exit(0);
    }
}

long ckvm_child_fork(int *socket) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return -(long)errno;
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        // This includes the pipes and rings of holds: an open descriptor here would keep their pages held while this process lives.
        if (ends[1] != 3 && dup2(ends[1], 3) < 0) _exit(0);
        if (syscall(SYS_close_range, 4u, ~0u, 0u) < 0)
            for (int fd = 4; fd < 65536; fd++) close(fd);
        serve(3);
    }
    int error = errno;
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return -(long)error;
    }
    *socket = ends[0];
    return child;
}

static long transfer(int socket, struct message *message) {
    ssize_t done;
    do done = send(socket, message, sizeof *message, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    if (done != sizeof *message) return -EPIPE;
    do done = recv(socket, message, sizeof *message, 0);
    while (done < 0 && errno == EINTR);
    return done == sizeof *message ? (long)message->result : -EPIPE;
}

long ckvm_child_read(int socket, uint64_t address, void *to, uint32_t length) {
    struct message message = {.address = address, .length = length};
    if (length > sizeof message.bytes) return -EINVAL;
    long result = transfer(socket, &message);
    if (result > 0) memcpy(to, message.bytes, (size_t)result);
    return result;
}

long ckvm_child_write(int socket, uint64_t address, const void *from, uint32_t length) {
    struct message message = {.address = address, .length = length, .is_write = 1};
    if (length > sizeof message.bytes) return -EINVAL;
    memcpy(message.bytes, from, length);
    return transfer(socket, &message);
}

void ckvm_child_end(int socket, int child) {
    close(socket);
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
}
