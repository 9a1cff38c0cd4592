// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

/// An exit reason of `KVM_RUN`.
struct ExitText: Sendable {
    let number: UInt32
    /// Without `KVM_EXIT_`.
    let name: String
    let means: String
    let advice: String

    static let all: [ExitText] = [
        ExitText(
            number: CKVM_EXIT_UNKNOWN, name: "UNKNOWN",
            means:
                "The kernel filled in no reason. minivmm clears the field before each run, so after an error it stays 0.",
            advice: "Look at the errno of KVM_RUN instead."),
        ExitText(
            number: CKVM_EXIT_EXCEPTION, name: "EXCEPTION",
            means: "An exception that KVM hands to the monitor.",
            advice: "This monitor has no use for it and ends the guest."),
        ExitText(
            number: CKVM_EXIT_IO, name: "IO", means: "The guest executed IN or OUT on a port.",
            advice:
                "Console ports are 0x3f8 and 0xe9, 0xf4 takes the exit status, 0xe8 is a call. Other ports read as ones."
        ),
        ExitText(
            number: CKVM_EXIT_HYPERCALL, name: "HYPERCALL",
            means:
                "The guest executed VMCALL or VMMCALL with a number that the monitor asked for. Number 12 is "
                + "KVM_HC_MAP_GPA_RANGE, an explicit request to convert: address, pages of 4 KiB, attributes.",
            advice: "Convert or refuse, put the result into hypercall.ret, and run again."),
        ExitText(
            number: CKVM_EXIT_DEBUG, name: "DEBUG",
            means: "A breakpoint or single step that a debugger asked for.",
            advice: "This monitor asks for none; it ends the guest."),
        ExitText(
            number: CKVM_EXIT_HLT, name: "HLT", means: "The vCPU executed HLT.",
            advice: "Here nothing can wake it: when all vCPUs have halted the machine is at its end."),
        ExitText(
            number: CKVM_EXIT_MMIO, name: "MMIO",
            means: "An access to a guest-physical address that no memslot has.",
            advice:
                "If there should be RAM, look for a slot that was deleted while its pages were private (hazard A14)."
        ),
        ExitText(
            number: CKVM_EXIT_IRQ_WINDOW_OPEN, name: "IRQ_WINDOW_OPEN",
            means: "The guest can take an interrupt now.",
            advice: "This monitor has no interrupts and never asks for it."),
        ExitText(
            number: CKVM_EXIT_SHUTDOWN, name: "SHUTDOWN",
            means: "A triple fault: an exception while there was no handler for it.",
            advice: "A guest has no IDT unless it made one, so any exception ends here. Look at RIP."),
        ExitText(
            number: CKVM_EXIT_FAIL_ENTRY, name: "FAIL_ENTRY", means: "The CPU refused to enter the guest.",
            advice:
                "The vCPU's registers are not a state that the CPU takes; look at the reason that came with it."
        ),
        ExitText(
            number: CKVM_EXIT_INTR, name: "INTR", means: "A signal interrupted the run.",
            advice: "Run it again."),
        ExitText(
            number: CKVM_EXIT_INTERNAL_ERROR, name: "INTERNAL_ERROR",
            means: "KVM itself could not go on. Suberror 1 is an instruction that it could not emulate.",
            advice: "Look at the instruction at RIP: ring 0 code with SSE, or an access to what is no RAM."),
        ExitText(
            number: CKVM_EXIT_SYSTEM_EVENT, name: "SYSTEM_EVENT",
            means: "The guest asked for a reset or to be switched off.",
            advice: "This monitor has no such device and ends the guest."),
        ExitText(
            number: CKVM_EXIT_MEMORY_FAULT, name: "MEMORY_FAULT",
            means:
                "The guest touched a page that is not what the access wanted (implicit conversion), or KVM could not get the "
                + "page for another reason: the errno tells them apart.",
            advice:
                "If your map says that the page already is as the access wants it, enter again: that is a race, and to convert would "
                + "undo somebody's work. Else convert it to what the access wants."),
    ]

    var title: String { "KVM_EXIT_\(name) (\(number))" }

    static func named(_ word: String) -> ExitText? {
        if let number = Words.number(word) { return all.first { UInt64($0.number) == number } }
        var name = NearWords.folded(word)
        if name.hasPrefix("kvm_exit_") { name = String(name.dropFirst(9)) }
        return all.first { $0.name.lowercased() == name }
    }

    /// With what came along: `flags`, `gpa`, `size`, `errno`.
    func explanation(_ arguments: ExitArguments) -> Explanation {
        var text = Explanation(.exit, name, title)
        text.add(
            .attempted,
            arguments.gpa.map { "to run a vCPU, which accessed \(Words.hex($0))" }
                ?? "to run a vCPU (KVM_RUN)")
        guard number == CKVM_EXIT_MEMORY_FAULT else {
            text.add(
                .answer,
                number == CKVM_EXIT_UNKNOWN
                    ? "KVM_RUN came back and exit_reason is 0"
                    : "KVM_RUN returned 0 with exit reason \(number)"
            )
            text.add(.means, means)
            text.add(.advice, advice)
            return text
        }
        text.add(.answer, arguments.faultAnswer)
        arguments.sayFault(means, advice, &text)
        text.add(.see, "hazard A34 (endless faults); A33 (opposite directions)")
        return text
    }
}

/// What came with an exit.
struct ExitArguments: Sendable, Equatable {
    var gpa: UInt64?
    var size: UInt64?
    var flags: UInt64?
    var errno: Errno?

    static let keys = ["flags", "gpa", "size", "errno"]

    /// - Returns: nil if it was taken, else what is wrong with it.
    mutating func take(_ key: String, _ value: String) -> String? {
        if NearWords.folded(key) == "errno" {
            guard let known = Errno(word: value) else { return "errno=\(value): no errno that is known here" }
            errno = known
            return nil
        }
        guard let number = Words.number(value) else { return "\(key)=\(value): no number of 64 bits" }
        switch NearWords.folded(key) {
        case "gpa": gpa = number
        case "size": size = number
        case "flags": flags = number
        default: return "\(key)=: an exit has \(Self.keys.joined(separator: ", "))"
        }
        return nil
    }

    fileprivate var faultAnswer: String {
        var parts = [
            "KVM_RUN returned -1 with \(errno.map(\.nameAndNumber) ?? "EFAULT or EHWPOISON"), exit reason 39"
        ]
        if let gpa { parts.append("gpa \(Words.hex(gpa))") }
        if let size { parts.append("size \(Words.hex(size))") }
        if let flags { parts.append("flags \(Words.hex(flags))") }
        return parts.joined(separator: ", ")
    }

    fileprivate func sayFault(_ means: String, _ advice: String, _ text: inout Explanation) {
        if errno == .hardwarePoisoned {
            text.add(
                .means,
                "The host's memory behind the page has failed. The page's state has nothing to do with it.")
            text.add(.advice, "End the guest, or take the page away from it; do not convert.")
            return
        }
        if let errno, errno != .badAddress {
            text.add(
                .means,
                "The exit information counts only with EFAULT and EHWPOISON; with \(errno.name) it is left over."
            )
            text.add(.advice, "Clear exit_reason before each run, and check errno before reading it.")
            return
        }
        let fault = MemoryFault(gpa: gpa ?? 0, size: size ?? pageSize, flags: flags ?? 0)
        if flags != nil, fault.unknownFlags != 0 {
            text.add(
                .means,
                "Flag bits \(Words.hex(fault.unknownFlags)) have no meaning in this ABI: the kernel is newer than it."
            )
            text.add(.advice, "Stop rather than guess what the access wanted.")
            return
        }
        if flags != nil {
            let other = fault.wants.other.rawValue
            text.add(
                .means,
                "The access wanted the page \(fault.wants.rawValue) (bit 3, PRIVATE, is "
                    + "\(fault.wants == .private ? "set" : "clear")), and it is \(other): the guest asks, by touching, "
                    + "for a conversion to \(fault.wants.rawValue). On a software-protected VM an access never wants anything; there "
                    + "it met a conversion on its way, or a page that could not be had.")
        } else {
            text.add(.means, means)
        }
        if let gpa, gpa % pageSize != 0 {
            text.add(
                .means,
                "gpa \(Words.hex(gpa)) is not on a page, but the kernel names pages: check where the number is from."
            )
        }
        text.add(.advice, advice)
    }
}
