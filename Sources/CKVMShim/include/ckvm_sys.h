// SPDX-License-Identifier: MIT
// Raw calls that Swift cannot make itself: a variadic ioctl, fault-safe copies, volatile access to the
// kvm_run page, signals to one thread. Each returns its value, or the negative errno. No logic.
//
// No system header is included here: their declarations depend on feature macros, and a module compiled with
// different macros would conflict with this one.
#ifndef CKVM_SYS_H
#define CKVM_SYS_H

#include <stdbool.h>
#include <stdint.h>

#include "ckvm_uapi.h"

/// ioctl(2) with a pointer argument.
long ckvm_ioctl(int fd, unsigned long request, void *_Nullable argument);
/// ioctl(2) with an integer argument.
long ckvm_ioctl_value(int fd, unsigned long request, unsigned long argument);

/// Copies between our own buffer and our own address space through the kernel (process_vm_readv/writev), so
/// that an inaccessible page returns EFAULT and does not raise SIGBUS. Returns the bytes copied before the first
/// such page, or -EFAULT if there are none.
long ckvm_copy_from(void *_Nonnull to, uint64_t address, uint64_t length);
long ckvm_copy_to(uint64_t address, const void *_Nonnull from, uint64_t length);

/// vmsplice(2) without SPLICE_F_GIFT: the pipe takes references on the pages of [address, address + length).
long ckvm_vmsplice(int pipe, uint64_t address, uint64_t length);

/// io_uring_setup(2) with one entry; io_uring_register(2) and unregister of one fixed buffer.
long ckvm_io_uring_setup(void);
long ckvm_io_uring_register_buffer(int ring, uint64_t address, uint64_t length);
long ckvm_io_uring_unregister_buffers(int ring);

/// open(2) for reading and writing, O_DIRECT.
long ckvm_open_direct(const char *_Nonnull path);
/// io_submit(2) of one write at offset 0, in its own context; io_getevents(2) waits until it is done.
long ckvm_aio_write(int fd, uint64_t address, uint64_t length, uint64_t *_Nonnull context);
void ckvm_aio_finish(uint64_t context);

/// fallocate(2) that keeps the size, and punches a hole if requested.
long ckvm_fallocate(int fd, bool punch_hole, int64_t offset, int64_t length);

/// Permanently removes from all threads of this process the rights that a monitor does not need (seccomp(2), no new
/// privileges): executing a program, sockets, other processes' memory, mounts, identities, modules, BPF, keys. These fail
/// with EPERM. Returns 0 or a negative errno: -EINVAL on a kernel without seccomp.
long ckvm_confine(void);

/// sched_setaffinity(2) of the calling thread to one CPU, or to all for -1; the CPU on which it runs.
long ckvm_bind_to_cpu(int cpu);
long ckvm_current_cpu(void);
/// sched_setscheduler(2) of a thread or process, 0 for the calling thread: SCHED_FIFO with a priority from 1 to 99, or
/// SCHED_OTHER for 0. Its new threads and children are SCHED_OTHER. -EPERM without CAP_SYS_NICE.
long ckvm_set_fifo_priority(int thread, int priority);
/// gettid(2).
long ckvm_thread_id(void);
/// clock_nanosleep(2) until an absolute time of CLOCK_MONOTONIC, in nanoseconds. Signals do not end the sleep.
long ckvm_sleep_until(uint64_t nanoseconds);
/// How often the calling thread has slept in the kernel: ru_nvcsw of getrusage(2), or a negative errno.
long ckvm_sleeps(void);
/// A timerfd(2) of CLOCK_MONOTONIC, close-on-exec, and its arming to expire once after `nanoseconds`, at least 1.
long ckvm_timer(void);
long ckvm_timer_start(int timer, uint64_t nanoseconds);
/// Waits until the timer expires. Signals do not end the wait.
long ckvm_timer_wait(int timer);
/// Executes this number of instructions, at most CKVM_MOST_PADDING, beside a fixed number.
#define CKVM_MOST_PADDING 63
void ckvm_pad(uint32_t instructions);
/// Increments `count` in a loop of three instructions until `stop` is not 0.
void ckvm_count_until(const volatile int *_Nonnull stop, volatile uint64_t *_Nonnull count);

/// From here on the `nth` allocation fails that the kernel makes in the system calls of a test's step on this thread, and no
/// other one. `nth` is at least 1. These calls are all calls of this header that act on files, mappings and memslots of a
/// test, and the ioctls that create, bind, convert, fault in and run. Calls on a vCPU's registers are none of them.
/// -ENOENT on a kernel without CONFIG_FAULT_INJECTION.
long ckvm_fail_begin(unsigned nth);
/// Ends it. Returns the name of the call in which the allocation failed, and its value or negative errno as `result`; NULL
/// if fewer allocations were made, with the number that was left of `nth`.
const char *_Nullable ckvm_fail_end(unsigned *_Nonnull left, long *_Nonnull result);

/// memfd_create(2), close-on-exec.
long ckvm_memfd_create(const char *_Nonnull name);

/// mmap(2), readable and writable, MAP_SHARED: the address, or the negative errno.
int64_t ckvm_mmap_shared(uint64_t length, bool reserve, int fd, uint64_t offset);
/// Same, of a vCPU's kvm_run page. No allocation is made to fail here: the vCPU exists already and cannot be created again.
int64_t ckvm_mmap_run_page(int vcpu, uint64_t length);
/// mprotect(2) to read-write, or to no access.
long ckvm_mprotect(uint64_t address, uint64_t length, bool accessible);

/// Calls that no guest_memfd supports: read(2) and write(2) of a byte, ftruncate(2) to a page, mmap(2) with MAP_PRIVATE,
/// fallocate(2) that may grow the file.
enum ckvm_file_call { CKVM_FILE_READ, CKVM_FILE_WRITE, CKVM_FILE_TRUNCATE, CKVM_FILE_MAP_PRIVATE, CKVM_FILE_GROW };
long ckvm_file_call(int fd, enum ckvm_file_call call);
/// Reads a byte of this process's memory through /proc/self/mem.
long ckvm_peek(uint64_t address);

/// madvise(2).
long ckvm_madvise(uint64_t address, uint64_t length, int advice);
/// madvise(2) with MADV_HWPOISON. The kernel sends SIGBUS (BUS_MCEERR_AR) to the calling thread for a page that it has
/// mapped and written; that signal, and no other, is dropped.
long ckvm_poison(uint64_t address, uint64_t length);

/// fcntl(2) F_DUPFD_CLOEXEC: the lowest free number that is at least `least`.
long ckvm_duplicate(int fd, int least);
/// close(2).
long ckvm_close(int fd);

/// mmap(2) as above, at an address where nothing may be mapped: -EEXIST otherwise.
int64_t ckvm_mmap_shared_at(uint64_t address, uint64_t length, int fd, uint64_t offset);
/// munmap(2).
long ckvm_munmap(uint64_t address, uint64_t length);
/// mremap(2) to the address `to`.
int64_t ckvm_mremap(uint64_t address, uint64_t length, uint64_t new_length, uint64_t to);
/// mprotect(2) to reading, writing, both or no access.
long ckvm_mprotect_to(uint64_t address, uint64_t length, bool readable, bool writable);

/// mbind(2) with a mode of MPOL_* and one node, or none (negative).
long ckvm_mbind(uint64_t address, uint64_t length, int mode, int node, unsigned flags);
/// move_pages(2) of one page of this process: to a node or, if `node` is negative, only to query it. Returns the
/// page's node afterwards; -EBUSY if the kernel did not move it.
long ckvm_move_page(uint64_t address, int node);

/// KVM_GET_DIRTY_LOG of a slot of any size: the bits of its first 64 pages go to `first`.
long ckvm_dirty_log(int vm, uint32_t slot, uint64_t *_Nonnull first);

/// Copies an argument of `length` bytes, at most a page, into separate memory. Only its first `readable` bytes are mapped,
/// and none is writable if `read_only`. Returns the address of the first byte.
int64_t ckvm_argument_map(const void *_Nonnull from, uint64_t length, uint64_t readable, bool read_only);
void ckvm_argument_unmap(int64_t address, uint64_t readable);

/// The most bytes that one call of the following two can transfer.
#define CKVM_CHILD_CHUNK 4096u

/// fork(2) of a process that has this one's mappings but none of its descriptors, and that accesses the mappings on
/// request. Returns its pid when it has closed them and waits for requests, -EPIPE if it has ended before; it ends with the
/// socket, or with this process.
long ckvm_child_fork(int *_Nonnull socket);
/// Like ckvm_copy_from and ckvm_copy_to, but done by the child. -EPIPE if it has ended.
long ckvm_child_read(int socket, uint64_t address, void *_Nonnull to, uint32_t length);
long ckvm_child_write(int socket, uint64_t address, const void *_Nonnull from, uint32_t length);
/// Closes the socket, ends the child and waits for it.
void ckvm_child_end(int socket, int child);

// A thread that kicks may write kvm_run.immediate_exit while the vCPU's own thread is entering.
static inline void ckvm_set_immediate_exit(struct ckvm_run *_Nonnull run, uint8_t value) {
    __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST);
}
static inline uint8_t ckvm_immediate_exit(const struct ckvm_run *_Nonnull run) {
    return __atomic_load_n(&run->immediate_exit, __ATOMIC_SEQ_CST);
}

/// Installs the handler of the kick signal (SIGUSR1). It does nothing: the only effect is EINTR.
long ckvm_install_kick_handler(void);
/// Sends the kick signal to one thread of this process.
long ckvm_kick_thread(int tid);
/// gettid(2), called once per thread, because KVM_RUN is too frequent for another system call. The first call also
/// unblocks the kick signal, because threads of a pool start with every signal blocked.
int ckvm_kickable_thread_id(void);

/// eventfd(2), used only to become readable until it is cleared.
long ckvm_eventfd(void);
void ckvm_eventfd_signal(int fd);
void ckvm_eventfd_clear(int fd);
/// Opens /dev/null for each of the descriptors 0 to 2 that is closed, so that no other file gets these numbers.
long ckvm_open_standard_descriptors(void);
/// Blocks SIGINT, SIGTERM and, unless it is ignored, SIGHUP in the calling thread and returns a signalfd(2) for them.
long ckvm_signalfd_interrupts(void);
/// Unblocks these signals in the calling thread.
void ckvm_unblock_interrupts(void);
/// Waits for an eventfd and a signalfd (or -1), at most `nanoseconds` (negative: no limit).
/// Returns 0 for the event, the number of a signal that arrived, or -1.
long ckvm_wait(int event, int signals, int64_t nanoseconds);

// ---- a server for one local client -------------------------------------------------------------------------
/// Listens on a Unix socket, which only this user can connect to. Replaces the socket of a server that has ended.
/// Returns a descriptor, or -EADDRINUSE if the path exists, -ENAMETOOLONG for more than 107 bytes, or another -errno.
long ckvm_listen_unix(const char *_Nonnull path);
/// Listens on a TCP port of 127.0.0.1. Returns a descriptor or -errno.
long ckvm_listen_loopback(uint16_t port);
/// unlink(2) and shutdown(2) of both directions; errors are ignored.
void ckvm_unlink(const char *_Nonnull path);
void ckvm_shutdown(int fd);
/// Whether the peer has closed its end.
bool ckvm_is_hung_up(int fd);
/// accept4(2). Returns a descriptor or -errno.
long ckvm_accept(int listener);
/// recv(2). Returns the number of bytes, 0 at the end, or -errno.
long ckvm_receive(int fd, void *_Nonnull bytes, uint64_t size);
/// Sends all bytes. Returns 0, -ETIMEDOUT if the peer takes nothing for `patience` nanoseconds, or another -errno.
long ckvm_send_all(int fd, const void *_Nonnull bytes, uint64_t size, int64_t patience);
/// Waits until one of at most four descriptors is readable or at its end; -1 is ignored. Returns one bit for each, or
/// -errno.
long ckvm_wait_readable(const int *_Nonnull fds, uint32_t count);

#endif
