// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
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

long ckvm_set_fifo_priority(int priority) {
    struct sched_param parameters = {.sched_priority = priority};
    // sched_setscheduler(2) of the C library is for processes on some systems; 0 is the calling thread here.
    return result((int)syscall(SYS_sched_setscheduler, 0, priority > 0 ? SCHED_FIFO : SCHED_OTHER, &parameters));
}

long ckvm_thread_id(void) { return syscall(SYS_gettid); }

long ckvm_sleep_until(uint64_t nanoseconds) {
    struct timespec until = {.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)};
    int error;
    do error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    while (error == EINTR);
    return -(long)error;
}
