// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "ckvm_fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

__thread struct ckvm_fail_state ckvm_fail_state __attribute__((tls_model("initial-exec")));

// No function here allocates memory in user space: a forked child calls them, too.
static void write_nth(unsigned nth) {
    char text[12];
    char *start = text + sizeof text;
    do *--start = (char)('0' + nth % 10);
    while (nth /= 10);
    ssize_t written = pwrite(ckvm_fail_state.fd, start, (size_t)(text + sizeof text - start), 0);
    (void)written;
}

static unsigned read_nth(void) {
    char text[16];
    ssize_t count = pread(ckvm_fail_state.fd, text, sizeof text, 0);
    unsigned nth = 0;
    for (ssize_t index = 0; index < count && text[index] >= '0' && text[index] <= '9'; index++)
        nth = nth * 10 + (unsigned)(text[index] - '0');
    return nth;
}

void ckvm_fail_arm(void) { write_nth(ckvm_fail_state.left); }

long ckvm_fail_disarm(const char *call, long result) {
    unsigned left = read_nth();
    write_nth(0);
    ckvm_fail_note(left, call, result);
    return result;
}

void ckvm_fail_note(unsigned left, const char *call, long result) {
    ckvm_fail_state.left = left;
    if (left != 0) return;
    ckvm_fail_state.call = call;
    ckvm_fail_state.result = result;
}

void ckvm_fail_forget(void) { ckvm_fail_state = (struct ckvm_fail_state){.fd = -1}; }

// Since glibc 2.35 (sys/rseq.h).
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

// Ends this thread's registration for restartable sequences (rseq(2)), if there is one. The kernel writes to the registered memory
// before it returns from a system call, and sends SIGSEGV if it cannot. After a fork that memory has to be copied, and the copy is an
// allocation that can be the one to fail.
static void leave_rseq(void) {
    enum { unregister = 1, signature = 0x53053053, registered_size = 32 };
    if (&__rseq_size == NULL || &__rseq_offset == NULL || __rseq_size == 0) return;
    char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
    (void)syscall(SYS_rseq, area, registered_size, unregister, signature);
}

long ckvm_fail_begin(unsigned nth) {
    leave_rseq();
    int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
    if (fd < 0) return -(long)errno;
    ckvm_fail_state = (struct ckvm_fail_state){.left = nth, .fd = fd};
    return 0;
}

const char *ckvm_fail_end(unsigned *left, long *result) {
    struct ckvm_fail_state state = ckvm_fail_state;
    ckvm_fail_forget();
    close(state.fd);
    *left = state.left;
    *result = state.result;
    return state.call;
}
