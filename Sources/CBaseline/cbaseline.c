// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "CKVMShim.h"
#include "cbaseline.h"
#include "hello.h"

#define PAGE 4096ull

struct vm {
    int kvm, vm, vcpu, file;
    struct ckvm_run *run;
    size_t run_size;
    uint8_t *kernel_mapping;  // the memslots' userspace_addr
    uint8_t *host_mapping;    // for the host's accesses: private pages are PROT_NONE
    struct cbaseline_guest guest;
    uint64_t shared_page;  // two aliases: the shared page, or ~0
    struct cbaseline_console *console;  // collects the guest's output; may be NULL
};

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

static int set_slot(const struct vm *v, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t offset) {
    struct ckvm_userspace_memory_region2 r = {
        .slot = slot,
        .flags = CKVM_MEM_GUEST_MEMFD,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uint64_t)(uintptr_t)v->kernel_mapping + offset,
        .guest_memfd = (uint32_t)v->file,
        .guest_memfd_offset = offset,
    };
    return ioctl(v->vm, CKVM_SET_USER_MEMORY_REGION2, &r);
}

static void put(struct vm *v, uint64_t at, uint64_t word) { memcpy(v->kernel_mapping + at, &word, sizeof word); }

// GDT at 0x1000, boot information at 0x2000, tables from 0x3000: identity, 1 GiB in pages of 2 MiB, both aliases.
static void write_boot(struct vm *v) {
    put(v, 0x1008, 0x00af9b000000ffff);
    put(v, 0x1010, 0x00cf93000000ffff);
    cbaseline_write_boot_information(v->kernel_mapping + 0x2000, &v->guest);
    for (int alias = 0; alias < (v->guest.shared_bit < 0 ? 1 : 2); alias++) {
        uint64_t base = alias ? 1ull << v->guest.shared_bit : 0;
        uint64_t pointers = 0x4000 + alias * 2 * PAGE, directory = pointers + PAGE;
        put(v, 0x3000 + (base >> 39) * 8, pointers | 3);
        put(v, pointers + ((base >> 30) & 511) * 8, directory | 3);
        for (uint64_t i = 0; i < 512; i++) put(v, directory + i * 8, (base + (i << 21)) | 0x83);
    }
    memcpy(v->kernel_mapping + 0x100000, v->guest.image, v->guest.image_size);
}

static int set_registers(struct vm *v) {
    struct ckvm_sregs s;
    if (ioctl(v->vcpu, CKVM_GET_SREGS, &s) < 0) return -1;
    s.cs = (struct ckvm_segment){.limit = ~0u, .selector = 8, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1};
    s.ds = s.es = s.fs = s.gs = s.ss =
        (struct ckvm_segment){.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s.gdt = (struct ckvm_dtable){.base = 0x1000, .limit = 23};
    s.cr0 = 0x80010033;
    s.cr3 = 0x3000;
    s.cr4 = 0x620;
    s.efer = 0x500;
    if (ioctl(v->vcpu, CKVM_SET_SREGS, &s) < 0) return -1;
    struct ckvm_regs r = {.rip = 0x100000, .rflags = 2, .rsp = 0x44000, .rdi = 0x2000};
    return ioctl(v->vcpu, CKVM_SET_REGS, &r);
}

static int create(struct vm *v) {
    static struct ckvm_cpuid2 cpuid;
    v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (v->kvm < 0) return -1;
    cpuid.nent = CKVM_CPUID_MAX_ENTRIES;
    if (ioctl(v->kvm, CKVM_GET_SUPPORTED_CPUID, &cpuid) < 0) return -1;
    v->vm = ioctl(v->kvm, CKVM_CREATE_VM, 0ul);
    if (v->vm < 0) return -1;
    struct ckvm_create_guest_memfd file = {
        .size = v->guest.ram_size,
        .flags = CKVM_GUEST_MEMFD_FLAG_MMAP | CKVM_GUEST_MEMFD_FLAG_INIT_SHARED,
    };
    v->file = ioctl(v->vm, CKVM_CREATE_GUEST_MEMFD, &file);
    if (v->file < 0) return -1;
    int flags = MAP_SHARED | MAP_NORESERVE;
    v->kernel_mapping = mmap(NULL, v->guest.ram_size, PROT_READ | PROT_WRITE, flags, v->file, 0);
    if (v->kernel_mapping == MAP_FAILED) return -1;
    v->host_mapping = mmap(NULL, v->guest.ram_size, PROT_READ | PROT_WRITE, flags, v->file, 0);
    if (v->host_mapping == MAP_FAILED) return -1;
    write_boot(v);
    if (mprotect(v->host_mapping, v->guest.ram_size, PROT_NONE) < 0) return -1;
    v->shared_page = ~0ull;
    if (set_slot(v, 0, 0, v->guest.ram_size, 0) < 0) return -1;
    v->vcpu = ioctl(v->vm, CKVM_CREATE_VCPU, 0ul);
    if (v->vcpu < 0) return -1;
    int size = ioctl(v->kvm, CKVM_GET_VCPU_MMAP_SIZE, 0ul);
    if (size < 0) return -1;
    v->run_size = (size_t)size;
    v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu, 0);
    if (v->run == MAP_FAILED) return -1;
    if (ioctl(v->vcpu, CKVM_SET_CPUID2, &cpuid) < 0) return -1;
    return set_registers(v);
}

static void destroy(struct vm *v) {
    if (v->run && v->run != MAP_FAILED) munmap(v->run, v->run_size);
    if (v->vcpu > 0) close(v->vcpu);
    if (v->host_mapping && v->host_mapping != MAP_FAILED) munmap(v->host_mapping, v->guest.ram_size);
    if (v->kernel_mapping && v->kernel_mapping != MAP_FAILED) munmap(v->kernel_mapping, v->guest.ram_size);
    if (v->file > 0) close(v->file);
    if (v->vm > 0) close(v->vm);
    if (v->kvm > 0) close(v->kvm);
}

// Moves one page to the other alias: splits slot 0 around it and maps it with slot 2, or the reverse.
static int convert(struct vm *v, uint64_t page, bool to_shared) {
    uint64_t ram = v->guest.ram_size, bit = 1ull << v->guest.shared_bit;
    if (to_shared) {
        if (set_slot(v, 0, 0, 0, 0) < 0 || set_slot(v, 0, 0, page, 0) < 0) return -1;
        if (set_slot(v, 1, page + PAGE, ram - page - PAGE, page + PAGE) < 0) return -1;
        if (set_slot(v, 2, page | bit, PAGE, page) < 0) return -1;
    } else {
        if (set_slot(v, 2, page | bit, 0, page) < 0 || set_slot(v, 0, 0, 0, 0) < 0) return -1;
        if (set_slot(v, 1, page + PAGE, 0, page + PAGE) < 0 || set_slot(v, 0, 0, ram, 0) < 0) return -1;
    }
    v->shared_page = to_shared ? page : ~0ull;
    return mprotect(v->host_mapping + page, PAGE, to_shared ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// Copied by the kernel, as in any monitor that must survive a page that is not available.
static int touch(struct vm *v) {
    uint64_t bit = 1ull << v->guest.shared_bit, gpa = v->run->mmio.phys_addr;
    bool shared_alias = gpa & bit;
    uint64_t at = gpa & ~bit;
    if (v->guest.shared_bit < 0 || v->run->mmio.len > 8 || at + 8 > v->guest.ram_size) return -1;
    if (shared_alias != (v->shared_page == (at & ~(PAGE - 1))) && convert(v, at & ~(PAGE - 1), shared_alias) < 0) return -1;
    uint64_t address = (uint64_t)(uintptr_t)v->kernel_mapping + at, length = v->run->mmio.len;
    long copied = v->run->mmio.is_write ? ckvm_copy_to(address, v->run->mmio.data, length)
                                        : ckvm_copy_from(v->run->mmio.data, address, length);
    return copied == (long)length ? 0 : -1;
}

static int loop(struct vm *v) {
    for (;;) {
        if (ioctl(v->vcpu, CKVM_RUN, 0ul) < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        switch (v->run->exit_reason) {
        case 2:  // KVM_EXIT_IO
            if (v->run->io.direction == CKVM_EXIT_IO_OUT && v->run->io.port == 0xf4) return 0;
            if (v->console && v->run->io.port == 0x3f8)
                cbaseline_print(v->console, ((uint8_t *)v->run)[v->run->io.data_offset]);
            break;
        case 6:  // KVM_EXIT_MMIO
            if (touch(v) < 0) return -1;
            break;
        default:
            errno = EPROTO;
            return -1;
        }
    }
}

static int64_t measure_here(
    const struct cbaseline_guest *guest, bool creation, int64_t *cpu, struct cbaseline_console *console) {
    struct vm v = {.guest = *guest, .console = console};
    int64_t before = now();
    int64_t result = create(&v);
    if (!creation) before = now();
    int64_t cpu_before = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    if (result == 0) result = loop(&v);
    int64_t elapsed = now() - before;
    *cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
    if (result < 0) elapsed = -errno;
    destroy(&v);
    return elapsed;
}

struct job {
    const struct cbaseline_guest *guest;
    bool creation;
    int64_t result;
    int64_t cpu;
    struct cbaseline_console *console;
};

static void *work(void *argument) {
    struct job *job = argument;
    job->result = measure_here(job->guest, job->creation, &job->cpu, job->console);
    return NULL;
}

// A monitor runs each vCPU on its own thread, so that another thread can stop it. The baseline does the same.
static int64_t measure(
    const struct cbaseline_guest *guest, bool creation, int64_t *cpu, struct cbaseline_console *console) {
    struct job job = {.guest = guest, .creation = creation, .console = console};
    pthread_t thread;
    int error = pthread_create(&thread, NULL, work, &job);
    if (error) return -error;
    pthread_join(thread, NULL);
    *cpu = job.cpu;
    return job.result;
}

int cbaseline_stay_on_this_cpu(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    return sched_setaffinity(0, sizeof set, &set);
}

int64_t cbaseline_run(const struct cbaseline_guest *guest, int64_t *cpu) { return measure(guest, false, cpu, NULL); }

int64_t cbaseline_create_and_run(const struct cbaseline_guest *guest) {
    int64_t cpu;
    return measure(guest, true, &cpu, NULL);
}

int64_t cbaseline_hello_kvm(const struct cbaseline_guest *guest) {
    struct cbaseline_console console = {0};
    int64_t cpu, time = measure(guest, true, &cpu, &console);
    if (time > 0) cbaseline_show(&console);
    return time;
}
