// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CKVMShim.h"

// The system calls that a monitor needs, by purpose. All others fail with EPERM: executing a program, network sockets,
// tracing, mounts, identities, modules, BPF, keys, setting clocks. Calls that are newer than the list fail with ENOSYS,
// for which the C library has a fallback.
static const unsigned allowed[] = {
    // KVM, holders of pages, and descriptors of every kind.
    SYS_ioctl, SYS_openat, SYS_open, SYS_close, SYS_close_range, SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64,
    SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_lseek, SYS_fcntl, SYS_dup, SYS_dup2, SYS_dup3, SYS_fsync, SYS_fdatasync,
    SYS_ftruncate, SYS_fallocate, SYS_fadvise64, SYS_flock, SYS_memfd_create, SYS_eventfd2, SYS_signalfd4,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_pipe, SYS_pipe2, SYS_vmsplice, SYS_splice, SYS_tee, SYS_sendfile,
    SYS_copy_file_range, SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl,
    SYS_epoll_wait, SYS_epoll_pwait, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_setup,
    SYS_io_submit, SYS_io_getevents, SYS_io_destroy, SYS_io_cancel,
    // Output files.
    SYS_stat, SYS_fstat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink,
    SYS_readlinkat, SYS_getdents64, SYS_mkdir, SYS_mkdirat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink,
    SYS_unlinkat, SYS_link, SYS_linkat, SYS_getcwd, SYS_statfs, SYS_fstatfs, SYS_umask,
    // Memory, including the calls of tests.
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_mincore, SYS_msync, SYS_mlock, SYS_mlock2,
    SYS_munlock, SYS_brk, SYS_process_vm_readv, SYS_process_vm_writev, SYS_mbind, SYS_get_mempolicy, SYS_set_mempolicy,
    SYS_migrate_pages, SYS_move_pages, SYS_membarrier,
    // Threads, children, and the process of a software CPU.
    SYS_clone, SYS_fork, SYS_vfork, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_futex, SYS_set_robust_list,
    SYS_get_robust_list, SYS_set_tid_address, SYS_rseq, SYS_arch_prctl, SYS_prctl, SYS_seccomp, SYS_setsid,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_setscheduler, SYS_sched_getscheduler,
    SYS_sched_getparam, SYS_sched_setparam, SYS_sched_get_priority_max, SYS_sched_get_priority_min,
    SYS_sched_setattr, SYS_sched_getattr, SYS_getpriority, SYS_setpriority, SYS_getcpu, SYS_getrlimit, SYS_setrlimit,
    SYS_prlimit64, SYS_getrusage, SYS_times, SYS_socketpair, SYS_sendmsg, SYS_recvmsg, SYS_sendto, SYS_recvfrom,
    SYS_shutdown, SYS_accept4,
    // Signals.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigsuspend,
    SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_sigaltstack, SYS_kill, SYS_tkill, SYS_tgkill, SYS_pause,
    SYS_restart_syscall,
    // Time, randomness and identity.
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_time, SYS_alarm,
    SYS_setitimer, SYS_getitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_gettime, SYS_timer_delete,
    SYS_getrandom, SYS_getpid, SYS_getppid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups,
    SYS_getresuid, SYS_getresgid, SYS_getpgid, SYS_getpgrp, SYS_getsid, SYS_uname, SYS_sysinfo, SYS_capget,
};

#define COUNT (sizeof allowed / sizeof *allowed)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))

long ckvm_confine(void) {
    struct sock_filter filter[4 + 2 * COUNT + 3];
    size_t length = 0;
    filter[length++] = (struct sock_filter)LOAD(arch);
    filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[length++] = (struct sock_filter)LOAD(nr);
    for (size_t i = 0; i < COUNT; i++) {
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    // Calls newer than the list (clone3 is the first that matters) behave as on a kernel without them.
    filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_pidfd_send_signal, 0, 1);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {(unsigned short)length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -(long)errno;
    // For all threads, including those that exist already.
    long error = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    // A positive result is a thread that already has another filter.
    return error > 0 ? -EBUSY : error < 0 ? -(long)errno : 0;
}
