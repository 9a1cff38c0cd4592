// SPDX-License-Identifier: MIT

extension Calls {
    /// The file, the slot, the VM, and system calls on guest memory.
    static let around: [Explanation] = [
        text(
            "guest_memfd", "guest_memfd, the file that holds guest RAM",
            "to give a guest memory that the host cannot reach",
            "a file descriptor with a state, private or shared, for each page",
            "The size is fixed. The file records which pages are private, not the memslot, and a page keeps its state when a hole is "
                + "punched.",
            "Create it with KVM_CREATE_GUEST_MEMFD, bind it with KVM_SET_USER_MEMORY_REGION2, and map it with mmap to access the "
                + "shared pages."
        ),
        text(
            "memslot", "a memslot: guest-physical addresses and the memory behind them",
            "to place memory in the guest's address space", "0 or an errno",
            "A slot with a guest_memfd serves private and shared accesses from the file. When the slot is deleted, its addresses become "
                + "MMIO, and the file keeps the state of its pages.",
            "Delete a slot only when the guest no longer uses it (hazard A14).",
            see: "minivmm explain KVM_SET_USER_MEMORY_REGION2"),
        text(
            "emulation", "emulation: what KVM reads and writes by itself",
            "to let KVM execute what the CPU does not: string I/O, an access to an address without RAM, stepping over an instruction "
                + "whose length the CPU does not report",
            "the instruction is completed, or KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SHUTDOWN, KVM_EXIT_MMIO",
            "KVM reads the instruction, the guest's page tables and the data through userspace_addr, like any process of the host, and "
                + "therefore cannot read private pages. Private page tables cause a page fault in the guest, which without an IDT is a "
                + "triple fault; private code causes KVM_EXIT_INTERNAL_ERROR with suberror 1; private data causes KVM_EXIT_MMIO. With "
                + "per-VM attributes KVM silently accesses the shared memory instead. On a CPU that does not save the next RIP "
                + "(AMD without NRIPS), CPUID, RDMSR, WRMSR and hypercalls are among these instructions.",
            "Use IN and OUT with a register, and keep everything that KVM has to emulate shared: the code, the page tables and the data.",
            see: "minivmm explain userspace_addr"),
        text(
            "KVM_X86_SW_PROTECTED_VM", "KVM_X86_SW_PROTECTED_VM (1), a VM type",
            "to create a VM with private memory and without hardware protection",
            "a VM, or EINVAL if the kernel does not support the type",
            "An access takes its kind from the page's attribute, so an ordinary access never mismatches; guests request conversions by "
                + "hypercall. Contents survive in both directions.",
            "Check bit 1 of KVM_CAP_VM_TYPES (235). A default VM (0) has no private memory."),
        text(
            "KVM_ENABLE_CAP", "KVM_ENABLE_CAP, on a VM",
            "to enable a capability, for example exits for hypercalls",
            "0, or EINVAL if this VM does not support it",
            "For KVM_CAP_EXIT_HYPERCALL the argument has a bit for each hypercall, 1 << 12 for KVM_HC_MAP_GPA_RANGE.",
            "Query KVM_CHECK_EXTENSION on the VM first.", see: "minivmm explain capability 201"),
        text(
            "SIGBUS", "SIGBUS, a signal", "to access guest memory through the mapping",
            "the signal, sent to the thread that made the access",
            "The page is private, or beyond the end of the file. A system call on the page fails with EFAULT instead, and a read "
                + "through /proc/self/mem with EIO.",
            "Access guest memory with calls that can fail (hazard A29)."),
        text(
            "io_uring", "io_uring, with a fixed buffer",
            "IORING_REGISTER_BUFFERS on the mapping of guest memory",
            "0 for shared pages, EFAULT for private pages",
            "The call pins the pages until the buffer is unregistered, and needs no privilege. Until then, converting them to private "
                + "fails with EAGAIN.",
            "Unregister the buffer before its pages are converted (hazard A4)."),
        text(
            "vmsplice", "vmsplice of guest memory into a pipe", "to pass pages on without copying them",
            "the number of bytes taken",
            "The pipe has a reference on each page until it is read. Until then, converting them to private fails with EAGAIN.",
            "Drain the pipe (hazard A5)."),
        text(
            "madvise", "madvise on the mapping of a guest_memfd", "to drop pages, or to make them huge",
            "0 for MADV_DONTNEED, EINVAL for MADV_COLLAPSE",
            "MADV_DONTNEED removes the host's page table entries, and the guest's if a memslot's userspace_addr is in that mapping. No "
                + "data is lost.",
            "To free pages, punch a hole in the file instead (hazard A9)."),
        text(
            "ftruncate", "ftruncate on a guest_memfd", "to change the file's size", "EINVAL",
            "The size of a guest_memfd cannot be changed.",
            "Free pages with fallocate and PUNCH_HOLE."),
        text(
            "attributes", "attributes, flags and reserved, fields of the conversion call",
            "struct kvm_memory_attributes2: offset (0), size (8), attributes (16), flags (24), error_offset (32), "
                + "reserved (40), 128 bytes in all",
            "EINVAL for a bit other than 8 in attributes, and for any value but 0 in flags and reserved",
            "offset counts bytes of the file. The value of error_offset on input is ignored, and the kernel writes no other field.",
            "Clear the struct before it is filled in.", see: "minivmm explain KVM_SET_MEMORY_ATTRIBUTES2"),
    ]

    /// Other words for a topic.
    static let synonyms: [String: String] = [
        "flags": "attributes", "reserved": "attributes", "offset": "attributes", "size": "attributes",
        "kvm_memory_attributes2": "attributes", "slot": "memslot", "ioring_register_buffers": "io_uring",
        "munmap": "userspace_addr", "madv_dontneed": "madvise", "madv_collapse": "madvise",
        "sw_protected_vm": "kvm_x86_sw_protected_vm", "sw_protected": "kvm_x86_sw_protected_vm",
        "punch_hole": "fallocate", "falloc_fl_punch_hole": "fallocate", "truncate": "ftruncate",
        "pipe": "vmsplice",
        "gmem": "guest_memfd", "vmcall": "kvm_hc_map_gpa_range", "vmmcall": "kvm_hc_map_gpa_range",
    ]
}
