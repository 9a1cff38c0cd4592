// SPDX-License-Identifier: MIT
extension Calls {
    /// What is not the conversion's own interface, but is met around it.
    static let around: [Explanation] = [
        text(
            "guest_memfd", "guest_memfd, the file that guest RAM lives in",
            "to give a guest memory that can be out of the host's reach",
            "a descriptor that knows which pages are private",
            "It has a size for life and attributes of its own: private or shared is remembered by the file, "
                + "not by the memslot, and survives a hole.",
            "Create it with KVM_CREATE_GUEST_MEMFD, bind it with KVM_SET_USER_MEMORY_REGION2, map its shared part with mmap."
        ),
        text(
            "memslot", "a memslot: guest-physical addresses and what serves them",
            "to put memory where the guest finds it", "0 or an errno",
            "A slot of a guest_memfd is served from the file for private and shared accesses alike. When it is deleted its "
                + "addresses become MMIO, and the file keeps its attributes.",
            "Delete a slot only when the guest no longer uses it (hazard A14).",
            see: "minivmm explain KVM_SET_USER_MEMORY_REGION2"),
        text(
            "emulation", "emulation: what KVM reads and writes by itself",
            "to let KVM emulate what the CPU leaves to it: string I/O, an access where there is no RAM, stepping over an "
                + "instruction whose length the CPU does not tell",
            "the instruction is done, or KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SHUTDOWN, KVM_EXIT_MMIO",
            "KVM reads the instruction, the guest's page tables and the data through userspace_addr, as any process of the host "
                + "does, and gets no private page. Private tables are a page fault in the guest, which without an IDT is a "
                + "triple fault; private code is KVM_EXIT_INTERNAL_ERROR, suberror 1; private data is KVM_EXIT_MMIO. With "
                + "per-VM attributes it silently reads and writes the shared side. On a CPU that does not save the next RIP "
                + "(AMD without NRIPS) CPUID, RDMSR, WRMSR and hypercalls are among these instructions.",
            "Use IN and OUT with a register, and keep shared what has to be emulated: the code, the tables and the data.",
            see: "minivmm explain userspace_addr"),
        text(
            "KVM_X86_SW_PROTECTED_VM", "KVM_X86_SW_PROTECTED_VM (1), a VM type",
            "to make a VM with private memory and no hardware that protects it",
            "a VM, or EINVAL where the kernel does not have the type",
            "The kind of an access is taken from the attribute, so an ordinary access never mismatches: conversions are asked for by "
                + "hypercall. Contents survive in both directions.",
            "Look for bit 1 of KVM_CAP_VM_TYPES (235). A default VM (0) has no private memory."),
        text(
            "KVM_ENABLE_CAP", "KVM_ENABLE_CAP, on a VM",
            "to switch a capability on, for instance exits for hypercalls",
            "0, or EINVAL where this VM does not have it",
            "For KVM_CAP_EXIT_HYPERCALL its argument is a bit for each hypercall, 1 << 12 for KVM_HC_MAP_GPA_RANGE.",
            "Ask KVM_CHECK_EXTENSION on the VM first.", see: "minivmm explain capability 201"),
        text(
            "SIGBUS", "SIGBUS, a signal", "to touch guest memory through the mapping",
            "the signal, to the thread that touched it",
            "The page is private, or behind the end of the file. A system call on it is EFAULT instead, and reading it through "
                + "/proc/self/mem is EIO.",
            "Touch guest memory by calls that can fail (hazard A29)."),
        text(
            "io_uring", "io_uring, with a fixed buffer",
            "IORING_REGISTER_BUFFERS on the mapping of guest memory",
            "0 for shared pages, EFAULT for private ones",
            "It pins the pages until they are unregistered, and needs no privilege for it. To private they are EAGAIN so long.",
            "Unregister the buffer before its pages are converted (hazard A4)."),
        text(
            "vmsplice", "vmsplice of guest memory into a pipe", "to pass pages on without copying them",
            "the bytes taken",
            "The pipe has a reference on each page until it is read. To private they are EAGAIN so long.",
            "Drain the pipe (hazard A5)."),
        text(
            "madvise", "madvise on the mapping of a guest_memfd", "to give pages back, or to make them huge",
            "0 for MADV_DONTNEED, EINVAL for MADV_COLLAPSE",
            "MADV_DONTNEED drops the mappings of the host, and those of the guest where a memslot names that memory; no byte "
                + "is lost.",
            "To give pages back punch a hole in the file instead (hazard A9)."),
        text(
            "ftruncate", "ftruncate on a guest_memfd", "to change its size", "EINVAL",
            "A guest_memfd never changes its size.",
            "Free pages with fallocate and PUNCH_HOLE."),
        text(
            "attributes", "attributes, flags and reserved, fields of the conversion call",
            "struct kvm_memory_attributes2: offset (0), size (8), attributes (16), flags (24), error_offset (32), "
                + "reserved (40), 128 bytes in all",
            "EINVAL for a bit other than 8 in attributes, and for anything but 0 in flags and reserved",
            "offset counts bytes of the file. What error_offset holds before the call is ignored, and nothing else is ever written.",
            "Clear the struct before it is filled.", see: "minivmm explain KVM_SET_MEMORY_ATTRIBUTES2"),
    ]

    /// Other words for the same.
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
