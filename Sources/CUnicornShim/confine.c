// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXTRA_MEMORY (UINT64_C(3) << 29)  // 1.5 GiB

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), RETURN(SECCOMP_RET_ALLOW)
// Private writable memory in bytes, as counted by RLIMIT_DATA.
static uint64_t private_memory(void) {
    unsigned long long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm == NULL) return 0;
    if (fscanf(statm, "%*u %*u %*u %*u %*u %llu", &pages) != 1) pages = 0;
    fclose(statm);
    return pages * 4096;
}

int cuc_confine(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    uint64_t now = private_memory();
    struct rlimit data;
    if (now > 0 && getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_max > now + EXTRA_MEMORY) {
        data.rlim_cur = data.rlim_max = now + EXTRA_MEMORY;
        setrlimit(RLIMIT_DATA, &data);
    }
    struct sock_filter filter[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        // Waiting for the turn on the channel, and receiving files from the monitor.
        ALLOW(SYS_futex),
        ALLOW(SYS_recvmsg),
        ALLOW(SYS_close),
        // Measuring memory (code_memory.c). The files are already open.
        ALLOW(SYS_pread64),
        // Memory, including executable memory: the engine generates code.
        ALLOW(SYS_mmap),
        ALLOW(SYS_mprotect),
        ALLOW(SYS_munmap),
        ALLOW(SYS_mremap),
        ALLOW(SYS_madvise),
        ALLOW(SYS_brk),
        // abort(), and recovering from it.
        ALLOW(SYS_rt_sigprocmask),
        ALLOW(SYS_rt_sigaction),
        ALLOW(SYS_rt_sigreturn),
        ALLOW(SYS_getpid),
        ALLOW(SYS_gettid),
#if __has_feature(address_sanitizer)
        // The sanitizer checks the signal stack at each longjmp.
        ALLOW(SYS_sigaltstack),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 0, 4),
        LOAD(args[0]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 0, 1),
        RETURN(SECCOMP_RET_ALLOW),
        RETURN(SECCOMP_RET_ERRNO | EPERM),
        ALLOW(SYS_exit),
        ALLOW(SYS_exit_group),
        // Everything else fails with EPERM. It does not end the process, because the C library tries calls that it
        // does not need: its heap opens /proc/sys/vm/overcommit_memory, and abort() opens a descriptor to write to.
        RETURN(SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return errno;
    return 0;
}
