// SPDX-License-Identifier: MIT
// The KVM user-space interface that MiniVMM uses: constants and structs, nothing else.
//
// All of it is declared here with its own prefix, because the linux/kvm.h of most systems is years
// older than guest_memfd. Sizes and offsets are asserted below each struct, so a mistake does not compile.
// Source: Linux Documentation/virt/kvm/api.rst and include/uapi/linux/kvm.h, 6.8 to 7.4.
#ifndef CKVM_UAPI_H
#define CKVM_UAPI_H

#include <stddef.h>
#include <stdint.h>

#define CKVM_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has the kernel's size")
#define CKVM_ASSERT_OFFSET(type, field, bytes) \
    _Static_assert(offsetof(type, field) == (bytes), #type "." #field " is at the kernel's offset")

// ---- ioctl numbers: direction << 30 | size << 16 | 0xAE << 8 | number ----------------------------------
#define CKVM_IO(nr) (0xAE00UL | (nr))
#define CKVM_IOW(nr, size) (1UL << 30 | (unsigned long)(size) << 16 | CKVM_IO(nr))
#define CKVM_IOR(nr, size) (2UL << 30 | (unsigned long)(size) << 16 | CKVM_IO(nr))
#define CKVM_IOWR(nr, size) (3UL << 30 | (unsigned long)(size) << 16 | CKVM_IO(nr))

// ---- guest_memfd ----------------------------------------------------------------------------------------

struct ckvm_create_guest_memfd {
    uint64_t size;   // bytes, a multiple of the page size
    uint64_t flags;  // CKVM_GUEST_MEMFD_FLAG_*
    uint64_t reserved[6];
};
CKVM_ASSERT_SIZE(struct ckvm_create_guest_memfd, 64);

static const uint64_t CKVM_GUEST_MEMFD_FLAG_MMAP = 1u << 0;
static const uint64_t CKVM_GUEST_MEMFD_FLAG_INIT_SHARED = 1u << 1;

// KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd: convert [offset, offset + size) in place.
struct ckvm_memory_attributes2 {
    uint64_t offset;        // bytes into the file
    uint64_t size;          // bytes
    uint64_t attributes;    // 0 = shared, CKVM_MEMORY_ATTRIBUTE_PRIVATE
    uint64_t flags;         // 0 in the applied version
    uint64_t error_offset;  // out: bytes into the file of the page that failed
    uint64_t reserved[11];
};
CKVM_ASSERT_SIZE(struct ckvm_memory_attributes2, 128);
CKVM_ASSERT_OFFSET(struct ckvm_memory_attributes2, error_offset, 32);
CKVM_ASSERT_OFFSET(struct ckvm_memory_attributes2, reserved, 40);

// flags of RFC v3 to v5, for the contents. The applied version has none.
static const uint64_t CKVM_SET_MEMORY_ATTRIBUTES2_FLAG_ZERO = 1u << 0;
static const uint64_t CKVM_SET_MEMORY_ATTRIBUTES2_FLAG_PRESERVE = 1u << 1;

// The same call in RFC v1: half the struct, another number.
struct ckvm_memory_attributes_rfc_v1 {
    uint64_t offset;
    uint64_t size;
    uint64_t attributes;
    uint64_t flags;
    uint64_t error_offset;
    uint64_t reserved[3];
};
CKVM_ASSERT_SIZE(struct ckvm_memory_attributes_rfc_v1, 64);
CKVM_ASSERT_OFFSET(struct ckvm_memory_attributes_rfc_v1, error_offset, 32);

// KVM_SET_MEMORY_ATTRIBUTES on a VM (Linux 6.8): per-VM attributes by guest-physical address.
struct ckvm_memory_attributes {
    uint64_t address;     // guest-physical, bytes
    uint64_t size;        // bytes
    uint64_t attributes;  // 0 = shared, CKVM_MEMORY_ATTRIBUTE_PRIVATE
    uint64_t flags;       // 0
};
CKVM_ASSERT_SIZE(struct ckvm_memory_attributes, 32);
CKVM_ASSERT_OFFSET(struct ckvm_memory_attributes, attributes, 16);

static const uint64_t CKVM_MEMORY_ATTRIBUTE_PRIVATE = 1u << 3;

// KVM_SET_MSRS on a vCPU, of one register.
struct ckvm_msrs1 {
    uint32_t nmsrs;  // 1
    uint32_t pad;
    uint32_t index;
    uint32_t reserved;
    uint64_t data;
};
CKVM_ASSERT_SIZE(struct ckvm_msrs1, 24);
// MSR_KVM_SYSTEM_TIME_NEW: guest-physical address of the clock's structure, bit 0 enables it.
static const uint32_t CKVM_MSR_SYSTEM_TIME_NEW = 0x4b564d01;

// ---- memory slots ---------------------------------------------------------------------------------------

struct ckvm_userspace_memory_region {
    uint32_t slot;
    uint32_t flags;
    uint64_t guest_phys_addr;
    uint64_t memory_size;  // bytes; 0 deletes the slot
    uint64_t userspace_addr;
};
CKVM_ASSERT_SIZE(struct ckvm_userspace_memory_region, 32);

struct ckvm_userspace_memory_region2 {
    uint32_t slot;
    uint32_t flags;
    uint64_t guest_phys_addr;
    uint64_t memory_size;  // bytes; 0 deletes the slot
    uint64_t userspace_addr;
    uint64_t guest_memfd_offset;
    uint32_t guest_memfd;
    uint32_t pad1;
    uint64_t pad2[14];
};
CKVM_ASSERT_SIZE(struct ckvm_userspace_memory_region2, 160);
CKVM_ASSERT_OFFSET(struct ckvm_userspace_memory_region2, guest_memfd, 40);

static const uint32_t CKVM_MEM_LOG_DIRTY_PAGES = 1u << 0;
static const uint32_t CKVM_MEM_READONLY = 1u << 1;
static const uint32_t CKVM_MEM_GUEST_MEMFD = 1u << 2;

// KVM_GET_DIRTY_LOG: which pages of a slot were written since the last call, one bit each.
struct ckvm_dirty_log {
    uint32_t slot;
    uint32_t padding1;
    uint64_t dirty_bitmap;  // address of the bits, whole 64-bit words
};
CKVM_ASSERT_SIZE(struct ckvm_dirty_log, 16);
CKVM_ASSERT_OFFSET(struct ckvm_dirty_log, dirty_bitmap, 8);

struct ckvm_pre_fault_memory {
    uint64_t gpa;
    uint64_t size;
    uint64_t flags;
    uint64_t padding[5];
};
CKVM_ASSERT_SIZE(struct ckvm_pre_fault_memory, 64);

struct ckvm_enable_cap {
    uint32_t cap;
    uint32_t flags;
    uint64_t args[4];
    uint8_t pad[64];
};
CKVM_ASSERT_SIZE(struct ckvm_enable_cap, 104);

// ---- registers ------------------------------------------------------------------------------------------

struct ckvm_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rip, rflags;
};
CKVM_ASSERT_SIZE(struct ckvm_regs, 144);

struct ckvm_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl;
    uint8_t unusable;
    uint8_t padding;
};
CKVM_ASSERT_SIZE(struct ckvm_segment, 24);

struct ckvm_dtable {
    uint64_t base;
    uint16_t limit;
    uint16_t padding[3];
};
CKVM_ASSERT_SIZE(struct ckvm_dtable, 16);

struct ckvm_sregs {
    struct ckvm_segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct ckvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint64_t interrupt_bitmap[4];
};
CKVM_ASSERT_SIZE(struct ckvm_sregs, 312);
CKVM_ASSERT_OFFSET(struct ckvm_sregs, cr0, 224);

struct ckvm_cpuid_entry2 {
    uint32_t function;
    uint32_t index;
    uint32_t flags;
    uint32_t eax, ebx, ecx, edx;
    uint32_t padding[3];
};
CKVM_ASSERT_SIZE(struct ckvm_cpuid_entry2, 40);

#define CKVM_CPUID_MAX_ENTRIES 256
struct ckvm_cpuid2 {
    uint32_t nent;
    uint32_t padding;
    struct ckvm_cpuid_entry2 entries[CKVM_CPUID_MAX_ENTRIES];
};
CKVM_ASSERT_OFFSET(struct ckvm_cpuid2, entries, 8);

// KVM_SET_GUEST_DEBUG.
struct ckvm_guest_debug {
    uint32_t control;  // CKVM_GUESTDBG_*
    uint32_t pad;
    uint64_t debugreg[8];  // DR0 to DR3 and DR7, with USE_HW_BP; the guest does not see them
};
CKVM_ASSERT_SIZE(struct ckvm_guest_debug, 72);
CKVM_ASSERT_OFFSET(struct ckvm_guest_debug, debugreg, 8);

static const uint32_t CKVM_GUESTDBG_ENABLE = 1u << 0;
static const uint32_t CKVM_GUESTDBG_SINGLESTEP = 1u << 1;
static const uint32_t CKVM_GUESTDBG_USE_SW_BP = 1u << 16;  // INT3 exits
static const uint32_t CKVM_GUESTDBG_USE_HW_BP = 1u << 17;

// ---- the kvm_run page -------------------------------------------------------------------------------------

struct ckvm_run_io {
    uint8_t direction;  // CKVM_EXIT_IO_IN / _OUT
    uint8_t size;       // bytes of one transfer
    uint16_t port;
    uint32_t count;
    uint64_t data_offset;  // bytes from the start of the kvm_run page
};
struct ckvm_run_mmio {
    uint64_t phys_addr;
    uint8_t data[8];
    uint32_t len;
    uint8_t is_write;
};
struct ckvm_run_hypercall {
    uint64_t nr;
    uint64_t args[6];
    uint64_t ret;
    uint64_t flags;
};
struct ckvm_run_internal {
    uint32_t suberror;
    uint32_t ndata;
    uint64_t data[16];
};
struct ckvm_run_memory_fault {
    uint64_t flags;
    uint64_t gpa;
    uint64_t size;
};
struct ckvm_run_fail_entry {
    uint64_t hardware_entry_failure_reason;
    uint32_t cpu;
};
// KVM_EXIT_DEBUG (struct kvm_debug_exit_arch).
struct ckvm_run_debug {
    uint32_t exception;  // vector: 1 for #DB, 3 for #BP
    uint32_t pad;
    uint64_t pc;  // linear
    uint64_t dr6;
    uint64_t dr7;
};
CKVM_ASSERT_SIZE(struct ckvm_run_debug, 32);
struct ckvm_run {
    uint8_t request_interrupt_window;
    uint8_t immediate_exit;
    uint8_t padding1[6];
    uint32_t exit_reason;
    uint8_t ready_for_interrupt_injection;
    uint8_t if_flag;
    uint16_t flags;
    uint64_t cr8;
    uint64_t apic_base;
    union {
        struct ckvm_run_io io;
        struct ckvm_run_mmio mmio;
        struct ckvm_run_hypercall hypercall;
        struct ckvm_run_internal internal;
        struct ckvm_run_memory_fault memory_fault;
        struct ckvm_run_fail_entry fail_entry;
        struct ckvm_run_debug debug;
        uint64_t hardware_exit_reason;
        struct {
            uint32_t type;
        } system_event;
        uint8_t padding[256];
    };
    uint64_t kvm_valid_regs;
    uint64_t kvm_dirty_regs;
    uint8_t sync_regs[2048];
};
CKVM_ASSERT_OFFSET(struct ckvm_run, immediate_exit, 1);
CKVM_ASSERT_OFFSET(struct ckvm_run, exit_reason, 8);
CKVM_ASSERT_OFFSET(struct ckvm_run, io, 32);
CKVM_ASSERT_OFFSET(struct ckvm_run, io.data_offset, 40);
CKVM_ASSERT_OFFSET(struct ckvm_run, mmio.data, 40);
CKVM_ASSERT_OFFSET(struct ckvm_run, mmio.len, 48);
CKVM_ASSERT_OFFSET(struct ckvm_run, mmio.is_write, 52);
CKVM_ASSERT_OFFSET(struct ckvm_run, hypercall.ret, 88);
CKVM_ASSERT_OFFSET(struct ckvm_run, debug.pc, 40);
CKVM_ASSERT_OFFSET(struct ckvm_run, memory_fault.gpa, 40);
CKVM_ASSERT_OFFSET(struct ckvm_run, kvm_valid_regs, 288);
CKVM_ASSERT_SIZE(struct ckvm_run, 2352);

static const uint8_t CKVM_EXIT_IO_IN = 0;
static const uint8_t CKVM_EXIT_IO_OUT = 1;

static const uint32_t CKVM_EXIT_UNKNOWN = 0;
static const uint32_t CKVM_EXIT_EXCEPTION = 1;
static const uint32_t CKVM_EXIT_IO = 2;
static const uint32_t CKVM_EXIT_HYPERCALL = 3;
static const uint32_t CKVM_EXIT_DEBUG = 4;
static const uint32_t CKVM_EXIT_HLT = 5;
static const uint32_t CKVM_EXIT_MMIO = 6;
static const uint32_t CKVM_EXIT_IRQ_WINDOW_OPEN = 7;
static const uint32_t CKVM_EXIT_SHUTDOWN = 8;
static const uint32_t CKVM_EXIT_FAIL_ENTRY = 9;
static const uint32_t CKVM_EXIT_INTR = 10;
static const uint32_t CKVM_EXIT_INTERNAL_ERROR = 17;
static const uint32_t CKVM_EXIT_SYSTEM_EVENT = 24;
static const uint32_t CKVM_EXIT_MEMORY_FAULT = 39;

static const uint32_t CKVM_INTERNAL_ERROR_EMULATION = 1;
static const uint64_t CKVM_MEMORY_EXIT_FLAG_PRIVATE = 1u << 3;

// ---- hypercalls (include/uapi/linux/kvm_para.h) ----------------------------------------------------------
static const uint64_t CKVM_HC_MAP_GPA_RANGE = 12;
static const uint64_t CKVM_MAP_GPA_RANGE_PAGE_SIZE_MASK = 0xf;
static const uint64_t CKVM_MAP_GPA_RANGE_ENCRYPTED = 1u << 4;

// ---- pinning pages for a test: /sys/kernel/debug/gup_test (mm/gup_test.h) ------------------------------------
struct ckvm_pin_longterm_test {
    uint64_t addr;  // of this process
    uint64_t size;  // bytes, whole pages
    uint32_t flags;
    uint32_t padding;
};
CKVM_ASSERT_SIZE(struct ckvm_pin_longterm_test, 24);

static const uint32_t CKVM_PIN_LONGTERM_TEST_FLAG_USE_WRITE = 1;
static const unsigned long CKVM_PIN_LONGTERM_TEST_START = 1UL << 30 | 24UL << 16 | 0x67UL << 8 | 7;
static const unsigned long CKVM_PIN_LONGTERM_TEST_STOP = 0x67UL << 8 | 8;

// ---- interrupt controllers ----------------------------------------------------------------------------------
struct ckvm_pit_config {
    uint32_t flags;
    uint32_t pad[15];
};
CKVM_ASSERT_SIZE(struct ckvm_pit_config, 64);

struct ckvm_irq_level {
    uint32_t irq;
    uint32_t level;
};
CKVM_ASSERT_SIZE(struct ckvm_irq_level, 8);

// ---- ioctls -----------------------------------------------------------------------------------------------
// on /dev/kvm
static const unsigned long CKVM_GET_API_VERSION = CKVM_IO(0x00);
static const unsigned long CKVM_CREATE_VM = CKVM_IO(0x01);
static const unsigned long CKVM_CHECK_EXTENSION = CKVM_IO(0x03);
static const unsigned long CKVM_GET_VCPU_MMAP_SIZE = CKVM_IO(0x04);
static const unsigned long CKVM_GET_SUPPORTED_CPUID = CKVM_IOWR(0x05, 8);
// on a VM
static const unsigned long CKVM_CREATE_VCPU = CKVM_IO(0x41);
static const unsigned long CKVM_GET_DIRTY_LOG = CKVM_IOW(0x42, sizeof(struct ckvm_dirty_log));
static const unsigned long CKVM_SET_USER_MEMORY_REGION = CKVM_IOW(0x46, sizeof(struct ckvm_userspace_memory_region));
static const unsigned long CKVM_SET_USER_MEMORY_REGION2 = CKVM_IOW(0x49, sizeof(struct ckvm_userspace_memory_region2));
static const unsigned long CKVM_CREATE_IRQCHIP = CKVM_IO(0x60);
static const unsigned long CKVM_IRQ_LINE = CKVM_IOW(0x61, sizeof(struct ckvm_irq_level));
static const unsigned long CKVM_CREATE_PIT2 = CKVM_IOW(0x77, sizeof(struct ckvm_pit_config));
static const unsigned long CKVM_ENABLE_CAP = CKVM_IOW(0xa3, sizeof(struct ckvm_enable_cap));
static const unsigned long CKVM_SET_MEMORY_ATTRIBUTES = CKVM_IOW(0xd2, sizeof(struct ckvm_memory_attributes));
static const unsigned long CKVM_CREATE_GUEST_MEMFD = CKVM_IOWR(0xd4, sizeof(struct ckvm_create_guest_memfd));
static const unsigned long CKVM_GET_STATS_FD = CKVM_IO(0xce);
// on a guest_memfd
static const unsigned long CKVM_SET_MEMORY_ATTRIBUTES2 = CKVM_IOWR(0xd2, sizeof(struct ckvm_memory_attributes2));
static const unsigned long CKVM_SET_MEMORY_ATTRIBUTES_RFC_V1 = CKVM_IOWR(0xd6, sizeof(struct ckvm_memory_attributes_rfc_v1));
// on a vCPU
static const unsigned long CKVM_RUN = CKVM_IO(0x80);
static const unsigned long CKVM_GET_REGS = CKVM_IOR(0x81, sizeof(struct ckvm_regs));
static const unsigned long CKVM_SET_REGS = CKVM_IOW(0x82, sizeof(struct ckvm_regs));
static const unsigned long CKVM_GET_SREGS = CKVM_IOR(0x83, sizeof(struct ckvm_sregs));
static const unsigned long CKVM_SET_SREGS = CKVM_IOW(0x84, sizeof(struct ckvm_sregs));
static const unsigned long CKVM_SET_GUEST_DEBUG = CKVM_IOW(0x9b, sizeof(struct ckvm_guest_debug));
static const unsigned long CKVM_SET_CPUID2 = CKVM_IOW(0x90, 8);
static const unsigned long CKVM_SET_MSRS = CKVM_IOW(0x89, 8);
static const unsigned long CKVM_PRE_FAULT_MEMORY = CKVM_IOWR(0xd5, sizeof(struct ckvm_pre_fault_memory));

_Static_assert(CKVM_IOWR(0xd2, sizeof(struct ckvm_memory_attributes2)) == 0xC080AED2UL, "SET_MEMORY_ATTRIBUTES2");
_Static_assert(CKVM_IOWR(0xd5, sizeof(struct ckvm_pre_fault_memory)) == 0xC040AED5UL, "PRE_FAULT_MEMORY");
_Static_assert(CKVM_IOWR(0xd6, sizeof(struct ckvm_memory_attributes_rfc_v1)) == 0xC040AED6UL, "RFC v1");
_Static_assert(CKVM_IOW(0xd2, sizeof(struct ckvm_memory_attributes)) == 0x4020AED2UL, "SET_MEMORY_ATTRIBUTES");
_Static_assert(CKVM_IOW(0x9b, sizeof(struct ckvm_guest_debug)) == 0x4048AE9BUL, "SET_GUEST_DEBUG");
_Static_assert(CKVM_IOW(0x42, sizeof(struct ckvm_dirty_log)) == 0x4010AE42UL, "GET_DIRTY_LOG");
_Static_assert(CKVM_IOWR(0xd4, sizeof(struct ckvm_create_guest_memfd)) == 0xC040AED4UL, "CREATE_GUEST_MEMFD");
_Static_assert(CKVM_IOW(0x49, sizeof(struct ckvm_userspace_memory_region2)) == 0x40A0AE49UL, "SET_USER_MEMORY_REGION2");

#endif
