// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "CKVMShim.h"

static long result(int value) { return value < 0 ? -(long)errno : value; }

long ckvm_bind_to_cpu(int cpu) {
    if (cpu >= CPU_SETSIZE) return -EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu >= 0) {
        CPU_SET(cpu, &set);
    } else {
        for (int each = 0; each < CPU_SETSIZE; each++) CPU_SET(each, &set);
    }
    return result(sched_setaffinity(0, sizeof set, &set));
}

long ckvm_current_cpu(void) { return result(sched_getcpu()); }

long ckvm_set_fifo_priority(int thread, int priority) {
    struct sched_param parameters = {.sched_priority = priority};
    // sched_setscheduler(2) of the C library is for processes on some systems; this one is for threads.
    // Clearing the flag again would need CAP_SYS_NICE, which a user with RLIMIT_RTPRIO lacks.
    int policy = (priority > 0 ? SCHED_FIFO : SCHED_OTHER) | SCHED_RESET_ON_FORK;
    return result((int)syscall(SYS_sched_setscheduler, thread, policy, &parameters));
}

long ckvm_thread_id(void) { return syscall(SYS_gettid); }

long ckvm_sleep_until(uint64_t nanoseconds) {
    struct timespec until = {.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)};
    int error;
    do error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    while (error == EINTR);
    return -(long)error;
}

long ckvm_sleeps(void) {
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) < 0 ? -(long)errno : usage.ru_nvcsw;
}

long ckvm_timer(void) { return result(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)); }

long ckvm_timer_start(int timer, uint64_t nanoseconds) {
    struct itimerspec time = {
        .it_value = {.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)}};
    return result(timerfd_settime(timer, 0, &time, NULL));
}

long ckvm_timer_wait(int timer) {
    uint64_t expirations;
    ssize_t got;
    do got = read(timer, &expirations, sizeof expirations);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -(long)errno : 0;
}

void ckvm_pad(uint32_t instructions) {
    uint64_t bytes = instructions < CKVM_MOST_PADDING ? instructions : CKVM_MOST_PADDING;
    // A nop has one byte.
    __asm__ volatile(
        "leaq 1f(%%rip), %%rax\n\t"
        "subq %0, %%rax\n\t"
        "jmp *%%rax\n\t"
        ".fill 63, 1, 0x90\n"
        "1:"
        :
        : "r"(bytes)
        : "rax", "cc");
}

void ckvm_count_until(const volatile int *stop, volatile uint64_t *count) {
    __asm__ volatile(
        "1: incq (%1)\n\t"
        "cmpl $0, (%0)\n\t"
        "je 1b"
        :
        : "r"(stop), "r"(count)
        : "memory", "cc");
}
