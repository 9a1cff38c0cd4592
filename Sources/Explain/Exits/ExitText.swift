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
    /// The fields of `struct kvm_run` that refine the explanation.
    var fields: [ExitArguments.Field] = []
    /// Whether the exit has `ndata` and `data[]`.
    var hasData = false
    var see = ""

    static let all: [ExitText] = [
        ExitText(
            number: CKVM_EXIT_UNKNOWN, name: "UNKNOWN",
            means:
                "The kernel has no exit reason for what the CPU reported; hardware_exit_reason has the CPU's own. After an error "
                + "of KVM_RUN it can also mean that the kernel did not fill in a reason: minivmm sets the field to 0 before each "
                + "run.",
            advice: "Check the errno of KVM_RUN first.", fields: [.reason]),
        ExitText(
            number: CKVM_EXIT_EXCEPTION, name: "EXCEPTION",
            means: "The guest raised an exception that KVM passes to the monitor.",
            advice: "MiniVMM does not use this exit and ends the guest."),
        ExitText(
            number: CKVM_EXIT_IO, name: "IO", means: "The guest executed IN or OUT on a port.",
            advice:
                "MiniVMM's ports: 0x3f8 and 0xe9 are the console, 0xf4 takes the exit status, 0xe8 makes a call to the monitor. Any "
                + "other port reads as all ones and ignores writes."
        ),
        ExitText(
            number: CKVM_EXIT_HYPERCALL, name: "HYPERCALL",
            means:
                "The guest executed VMCALL or VMMCALL with a number that the monitor enabled. Number 12 is "
                + "KVM_HC_MAP_GPA_RANGE, an explicit request to convert: a GPA, a number of 4 KiB pages, and attributes (bit 4 set: to "
                + "private).",
            advice:
                "Convert the range or refuse, store the result in hypercall.ret, and run the vCPU again. It is 0 or a negative errno; "
                + "for SNP and TDX guests 0, EAGAIN or EINVAL, which are positive (hazard V30).",
            fields: [.number, .gpa, .pages, .attributes], see: "minivmm explain KVM_HC_MAP_GPA_RANGE"),
        ExitText(
            number: CKVM_EXIT_DEBUG, name: "DEBUG",
            means: "The guest reached a breakpoint or completed a single step that a debugger had enabled.",
            advice: "MiniVMM enables neither; it ends the guest."),
        ExitText(
            number: CKVM_EXIT_HLT, name: "HLT", means: "The vCPU executed HLT.",
            advice:
                "MiniVMM has no interrupts, so nothing wakes the vCPU. When all vCPUs have halted, the run ends."
        ),
        ExitText(
            number: CKVM_EXIT_MMIO, name: "MMIO",
            means: "The guest accessed a guest-physical address that belongs to no memslot.",
            advice:
                "If RAM should be there, look for a memslot that was deleted while its pages were private (hazard A14).",
            fields: [.gpa, .size]
        ),
        ExitText(
            number: CKVM_EXIT_IRQ_WINDOW_OPEN, name: "IRQ_WINDOW_OPEN",
            means: "The guest can accept an interrupt now.",
            advice: "MiniVMM has no interrupts and never requests this exit."),
        ExitText(
            number: CKVM_EXIT_SHUTDOWN, name: "SHUTDOWN",
            means: "A triple fault: an exception was raised while no handler for it could be run.",
            advice:
                "A guest starts without an IDT, so any exception ends it. Look at the instruction at RIP; on AMD the vCPU is reset "
                + "before the exit is reported, and RIP is lost.",
            see: "minivmm explain emulation: KVM itself cannot read page tables in private memory"),
        ExitText(
            number: CKVM_EXIT_FAIL_ENTRY, name: "FAIL_ENTRY",
            means:
                "The CPU refused to enter the guest. hardware_entry_failure_reason has the CPU's own code.",
            advice:
                "Give the code: minivmm explain exit 9 reason=0x80000021. Compare the vCPU's registers (CR0, CR4, EFER, segments) "
                + "with the CPU manual's checks on guest state.",
            fields: [.reason, .cpu]
        ),
        ExitText(
            number: CKVM_EXIT_INTR, name: "INTR", means: "A signal interrupted KVM_RUN.",
            advice: "Run the vCPU again."),
        ExitText(
            number: CKVM_EXIT_INTERNAL_ERROR, name: "INTERNAL_ERROR",
            means:
                "KVM itself could not continue. Suberror 1: an instruction that KVM could not emulate; 2: exceptions that collided; "
                + "3: an unexpected exit while an event was delivered; 4: an exit reason that KVM does not handle.",
            advice:
                "Give the suberror: minivmm explain exit 17 suberror=1 data0=0. Look at the instruction at RIP: ring 0 code with "
                + "SSE, or an access to an address without RAM.",
            fields: [.suberror], hasData: true,
            see: "minivmm explain emulation: KVM cannot read instructions in private memory"),
        ExitText(
            number: CKVM_EXIT_SYSTEM_EVENT, name: "SYSTEM_EVENT",
            means:
                "The guest or its firmware asked for a change of the whole machine: 1 shutdown, 2 reset, 3 crash, 4 wakeup, 5 "
                + "suspend, 6 an SEV guest terminates itself, 7 a fatal error in a TDX guest.",
            advice:
                "MiniVMM has no device that a guest could ask with, and ends the guest. Another monitor should reset or stop the "
                + "machine.",
            fields: [.type, .flags], hasData: true),
        ExitText(
            number: CKVM_EXIT_MEMORY_FAULT, name: "MEMORY_FAULT",
            means:
                "The guest's access did not match the page's state (an implicit request to convert), or KVM could not get the page for "
                + "another reason. The errno distinguishes the two.",
            advice:
                "If the monitor's map says that the page already has the state that the access needs, run the vCPU again: the exit "
                + "was a race, and a conversion would undo another thread's work. Otherwise convert the page to that state.",
            fields: [.flags, .gpa, .size], see: "hazard A34 (endless faults); A33 (opposite directions)"),
    ]

    var title: String { "KVM_EXIT_\(name) (\(number))" }

    /// The keys that may follow the name on the command line.
    var keys: [String] {
        fields.map(\.rawValue) + (hasData ? ["ndata", "data0"] : []) + ["errno"]
    }

    static func named(_ word: String) -> ExitText? {
        if let number = Words.number(word) { return all.first { UInt64($0.number) == number } }
        var name = NearWords.folded(word)
        if name.hasPrefix("kvm_exit_") { name = String(name.dropFirst(9)) }
        // Rust VMMs write MemoryFault and FailEntry.
        return all.first { known in
            let folded = known.name.lowercased()
            return folded == name || folded.contains("_") && folded.filter { $0 != "_" } == name
        }
    }

    /// The explanation, with the given fields of `struct kvm_run`.
    func explanation(_ arguments: ExitArguments) -> Explanation {
        var text = Explanation(.exit, name, title)
        text.add(
            .attempted,
            arguments[.gpa].map { "to run a vCPU, which accessed \(Words.hex($0))" }
                ?? "to run a vCPU (KVM_RUN)")
        text.add(.answer, arguments.answer(of: self))
        if let errno = arguments.errno, number != CKVM_EXIT_MEMORY_FAULT, number != CKVM_EXIT_UNKNOWN {
            text.add(
                .means,
                "KVM_RUN failed with \(errno.name), so exit_reason may be left over from an earlier exit.")
        }
        switch number {
        case CKVM_EXIT_MEMORY_FAULT: arguments.addMemoryFault(means, advice, to: &text)
        case CKVM_EXIT_FAIL_ENTRY: arguments.addFailedEntry(means, advice, to: &text)
        case CKVM_EXIT_INTERNAL_ERROR: arguments.addInternalError(means, advice, to: &text)
        case CKVM_EXIT_SYSTEM_EVENT: arguments.addSystemEvent(means, advice, to: &text)
        case CKVM_EXIT_HYPERCALL: arguments.addHypercall(means, advice, to: &text)
        default:
            text.add(.means, means)
            text.add(.advice, advice)
        }
        text.add(.see, see)
        return text
    }
}
