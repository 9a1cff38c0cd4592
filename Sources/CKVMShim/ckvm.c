// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "CKVMShim.h"
#include "ckvm_fail.h"

static inline long result(long value) { return value < 0 ? -(long)errno : value; }
static inline long mapped(void *address) { return address == MAP_FAILED ? -(long)errno : (long)(intptr_t)address; }


// A direct system call: KVM_RUN is called for every exit, and the kernel's own convention, a negative errno, is
// the one needed here.
static inline long raw_ioctl(long fd, unsigned long request, unsigned long argument) {
    long value;
    __asm__ volatile("syscall"
                     : "=a"(value)
                     : "a"((long)SYS_ioctl), "D"(fd), "S"(request), "d"(argument)
                     : "rcx", "r11", "memory");
    return value;
}

// The name of an ioctl that can be a step of a test; NULL for the others, in which no allocation is made to fail.
static const char *step_ioctl_name(unsigned long request) {
    switch (request) {
    case CKVM_CREATE_VM: return "KVM_CREATE_VM";
    case CKVM_CREATE_VCPU: return "KVM_CREATE_VCPU";
    case CKVM_CREATE_GUEST_MEMFD: return "KVM_CREATE_GUEST_MEMFD";
    case CKVM_SET_USER_MEMORY_REGION2: return "KVM_SET_USER_MEMORY_REGION2";
    case CKVM_SET_MEMORY_ATTRIBUTES: return "KVM_SET_MEMORY_ATTRIBUTES";
    case CKVM_SET_MEMORY_ATTRIBUTES2: return "KVM_SET_MEMORY_ATTRIBUTES2";
    case CKVM_RUN: return "KVM_RUN";
    case CKVM_PRE_FAULT_MEMORY: return "KVM_PRE_FAULT_MEMORY";
    case CKVM_GET_DIRTY_LOG: return "KVM_GET_DIRTY_LOG";
    case CKVM_SET_MSRS: return "KVM_SET_MSRS";
    case CKVM_PIN_LONGTERM_TEST_START: return "PIN_LONGTERM_TEST_START";
    default: return NULL;
    }
}

// STEP_CALL for an ioctl. Without a failure to come it costs one test.
static inline long step_ioctl(int fd, unsigned long request, unsigned long argument) {
    if (__builtin_expect(ckvm_fail_state.left == 0, 1)) return raw_ioctl(fd, request, argument);
    const char *name = step_ioctl_name(request);
    return name ? STEP_CALL(name, raw_ioctl(fd, request, argument)) : raw_ioctl(fd, request, argument);
}

long ckvm_ioctl(int fd, unsigned long request, void *argument) {
    return step_ioctl(fd, request, (unsigned long)argument);
}

long ckvm_ioctl_value(int fd, unsigned long request, unsigned long argument) {
    return step_ioctl(fd, request, argument);
}

long ckvm_copy_from(void *to, uint64_t address, uint64_t length) {
    struct iovec local = {to, length}, remote = {(void *)(uintptr_t)address, length};
    pid_t pid = getpid();
    return STEP_CALL("process_vm_readv", result(process_vm_readv(pid, &local, 1, &remote, 1, 0)));
}

long ckvm_copy_to(uint64_t address, const void *from, uint64_t length) {
    struct iovec local = {(void *)(uintptr_t)from, length}, remote = {(void *)(uintptr_t)address, length};
    pid_t pid = getpid();
    return STEP_CALL("process_vm_writev", result(process_vm_writev(pid, &local, 1, &remote, 1, 0)));
}

long ckvm_vmsplice(int pipe, uint64_t address, uint64_t length) {
    struct iovec vector = {(void *)(uintptr_t)address, length};
    return STEP_CALL("vmsplice", result(vmsplice(pipe, &vector, 1, SPLICE_F_NONBLOCK)));
}

// The C library has no wrappers for the three calls of io_uring and those of AIO.
long ckvm_io_uring_setup(void) {
    uint64_t parameters[15] = {0};  // struct io_uring_params, 120 bytes
    return STEP_CALL("io_uring_setup", result(syscall(SYS_io_uring_setup, 1u, parameters)));
}

long ckvm_io_uring_register_buffer(int ring, uint64_t address, uint64_t length) {
    struct iovec vector = {(void *)(uintptr_t)address, length};
    const unsigned register_buffers = 0;
    return STEP_CALL("IORING_REGISTER_BUFFERS",
                     result(syscall(SYS_io_uring_register, ring, register_buffers, &vector, 1u)));
}

long ckvm_io_uring_unregister_buffers(int ring) {
    return result(syscall(SYS_io_uring_register, ring, 1u /* IORING_UNREGISTER_BUFFERS */, NULL, 0u));
}

long ckvm_open_direct(const char *path) { return result(open(path, O_RDWR | O_DIRECT | O_CLOEXEC)); }

long ckvm_aio_write(int fd, uint64_t address, uint64_t length, uint64_t *context) {
    *context = 0;
    long created = STEP_CALL("io_setup", result(syscall(SYS_io_setup, 1u, context)));
    if (created < 0) return created;
    // struct iocb: opcode at 16, descriptor at 20, buffer at 24, length at 32, offset at 40.
    struct {
        uint64_t data, key;
        uint16_t opcode;
        int16_t priority;
        uint32_t fd;
        uint64_t buffer, length;
        int64_t offset;
        uint64_t reserved;
        uint32_t flags, event;
    } write = {.opcode = 1 /* IOCB_CMD_PWRITE */, .fd = (uint32_t)fd, .buffer = address, .length = length};
    _Static_assert(sizeof write == 64, "struct iocb");
    void *list[1] = {&write};
    long submitted = STEP_CALL("io_submit", result(syscall(SYS_io_submit, *context, 1l, list)));
    if (submitted != 1) {
        syscall(SYS_io_destroy, *context);
        return submitted < 0 ? submitted : -EAGAIN;
    }
    return 0;
}

void ckvm_aio_finish(uint64_t context) {
    struct {
        uint64_t data, object;
        int64_t result, result2;
    } event;
    while (syscall(SYS_io_getevents, context, 1l, 1l, &event, NULL) < 0 && errno == EINTR) {}
    syscall(SYS_io_destroy, context);
}

long ckvm_fallocate(int fd, bool punch_hole, int64_t offset, int64_t length) {
    int mode = FALLOC_FL_KEEP_SIZE | (punch_hole ? FALLOC_FL_PUNCH_HOLE : 0);
    return STEP_CALL("fallocate", result(fallocate(fd, mode, offset, length)));
}

long ckvm_memfd_create(const char *name) { return result(memfd_create(name, MFD_CLOEXEC)); }

int64_t ckvm_mmap_shared(uint64_t length, bool reserve, int fd, uint64_t offset) {
    int flags = MAP_SHARED | (reserve ? 0 : MAP_NORESERVE);
    return STEP_CALL("mmap", mapped(mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset)));
}

int64_t ckvm_mmap_run_page(int vcpu, uint64_t length) {
    return mapped(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
}

long ckvm_mprotect(uint64_t address, uint64_t length, bool accessible) {
    return ckvm_mprotect_to(address, length, accessible, accessible);
}

long ckvm_file_call(int fd, enum ckvm_file_call call) {
    char byte = 0;
    long address;
    switch (call) {
    case CKVM_FILE_READ: return STEP_CALL("read", result(read(fd, &byte, 1)));
    case CKVM_FILE_WRITE: return STEP_CALL("write", result(write(fd, &byte, 1)));
    case CKVM_FILE_TRUNCATE: return STEP_CALL("ftruncate", result(ftruncate(fd, 4096)));
    case CKVM_FILE_MAP_PRIVATE:
        address = STEP_CALL("mmap", mapped(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0)));
        if (address < 0) return address;
        munmap((void *)(intptr_t)address, 4096);
        return 0;
    case CKVM_FILE_GROW: return STEP_CALL("fallocate", result(fallocate(fd, 0, 0, 4096)));
    }
    return -ENOSYS;
}

long ckvm_peek(uint64_t address) {
    unsigned char byte;
    int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -(long)errno;
    long got = STEP_CALL("pread", result(pread(fd, &byte, 1, (off_t)address)));
    close(fd);
    return got == 1 ? byte : got < 0 ? got : -EIO;
}

long ckvm_madvise(uint64_t address, uint64_t length, int advice) {
    return STEP_CALL("madvise", result(madvise((void *)(uintptr_t)address, length, advice)));
}

// si_code of a memory failure; the headers hide these names without a feature macro.
enum { MCE_ACTION_REQUIRED = 4, MCE_ACTION_OPTIONAL = 5 };
static struct sigaction before_poison;
static __thread bool is_poisoning;

static void poisoned(int signal, siginfo_t *info, void *context) {
    if (is_poisoning && (info->si_code == MCE_ACTION_REQUIRED || info->si_code == MCE_ACTION_OPTIONAL)) return;
    if (before_poison.sa_flags & SA_SIGINFO) return before_poison.sa_sigaction(signal, info, context);
    if (before_poison.sa_handler != SIG_DFL && before_poison.sa_handler != SIG_IGN)
        return before_poison.sa_handler(signal);
    // The faulting access is repeated, and then ends the process as it would have done without this handler.
    sigaction(SIGBUS, &before_poison, NULL);
}

static void install_poisoned(void) {
    struct sigaction action = {.sa_sigaction = poisoned, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before_poison);
}

long ckvm_poison(uint64_t address, uint64_t length) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_poisoned);
    // If the signal were blocked it would end the process: the kernel forces it.
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, &old);
    is_poisoning = true;
    long done = ckvm_madvise(address, length, 100 /* MADV_HWPOISON */);
    is_poisoning = false;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return done;
}

long ckvm_duplicate(int fd, int least) { return STEP_CALL("fcntl", result(fcntl(fd, F_DUPFD_CLOEXEC, least))); }

long ckvm_close(int fd) { return STEP_CALL("close", result(close(fd))); }

int64_t ckvm_mmap_shared_at(uint64_t address, uint64_t length, int fd, uint64_t offset) {
    const int fixed_no_replace = 0x100000;
    int flags = MAP_SHARED | MAP_NORESERVE | fixed_no_replace;
    void *at = (void *)(uintptr_t)address;
    long got = STEP_CALL("mmap", mapped(mmap(at, length, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset)));
    if (got < 0 || (uint64_t)got == address) return got;
    // A kernel before 4.17 treats the address as a hint.
    munmap((void *)(intptr_t)got, length);
    return -EEXIST;
}

long ckvm_munmap(uint64_t address, uint64_t length) {
    return STEP_CALL("munmap", result(munmap((void *)(uintptr_t)address, length)));
}

int64_t ckvm_mremap(uint64_t address, uint64_t length, uint64_t new_length, uint64_t to) {
    void *from = (void *)(uintptr_t)address, *at = (void *)(uintptr_t)to;
    return STEP_CALL("mremap", mapped(mremap(from, length, new_length, MREMAP_MAYMOVE | MREMAP_FIXED, at)));
}

long ckvm_mprotect_to(uint64_t address, uint64_t length, bool readable, bool writable) {
    int protection = (readable ? PROT_READ : 0) | (writable ? PROT_WRITE : 0);
    return STEP_CALL("mprotect", result(mprotect((void *)(uintptr_t)address, length, protection)));
}

long ckvm_mbind(uint64_t address, uint64_t length, int mode, int node, unsigned flags) {
    unsigned long nodes[16] = {0};
    const unsigned bits = 8 * sizeof nodes[0];
    if (node >= (int)(bits * 16)) return -EINVAL;
    if (node >= 0) nodes[(unsigned)node / bits] = 1UL << (unsigned)node % bits;
    unsigned long *mask = node < 0 ? NULL : nodes, count = node < 0 ? 0 : bits * 16;
    return STEP_CALL("mbind", result(syscall(SYS_mbind, address, length, mode, mask, count, flags)));
}

long ckvm_move_page(uint64_t address, int node) {
    void *pages[1] = {(void *)(uintptr_t)address};
    int status = -ENOENT;
    const int move = 1 << 1;  // MPOL_MF_MOVE
    const int *nodes = node < 0 ? NULL : &node;
    long failed = STEP_CALL("move_pages", result(syscall(SYS_move_pages, 0, 1UL, pages, nodes, &status, move)));
    // A positive result is the number of pages that were not moved; their status is not written.
    return failed < 0 ? failed : failed > 0 ? -EBUSY : status;
}

long ckvm_dirty_log(int vm, uint32_t slot, uint64_t *first) {
    // One bit per page of the largest slot; memory that the kernel does not write is never allocated.
    const uint64_t pages = (1UL << 31) - 1, bytes = (pages + 63) / 64 * 8;
    uint64_t *bits = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bits == MAP_FAILED) return -(long)errno;
    struct ckvm_dirty_log log = {.slot = slot, .dirty_bitmap = (uint64_t)(uintptr_t)bits};
    long done = step_ioctl(vm, CKVM_GET_DIRTY_LOG, (unsigned long)&log);
    *first = bits[0];
    munmap(bits, bytes);
    return done;
}

// Two pages. The argument ends at the end of the first, or extends into the second, which is not accessible.
int64_t ckvm_argument_map(const void *from, uint64_t length, uint64_t readable, bool read_only) {
    const uint64_t page = 4096;
    if (length > page || readable > length) return -EINVAL;
    char *base = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return -(int64_t)errno;
    char *start = base + page - readable;
    memcpy(start, from, length);
    if (mprotect(base + page, page, PROT_NONE) < 0 || (read_only && mprotect(base, page, PROT_READ) < 0)) {
        int error = errno;
        munmap(base, 2 * page);
        return -error;
    }
    return (int64_t)(intptr_t)start;
}

void ckvm_argument_unmap(int64_t address, uint64_t readable) {
    munmap((char *)(intptr_t)address + readable - 4096, 8192);
}

static void nothing(int signal) { (void)signal; }

long ckvm_install_kick_handler(void) {
    struct sigaction action = {.sa_handler = nothing};
    sigemptyset(&action.sa_mask);
    return result(sigaction(SIGUSR1, &action, NULL));
}

long ckvm_kick_thread(int tid) { return result(syscall(SYS_tgkill, getpid(), tid, SIGUSR1)); }

int ckvm_kickable_thread_id(void) {
    static __thread int tid;
    if (tid == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        tid = (int)syscall(SYS_gettid);
    }
    return tid;
}

long ckvm_eventfd(void) { return result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void ckvm_eventfd_signal(int fd) {
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof one);
    (void)written;
}

void ckvm_eventfd_clear(int fd) {
    uint64_t count;
    ssize_t taken = read(fd, &count, sizeof count);
    (void)taken;
}

long ckvm_open_standard_descriptors(void) {
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
        // All lower numbers are in use, so this is the lowest free one.
        if (open("/dev/null", O_RDWR) != fd) return -EBADF;
    }
    return 0;
}

static void interrupts(sigset_t *set) {
    struct sigaction hangup;
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    // nohup(1) ignores SIGHUP, and it has to stay ignored: a signalfd would report it anyway.
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(set, SIGHUP);
}

long ckvm_signalfd_interrupts(void) {
    sigset_t set;
    interrupts(&set);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) return -EINVAL;
    return result(signalfd(-1, &set, SFD_CLOEXEC));
}

void ckvm_unblock_interrupts(void) {
    sigset_t set;
    interrupts(&set);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

long ckvm_wait(int event, int signals, int64_t nanoseconds) {
    struct pollfd fds[2] = {{.fd = event, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    if (ppoll(fds, 2, nanoseconds < 0 ? NULL : &limit, NULL) <= 0) return -1;
    struct signalfd_siginfo info;
    if (fds[1].revents && read(signals, &info, sizeof info) == sizeof info) return (long)info.ssi_signo;
    return fds[0].revents ? 0 : -1;
}
