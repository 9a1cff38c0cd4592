// SPDX-License-Identifier: MIT
import MiniVMM

/// Names of the interface: ioctls, flags, fields, files.
enum Calls {
    static func text(
        _ name: String, _ title: String, _ attempted: String, _ answer: String, _ means: String,
        _ advice: String,
        see: String = ""
    ) -> Explanation {
        var text = Explanation(
            .call, name, title,
            [(.attempted, attempted), (.answer, answer), (.means, means), (.advice, advice)])
        text.add(.see, see)
        return text
    }

    static let all = conversion + around

    private static let conversion: [Explanation] = [
        text(
            "KVM_SET_MEMORY_ATTRIBUTES2", "KVM_SET_MEMORY_ATTRIBUTES2 (0xC080AED2, on a guest_memfd)",
            "to convert a range of the file to private or shared, in place; a struct of 128 bytes: offset, size, attributes, flags, "
                + "error_offset, 11 reserved words",
            "0, or the first of these that holds: " + tableText,
            "All or nothing: after an error every page is what it was. There is no call that reads attributes back, so the VMM "
                + "keeps a map and changes it under the lock of the call.",
            "Clear the struct, fill it anew for every attempt, and on EAGAIN look at error_offset.",
            see: "minivmm explain errno EAGAIN; Linux 7.4"),
        text(
            "KVM_SET_MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES (0x4020AED2, on a VM)",
            "to make guest-physical addresses private or shared (Linux 6.8 and later, software-protected VM)",
            "0 or an errno; where the module converts in place instead, 0 for attributes 0 and EINVAL for PRIVATE, or ENOTTY "
                + "where attributes by address are not compiled in",
            "Shared bytes live at userspace_addr and private ones in the file, so a conversion changes the place and leaves the "
                + "contents behind. The host never sees the private side.",
            "Discard the other backing after a conversion, or both take memory (PUNCH_HOLE on the file, MADV_REMOVE or DONTNEED "
                + "on the memory).", see: "minivmm run --backend per-vm-attributes"),
        text(
            "KVM_CREATE_GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD (0xC040AED4, on a VM)",
            "to make a file that is guest RAM; flags MMAP (1) and INIT_SHARED (2)",
            "a descriptor or an errno",
            "Without flags the host cannot map it and its pages start private. INIT_SHARED on a VM with private memory needs "
                + "conversion in place.",
            "Create it with both flags, write the image through the mapping, then convert it to private."),
        text(
            "KVM_SET_USER_MEMORY_REGION2", "KVM_SET_USER_MEMORY_REGION2 (0x40A0AE49, on a VM)",
            "to bind a range of a guest_memfd to guest-physical addresses (flag KVM_MEM_GUEST_MEMFD)",
            "0 or an errno",
            "Private and shared accesses both go to the file; userspace_addr is for KVM's own. A page of the file belongs to one slot "
                + "at a time, and read-only slots and dirty logging are refused.",
            "Let userspace_addr be the mapping of the same file at the same offset (hazard A12)."),
        text(
            "KVM_PRE_FAULT_MEMORY", "KVM_PRE_FAULT_MEMORY (0xC040AED5, on a vCPU)",
            "to map guest pages before the guest touches them",
            "0 with gpa and size moved on, ENOENT without a memslot, EAGAIN while one is being deleted, EFAULT while a page is "
                + "being converted",
            "It saves the guest the first fault of each page. It goes page by page: an errno comes only if the first page failed, "
                + "and what was done before counts as success.",
            "Use it after booting in place, if start-up time matters, and call it again for the rest."),
        text(
            "KVM_RUN", "KVM_RUN, on a vCPU", "to run guest code",
            "0 with an exit reason, or -1: EINTR when kicked, EFAULT or EHWPOISON with or without exit 39",
            "On errors that it does not explain the kernel leaves the reason of the exit before.",
            "Clear exit_reason before each run, and decode errno and reason once, together.",
            see: "minivmm explain exit lists the reasons"),
        text(
            "KVM_CHECK_EXTENSION", "KVM_CHECK_EXTENSION", "to ask for a capability by number",
            "0 for no, else a number",
            "On the system descriptor it says what some VM type could do; on a VM, what that VM can.",
            "Ask on the VM, and confirm by behaviour: numbers of posted versions mean other things today.",
            see: "minivmm explain capability 252"),
        text(
            "KVM_CREATE_VM", "KVM_CREATE_VM",
            "to make a virtual machine of a type: 0 default, 1 software-protected",
            "a descriptor, or EINVAL for a type that the kernel does not have",
            "Only a type with private memory has something to convert.",
            "Take KVM_X86_SW_PROTECTED_VM (1) where KVM_CAP_VM_TYPES has bit 1."),
        text(
            "KVM_MEMORY_ATTRIBUTE_PRIVATE", "KVM_MEMORY_ATTRIBUTE_PRIVATE (0x8)",
            "attributes of a conversion call",
            "EINVAL for any other bit", "8 is to private, 0 is to shared.", "Pass one of these two."),
        text(
            "KVM_MEMORY_EXIT_FLAG_PRIVATE", "KVM_MEMORY_EXIT_FLAG_PRIVATE (0x8)", "flags of exit 39",
            "set or clear, filled in by the kernel",
            "Set: the access wanted the page private. Clear: shared.",
            "Stop on any other bit rather than guess."),
        text(
            "KVM_HC_MAP_GPA_RANGE", "KVM_HC_MAP_GPA_RANGE (12), a hypercall of the guest",
            "the guest asks for a conversion: address, number of 4 KiB pages, attributes (0x10 is private)",
            "exit 3 with its arguments; the guest finds the result in RAX",
            "This is an explicit conversion. It may be refused, and the guest has to look.",
            "Enable it by KVM_CAP_EXIT_HYPERCALL (201), argument 1 << 12."),
        text(
            "KVM_MEM_GUEST_MEMFD", "KVM_MEM_GUEST_MEMFD (0x4), a flag of a memslot",
            "to say that the slot names a guest_memfd",
            "EINVAL with KVM_MEM_READONLY or dirty logging",
            "Without it the slot is ordinary memory at userspace_addr.",
            "Set it in KVM_SET_USER_MEMORY_REGION2."),
        text(
            "GUEST_MEMFD_FLAG_MMAP", "GUEST_MEMFD_FLAG_MMAP (0x1)", "to let the host map the file",
            "without it mmap is ENODEV",
            "The mapping shows the shared pages; touching a private one is SIGBUS.",
            "Map with MAP_SHARED, else mmap is EINVAL."),
        text(
            "GUEST_MEMFD_FLAG_INIT_SHARED", "GUEST_MEMFD_FLAG_INIT_SHARED (0x2)",
            "to have pages start shared",
            "EINVAL on a VM with private memory, unless conversion in place is on",
            "Without the flag they start private, and the guest of a default VM cannot touch them on Linux 7.4 (KVM_RUN EFAULT, exit "
                + "39 with flags 0); 7.3 and earlier let it.",
            "Use it to boot in place: write, then convert."),
        text(
            "error_offset", "error_offset, a field of the conversion call", "read back after the call",
            "written with EAGAIN (the lowest page in use) and ENOMEM (the start of the request), else left alone",
            "It is an offset in the file, not a guest-physical address.",
            "Ignore it after other errors. RFC v2 to v4 refuse a call that still has it set (hazard H1)."),
        text(
            "userspace_addr", "userspace_addr, a field of a memslot",
            "the host's mapping of what the slot serves",
            "not checked against the file",
            "Guest accesses go to the file; only KVM's own go through this address.",
            "Keep it the mapping of that file at that offset, and do not unmap it (hazards A9, A12)."),
        text(
            "fallocate", "fallocate on a guest_memfd", "to allocate pages, or to free them with PUNCH_HOLE",
            "EOPNOTSUPP without KEEP_SIZE, EINVAL off a page boundary",
            "A hole frees pages, and the next touch reads zero. Private or shared stays as it is.",
            "Do not punch a page that somebody has pinned (hazard A11)."),
        text(
            "mmap", "mmap of a guest_memfd", "to see the shared part of guest memory",
            "ENODEV without the MMAP flag, EINVAL without MAP_SHARED",
            "The mapping lives through conversions. read, write and ftruncate on the file do not work.",
            "Touch it by calls that can fail, not directly: a private page is SIGBUS (hazard A29)."),
        text(
            "gmem_in_place_conversion", "kvm.gmem_in_place_conversion, a module parameter",
            "to load kvm with conversion in place",
            "read-only once loaded",
            "Off, KVM_SET_MEMORY_ATTRIBUTES2 is ENOTTY. Only a kernel with attributes by address "
                + "(CONFIG_KVM_VM_MEMORY_ATTRIBUTES) has the parameter. Without them conversion in place is always on and "
                + "/sys/module/kvm/parameters has no such file: its absence says nothing.",
            "Ask capability 252 (KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES), and load kvm with gmem_in_place_conversion=1."
        ),
    ]

    private static var tableText: String {
        ConversionRow.allCases.filter { $0 != .converted }
            .map { "\($0.rawValue) \($0.condition): \($0.errno?.name ?? "0")" }.joined(separator: "; ")
    }

    /// ioctls by number.
    private static let numbers: [UInt64: String] = [
        0xC080_AED2: "KVM_SET_MEMORY_ATTRIBUTES2", 0x4020_AED2: "KVM_SET_MEMORY_ATTRIBUTES",
        0xC040_AED4: "KVM_CREATE_GUEST_MEMFD", 0x40A0_AE49: "KVM_SET_USER_MEMORY_REGION2",
        0xC040_AED5: "KVM_PRE_FAULT_MEMORY",
    ]

    static func named(_ word: String) -> Explanation? {
        let typed = NearWords.folded(Words.number(word).flatMap { numbers[$0] } ?? word)
        let name = synonyms[typed] ?? typed
        return all.first { text in
            let known = NearWords.folded(text.name)
            return known == name || known == "kvm_" + name || known == "guest_memfd_flag_" + name
        }
    }
}
