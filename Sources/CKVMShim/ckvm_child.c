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

#include "ckvm_fail.h"

// Sent over the socket in both directions.
struct message {
    uint64_t address;
    uint32_t length;
    uint32_t is_write;
    int64_t result;
    // An allocation of the child's system call that is to fail, as for ckvm_fail_begin; 0 if none is. The child answers with
    // what ckvm_fail_end says.
    uint32_t fail_nth;
    unsigned char bytes[CKVM_CHILD_CHUNK];
};

// The child of a process with threads may call only async-signal-safe functions: nothing here allocates.
static _Noreturn void serve(int socket) {
    static struct message message;
    for (;;) {
        ssize_t got = recv(socket, &message, sizeof message, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got != sizeof message || message.length > sizeof message.bytes) _exit(0);
        bool is_failing = message.fail_nth != 0 && ckvm_fail_begin(message.fail_nth) == 0;
        message.result = message.is_write ? ckvm_copy_to(message.address, message.bytes, message.length)
                                          : ckvm_copy_from(message.bytes, message.address, message.length);
        long result;
        if (is_failing) ckvm_fail_end(&message.fail_nth, &result);
        if (send(socket, &message, sizeof message, MSG_NOSIGNAL) != sizeof message) _exit(0);
    }
}

static bool exchange(int socket, struct message *message) {
    ssize_t done;
    do done = send(socket, message, sizeof *message, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    if (done != sizeof *message) return false;
    do done = recv(socket, message, sizeof *message, 0);
    while (done < 0 && errno == EINTR);
    return done == sizeof *message;
}

long ckvm_child_fork(int *socket) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return -(long)errno;
    pid_t parent = getpid();
    bool is_armed = ckvm_fail_state.left != 0;
    if (is_armed) ckvm_fail_arm();
    pid_t child = fork();
    if (child == 0) {
        ckvm_fail_forget();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        // This includes the pipes and rings of holds: an open descriptor here would keep their pages held while this process lives.
        if (ends[1] != 3 && dup2(ends[1], 3) < 0) _exit(0);
        if (syscall(SYS_close_range, 4u, ~0u, 0u) < 0)
            for (int fd = 4; fd < 65536; fd++) close(fd);
        serve(3);
    }
    int error = errno;
    if (is_armed) ckvm_fail_disarm("fork", child < 0 ? -(long)error : child);
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return -(long)error;
    }
    // An access of no bytes. So the child has closed its descriptors, and both processes have copied the pages that an access
    // writes, before its first step: a sweep would find them in that step.
    struct message nothing = {.address = 0};
    if (!exchange(ends[0], &nothing)) {
        ckvm_child_end(ends[0], child);
        return -EPIPE;
    }
    *socket = ends[0];
    return child;
}

static long transfer(int socket, struct message *message) {
    message->fail_nth = ckvm_fail_state.left;
    if (!exchange(socket, message)) return -EPIPE;
    if (ckvm_fail_state.left != 0) {
        const char *call = message->is_write ? "process_vm_writev" : "process_vm_readv";
        ckvm_fail_note(message->fail_nth, call, (long)message->result);
    }
    return (long)message->result;
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
