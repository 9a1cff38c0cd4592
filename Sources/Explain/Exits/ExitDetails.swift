// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

// The meanings of the fields of an exit.

extension ExitArguments {
    /// The result of KVM_RUN, with the given fields.
    func answer(of exit: ExitText) -> String {
        var parts: [String] = []
        switch exit.number {
        case CKVM_EXIT_MEMORY_FAULT:
            parts.append(
                "KVM_RUN returned -1 with \(errno.map(\.nameAndNumber) ?? "EFAULT or EHWPOISON"), exit reason 39"
            )
        case CKVM_EXIT_UNKNOWN: parts.append("KVM_RUN returned with exit reason 0")
        default: parts.append("KVM_RUN returned 0 with exit reason \(exit.number)")
        }
        for field in exit.fields {
            if let value = self[field] {
                let isSmall = [.suberror, .type, .number, .pages, .cpu].contains(field)
                parts.append("\(field.rawValue) \(isSmall ? String(value) : Words.hex(value))")
            }
        }
        for (index, word) in data.sorted(by: { $0.key < $1.key }) {
            parts.append("data[\(index)] \(Words.hex(word))")
        }
        return parts.joined(separator: ", ")
    }

    func addMemoryFault(_ means: String, _ advice: String, to text: inout Explanation) {
        if errno == .hardwarePoisoned {
            text.add(
                .means,
                "The host memory behind the page has failed. This does not depend on whether the page is private or shared."
            )
            text.add(.advice, "End the guest, or remove the page from it. A conversion does not help.")
            return
        }
        if let errno, errno != .badAddress {
            text.add(
                .means,
                "KVM fills in memory_fault only with EFAULT and EHWPOISON. With \(errno.name) the fields are left over from an earlier "
                    + "exit."
            )
            text.add(.advice, "Clear exit_reason before each run, and check the errno before reading it.")
            return
        }
        let fault = MemoryFault(gpa: self[.gpa] ?? 0, size: self[.size] ?? pageSize, flags: self[.flags] ?? 0)
        guard self[.flags] != nil else {
            text.add(.means, means)
            addUnalignedPage(to: &text)
            text.add(.advice, advice)
            return
        }
        if fault.unknownFlags != 0 {
            text.add(
                .means,
                "Flag bits \(Words.hex(fault.unknownFlags)) are not part of this version of the interface. Either the kernel is newer "
                    + "than it, or the number is not the flags word."
            )
            text.add(.advice, "Stop the guest. Do not guess what the access needed.")
            return
        }
        let wants = fault.wants.rawValue
        text.add(
            .means,
            "The access needed a \(wants) page (bit 3, PRIVATE, is \(fault.wants == .private ? "set" : "clear")), and the page is "
                + "\(fault.wants.other.rawValue): the access is an implicit request to convert it to \(wants). On a "
                + "software-protected VM an access has no preferred kind; this exit means it ran into a conversion in progress, or "
                + "the page could not be allocated.")
        addUnalignedPage(to: &text)
        text.add(.advice, advice)
    }

    private func addUnalignedPage(to text: inout Explanation) {
        guard let gpa = self[.gpa], gpa % pageSize != 0 else { return }
        text.add(
            .means,
            "gpa \(Words.hex(gpa)) is not page aligned, but the kernel reports whole pages: check where the number comes from."
        )
    }

    // MARK: FAIL_ENTRY

    func addFailedEntry(_ means: String, _ advice: String, to text: inout Explanation) {
        guard let reason = self[.reason] else {
            text.add(.means, means)
            text.add(.advice, advice)
            return
        }
        let (cause, cure) = Self.entryFailure(reason)
        text.add(.means, "The CPU refused to enter the guest. " + cause)
        text.add(.advice, cure)
    }

    private static let guestState =
        "Compare CR0, CR4, EFER, RFLAGS and the segment registers with the CPU manual's checks on guest state. An emulated or "
        + "nested CPU may be stricter than a real one."

    /// A code of VMX, whose bit 31 marks a failed VM entry and whose bits below are a basic exit reason; a VM-instruction
    /// error of VMX; or the exit code of SVM.
    private static func entryFailure(_ reason: UInt64) -> (cause: String, cure: String) {
        switch reason {
        case 0x8000_0021:
            (
                "Intel: VM entry failed with basic exit reason 33, invalid guest state. A register of the vCPU has a value that the "
                    + "CPU does not accept.", guestState
            )
        case 0x8000_0022:
            (
                "Intel: VM entry failed with basic exit reason 34: an MSR of the VM-entry load list could not be loaded.",
                "Check the MSRs that the monitor sets with KVM_SET_MSRS."
            )
        case 0x8000_0029:
            (
                "Intel: VM entry failed with basic exit reason 41, a machine check during the entry.",
                "Look for machine checks in the host kernel's log: the hardware is suspect."
            )
        case 0xffff_ffff, .max:
            (
                "AMD: VMEXIT_INVALID (-1). The VMCB has a state that the CPU does not accept.",
                guestState
            )
        case 7:
            (
                "Intel: VM-instruction error 7, VM entry with invalid control fields. KVM itself sets these fields.",
                "Suspect the kernel, or the hypervisor below it if KVM is nested."
            )
        case 8:
            (
                "Intel: VM-instruction error 8, VM entry with an invalid host-state field. KVM itself sets these fields.",
                "Suspect the kernel, or the hypervisor below it if KVM is nested."
            )
        case 0x8000_0000...0x8000_ffff:
            (
                "Intel: VM entry failed (bit 31) with basic exit reason \(reason & 0xffff).",
                "Look up the basic exit reason in the CPU manual. " + guestState
            )
        default:
            (
                "\(Words.hex(reason)) is not a code that explain has an entry for: on Intel a small number is a VM-instruction error, "
                    + "on AMD it is an exit code of SVM.",
                "Look it up in the CPU manual; the host kernel's log may have a dump of the VMCS or VMCB."
            )
        }
    }

    // MARK: INTERNAL_ERROR

    func addInternalError(_ means: String, _ advice: String, to text: inout Explanation) {
        switch self[.suberror] {
        case 1?:
            text.add(
                .means,
                "KVM had to emulate an instruction and could not (suberror 1, EMULATION): it does not support the instruction, or "
                    + "could not read it, for example because the code is in private memory.")
            if let bytes = instructionBytes { text.add(.means, "The instruction bytes are \(bytes).") }
            text.add(
                .advice,
                "Look at the instruction at RIP. Some hosts emulate all of ring 0, without SSE or AVX. Keep code, page tables and data "
                    + "that KVM has to read on shared pages.")
        case 2?:
            text.add(
                .means,
                "Exceptions collided while KVM delivered one of them (suberror 2, SIMUL_EX): an exit that should have been an "
                    + "instruction to emulate arrived while another event was pending.")
            text.add(.advice, "Look at the guest's IDT and stack: delivering the first event faulted.")
        case 3?:
            text.add(
                .means,
                "The CPU left the guest for a reason that KVM did not expect while an event was being delivered (suberror 3, "
                    + "DELIVERY_EV)."
                    + (data[1].map { " data[1] is the CPU's exit reason, \($0 & 0xffff)." } ?? ""))
            text.add(
                .advice,
                "Check that the guest's IDT, GDT and stacks are in RAM. MMIO at one of these addresses has this effect."
            )
        case 4?:
            text.add(
                .means,
                "The CPU reported an exit reason that KVM does not handle (suberror 4, UNEXPECTED_EXIT_REASON)."
                    + (data[0].map { " data[0] is that reason, \(Words.hex($0))." } ?? ""))
            text.add(
                .advice,
                "The kernel is older than a feature of this CPU, or the nested hypervisor is at fault.")
        case let other?:
            text.add(
                .means,
                "Suberror \(other) is not one that explain has an entry for: 1 EMULATION, 2 SIMUL_EX, 3 DELIVERY_EV, 4 "
                    + "UNEXPECTED_EXIT_REASON.")
            text.add(.advice, "Check where the number comes from; the kernel may be newer.")
        case nil:
            text.add(.means, means)
            text.add(.advice, advice)
        }
    }

    /// Of suberror 1: data[0] bit 0 says that data[1] and data[2] hold the length and up to 15 bytes.
    private var instructionBytes: String? {
        guard let flags = data[0], flags & 1 != 0, let first = data[1] else { return nil }
        let words = [first, data[2] ?? 0]
        let bytes = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
        let length = min(Int(bytes[0]), data[2] == nil ? 7 : 15)
        guard length > 0 else { return nil }
        return bytes[1...length].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
    }

    // MARK: SYSTEM_EVENT

    func addSystemEvent(_ means: String, _ advice: String, to text: inout Explanation) {
        guard let type = self[.type] else {
            text.add(.means, means)
            text.add(.advice, advice)
            return
        }
        switch type {
        case 1: text.add(.means, "Type 1, SHUTDOWN: the guest asked to be powered off.")
        case 2: text.add(.means, "Type 2, RESET: the guest asked for a reset.")
        case 3: text.add(.means, "Type 3, CRASH: the guest reported that it has crashed.")
        case 4: text.add(.means, "Type 4, WAKEUP: a suspended vCPU has an event to wake up for.")
        case 5: text.add(.means, "Type 5, SUSPEND: the guest asked to be suspended.")
        case 6:
            text.add(.means, "Type 6, SEV_TERM: an SEV-ES or SEV-SNP guest asked to be terminated.")
            if let msr = data[0] {
                let (set, code) = (msr >> 12 & 0xf, msr >> 16 & 0xff)
                text.add(
                    .means,
                    "data[0] is the GHCB MSR: reason set \(set), reason code \(code)."
                        + (set == 0 && code == 0
                            ? " Set 0 code 0 is the general request. A Linux guest sends it, for example, after touching a page that is "
                                + "not validated (#VC 0x404)." : ""))
            }
        case 7:
            text.add(
                .means,
                "Type 7, TDX_FATAL: a TDX guest reported a fatal error by VMCALL; data[] has its registers.")
        default:
            text.add(.means, "Type \(type) is not one that explain has an entry for; 1 to 7 are defined.")
        }
        text.add(
            .advice, type == 6 || type == 7 ? "Read the guest's own log for the cause, then stop it." : advice
        )
    }

    // MARK: HYPERCALL

    func addHypercall(_ means: String, _ advice: String, to text: inout Explanation) {
        guard let number = self[.number] else {
            text.add(.means, means)
            text.add(.advice, advice)
            return
        }
        guard number == 12 else {
            text.add(
                .means, "Hypercall \(number) is not KVM_HC_MAP_GPA_RANGE (12), the only one for conversions.")
            text.add(.advice, "Store a negative errno in hypercall.ret and run the vCPU again.")
            return
        }
        let pages = self[.pages].map { Words.count($0, "page") } ?? "a range"
        let place = self[.gpa].map { " at \(Words.hex($0))" } ?? ""
        let target = self[.attributes].map { $0 & 0x10 != 0 ? "private" : "shared" }
        text.add(
            .means,
            "The guest asks to convert \(pages)\(place)\(target.map { " to \($0)" } ?? "") (KVM_HC_MAP_GPA_RANGE)."
        )
        text.add(.advice, advice)
    }
}
