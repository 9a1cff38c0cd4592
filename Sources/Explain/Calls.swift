// SPDX-License-Identifier: MIT
import MiniVMM

/// Names of the interface: ioctls, system calls, flags, fields, files.
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
            "0, or the first of these whose condition holds: " + tableText,
            "All or nothing: after an error every page has the state it had before. No call reads attributes back, so the VMM keeps "
                + "its own map and updates it under the lock that it holds for the call.",
            "Clear the struct, fill it in anew for every attempt, and read error_offset after EAGAIN.",
            see: "minivmm explain errno EAGAIN; minivmm explain 7.4"),
        text(
            "KVM_SET_MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES (0x4020AED2, on a VM)",
            "to make guest-physical addresses private or shared (Linux 6.8 and later, software-protected VM)",
            "0 or an errno. A module that converts in place answers attributes 0 with 0 and PRIVATE with EINVAL, or every call with "
                + "ENOTTY if per-VM attributes are not compiled in",
            "Shared contents are at userspace_addr and private contents in the file, so a conversion switches between two memories and "
                + "loses the contents. The host never sees the private memory.",
            "Discard the memory that goes out of use after a conversion (PUNCH_HOLE on the file, MADV_REMOVE or MADV_DONTNEED on the "
                + "mapping); otherwise both stay allocated.", see: "minivmm run --backend per-vm-attributes"),
        text(
            "KVM_CREATE_GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD (0xC040AED4, on a VM)",
            "to make a file that holds guest RAM; flags MMAP (1) and INIT_SHARED (2)",
            "a descriptor or an errno",
            "Without flags the host cannot map the file, and its pages start private. INIT_SHARED on a VM with private memory needs "
                + "in-place conversion.",
            "Create it with both flags, write the guest's image through the mapping, then convert it to private."
        ),
        text(
            "KVM_SET_USER_MEMORY_REGION2", "KVM_SET_USER_MEMORY_REGION2 (0x40A0AE49, on a VM)",
            "to bind a range of a guest_memfd to guest-physical addresses (flag KVM_MEM_GUEST_MEMFD)",
            "0 or an errno",
            "Private and shared accesses of the guest both go to the file; KVM's own accesses go through userspace_addr. A page of the "
                + "file can be in one slot at a time. Read-only slots and dirty logging are refused.",
            "Set userspace_addr to the mapping of the same file at the same offset (hazard A12)."),
        text(
            "KVM_PRE_FAULT_MEMORY", "KVM_PRE_FAULT_MEMORY (0xC040AED5, on a vCPU)",
            "to map guest pages before the guest accesses them",
            "0 with gpa and size moved on, ENOENT without a memslot, EAGAIN while a memslot is being deleted, EFAULT while a page is "
                + "being converted",
            "It saves the guest the first fault on each page. The call works page by page: it returns an errno only if the first page "
                + "fails, and otherwise success for the pages that are done.",
            "Use it after booting in place if start-up time matters, and call it again for the rest."),
        text(
            "KVM_RUN", "KVM_RUN, on a vCPU", "to run guest code",
            "0 with an exit reason, or -1: EINTR after a kick, EFAULT or EHWPOISON with or without exit 39",
            "If the kernel does not fill in an exit reason for an error, exit_reason still holds that of the previous exit.",
            "Clear exit_reason before each run, and decode the errno and the reason together, in one place.",
            see: "minivmm explain exit lists the reasons"),
        text(
            "KVM_CHECK_EXTENSION", "KVM_CHECK_EXTENSION", "to query a capability by number",
            "0 for no, any other number for yes",
            "On the system descriptor it reports what some VM type supports; on a VM, what that VM supports.",
            "Query the VM, and confirm by behaviour: capability numbers of posted versions have other meanings today.",
            see: "minivmm explain capability 252"),
        text(
            "KVM_CREATE_VM", "KVM_CREATE_VM",
            "to create a virtual machine of a type: 0 default, 1 software-protected",
            "a descriptor, or EINVAL for a type that the kernel does not support",
            "Only a VM whose type has private memory can convert pages.",
            "Use KVM_X86_SW_PROTECTED_VM (1) if bit 1 of KVM_CAP_VM_TYPES is set."),
        text(
            "KVM_MEMORY_ATTRIBUTE_PRIVATE", "KVM_MEMORY_ATTRIBUTE_PRIVATE (0x8)",
            "the attributes of a conversion call",
            "EINVAL for any other bit", "8 converts to private, 0 to shared.", "Pass one of these two."),
        text(
            "KVM_MEMORY_EXIT_FLAG_PRIVATE", "KVM_MEMORY_EXIT_FLAG_PRIVATE (0x8)", "the flags of exit 39",
            "set or clear, filled in by the kernel",
            "Set: the access needed a private page. Clear: a shared page.",
            "Stop the guest if any other bit is set. Do not guess its meaning."),
        text(
            "KVM_HC_MAP_GPA_RANGE", "KVM_HC_MAP_GPA_RANGE (12), a hypercall of the guest",
            "the guest requests a conversion: address, number of 4 KiB pages, attributes (0x10 is private)",
            "exit 3 with these arguments; the guest gets the result in RAX",
            "This is an explicit conversion. The monitor may refuse it, so the guest must check the result.",
            "Enable it with KVM_CAP_EXIT_HYPERCALL (201), argument 1 << 12."),
        text(
            "KVM_MEM_GUEST_MEMFD", "KVM_MEM_GUEST_MEMFD (0x4), a flag of a memslot",
            "to declare that the slot has a guest_memfd",
            "EINVAL together with KVM_MEM_READONLY or dirty logging",
            "Without the flag the slot is ordinary memory at userspace_addr.",
            "Set it in KVM_SET_USER_MEMORY_REGION2."),
        text(
            "GUEST_MEMFD_FLAG_MMAP", "GUEST_MEMFD_FLAG_MMAP (0x1)", "to allow the host to map the file",
            "without the flag, mmap fails with ENODEV",
            "The mapping gives access to the shared pages; an access to a private page raises SIGBUS.",
            "Map the file with MAP_SHARED; any other mapping fails with EINVAL."),
        text(
            "GUEST_MEMFD_FLAG_INIT_SHARED", "GUEST_MEMFD_FLAG_INIT_SHARED (0x2)",
            "to make all pages shared at first",
            "EINVAL on a VM with private memory, unless in-place conversion is on",
            "Without the flag the pages start private. On Linux 7.4 the guest of a default VM then cannot access them (KVM_RUN EFAULT, "
                + "exit 39 with flags 0); Linux 7.3 and earlier allow it.",
            "Use it to boot in place: write the image, then convert it."),
        text(
            "error_offset", "error_offset, a field of the conversion call", "read back after the call",
            "written with EAGAIN (the lowest page in use) and ENOMEM (the start of the request), otherwise not written",
            "It is an offset in the file, not a guest-physical address.",
            "Ignore it after any other error. RFC v2 to v4 refuse a call that passes it in with a value other than 0 (hazard H1)."
        ),
        text(
            "userspace_addr", "userspace_addr, a field of a memslot",
            "the host's mapping of the memory that the slot shows the guest",
            "not checked against the file",
            "The guest's accesses go to the file; only KVM's own accesses go through this address.",
            "Set it to the mapping of the same file at the same offset, and do not unmap it (hazards A9, A12)."
        ),
        text(
            "fallocate", "fallocate on a guest_memfd", "to allocate pages, or to free them with PUNCH_HOLE",
            "EOPNOTSUPP without KEEP_SIZE, EINVAL if the range is not page aligned",
            "A hole frees pages, which read as zeros on the next access. Whether they are private or shared does not change.",
            "Do not punch a hole in a page that is pinned (hazard A11)."),
        text(
            "mmap", "mmap of a guest_memfd", "to map guest memory, whose shared pages are then accessible",
            "ENODEV without the MMAP flag, EINVAL without MAP_SHARED",
            "The mapping survives conversions. read, write and ftruncate are not supported on the file.",
            "Access it with system calls, which can fail, and not directly: an access to a private page raises SIGBUS (hazard A29)."
        ),
        text(
            "gmem_in_place_conversion", "kvm.gmem_in_place_conversion, a module parameter",
            "to load kvm with in-place conversion",
            "read-only once the module is loaded",
            "If it is off, KVM_SET_MEMORY_ATTRIBUTES2 fails with ENOTTY. Only a kernel that is built with per-VM attributes "
                + "(CONFIG_KVM_VM_MEMORY_ATTRIBUTES) has the parameter. Without them in-place conversion is always on, and "
                + "/sys/module/kvm/parameters has no such file, so that its absence proves nothing.",
            "Query capability 252 (KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES), and load kvm with gmem_in_place_conversion=1."
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
        0xC040_AED5: "KVM_PRE_FAULT_MEMORY", 0xAE01: "KVM_CREATE_VM", 0xAE03: "KVM_CHECK_EXTENSION",
        0xAE80: "KVM_RUN", 0x4068_AEA3: "KVM_ENABLE_CAP",
    ]

    static func named(_ word: String) -> Explanation? {
        let typed = NearWords.folded(Words.number(word).flatMap { numbers[$0] } ?? word)
        let name = synonyms[typed] ?? typed
        // mmap is the system call and not GUEST_MEMFD_FLAG_MMAP.
        for candidate in [name, "kvm_" + name, "guest_memfd_flag_" + name] {
            if let found = all.first(where: { NearWords.folded($0.name) == candidate }) { return found }
        }
        return nil
    }
}
