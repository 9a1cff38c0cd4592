/* SPDX-License-Identifier: MIT */
/* The names after an include are those for which a program needs it. */
#include <cpuid.h> /* __get_cpuid */
#include <errno.h> /* errno, EAGAIN, EFAULT, EINTR, EINVAL, ENOENT, ENOMEM, ENOTTY, EOPNOTSUPP */
#include <fcntl.h> /* open, fcntl, fallocate, vmsplice, F_DUPFD_CLOEXEC, FALLOC_FL_KEEP_SIZE */
#include <fnmatch.h> /* fnmatch, FNM_EXTMATCH */
#include <linux/kvm.h> /* KVM_RUN, KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_GET_DIRTY_LOG, kvm_regs */
#include <linux/kvm_para.h> /* KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE_ENCRYPTED */
#include <pthread.h> /* pthread_t, pthread_create, pthread_join, pthread_timedjoin_np, pthread_barrier_t, pthread_rwlock_t */
#include <sched.h> /* sched_yield, sched_setaffinity, sched_setscheduler */
#include <signal.h> /* sigaction, kill, SIGKILL, SIGBUS */
#include <stdarg.h> /* va_list, va_start */
#include <stdbool.h> /* bool, true, false */
#include <stdint.h> /* uint64_t, uint32_t, uint16_t, uint8_t, int64_t, uintptr_t, UINT64_MAX */
#include <stdio.h> /* printf, snprintf, vsnprintf, sscanf */
#include <stdlib.h> /* exit, calloc, malloc, free, strtoul, strtoull */
#include <string.h> /* memset, memcpy, memcmp, strcmp, strlen, strstr, strcspn, strerrorname_np */
#include <sys/ioctl.h> /* ioctl */
#include <sys/mman.h> /* mmap, munmap, mremap, mprotect, madvise, MAP_SHARED, MAP_FAILED */
#include <sys/prctl.h> /* prctl */
#include <sys/socket.h> /* socketpair, send, recv */
#include <sys/syscall.h> /* SYS_close_range, SYS_gettid, SYS_io_setup, SYS_io_uring_setup, SYS_mbind, SYS_move_pages */
#include <sys/timerfd.h> /* timerfd_create, timerfd_settime */
#include <sys/uio.h> /* process_vm_readv, process_vm_writev, iovec */
#include <sys/utsname.h> /* uname, utsname */
#include <sys/wait.h> /* waitpid */
#include <time.h> /* clock_gettime, nanosleep, timespec */
#include <unistd.h> /* close, read, write, pread, getpid, ftruncate, fork, dup2, alarm, pipe2 */
