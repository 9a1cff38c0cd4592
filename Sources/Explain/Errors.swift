// SPDX-License-Identifier: MIT
public import MiniVMM
import SystemPackage

// What each error of the monitor means: the four lines below it.

extension MachineError {
    /// The four lines for a machine that could not be built, or whose run the monitor or the host ended.
    public var diagnosis: Diagnosis {
        switch self {
        case .configuration(let error):
            error.diagnosis
                ?? Diagnosis(
                    attempted: "to build the machine that was asked for",
                    answer: "none: the kernel was not asked",
                    means: "Such a machine cannot be, on any kernel.",
                    advice: "Change that option; minivmm help run has the bounds of each.")
        case .unsupported(let lack, _): lack.diagnosis
        case .image(let error): error.diagnosis
        case .backend(let call, let errno, let attempted, let hint):
            Self.backend(call, errno, attempted, hint)
        case .conversion(let error): error.diagnosis
        case .poisoned(let vcpu, let gpa):
            Diagnosis(
                attempted: "to run vCPU \(vcpu), which accessed \(Words.hex(gpa))",
                answer: "EHWPOISON with exit 39, KVM_EXIT_MEMORY_FAULT",
                means:
                    "The host's memory behind that page has failed. Private or shared has nothing to do with it.",
                advice: "Look at the host's log for memory errors, and start the guest again.")
        case .unknownFaultFlags(let vcpu, let fault):
            Diagnosis(
                attempted: "to run vCPU \(vcpu), which accessed \(Words.hex(fault.gpa))",
                answer: "EFAULT with exit 39, flags \(Words.hex(fault.flags))",
                means:
                    "Bits \(Words.hex(fault.unknownFlags)) are none that this ABI has: the kernel is newer, and what the access wanted is not known.",
                advice: "Use a minivmm that knows this kernel, or --backend soft.")
        case .unexplainedFault(let vcpu, let rip):
            Diagnosis(
                attempted: "to run vCPU \(vcpu)" + (rip.map { " at RIP \(Words.hex($0))" } ?? ""),
                answer: "EFAULT, and no exit 39 with it",
                means:
                    "The kernel could not reach memory behind a memslot and does not say where: a mapping may be gone, or hold a private page.",
                advice:
                    "Keep the memory at userspace_addr mapped (hazards A9, A12), and KVM's own structures on shared pages (A28)."
            )
        case .softwareCPU(let vcpu, let failure):
            Diagnosis(
                attempted: "to run vCPU \(vcpu) on the software CPU, which has a process of its own",
                answer: failure.description,
                means:
                    "The process could not start, or something outside of minivmm ended it. The guest has no part in it.",
                advice:
                    "Look at the limits of this shell (ulimit -v, ulimit -u) and at the kernel's log for processes that were killed when memory ran out."
            )
        case .unhandledExit(let vcpu, let exit):
            Diagnosis(
                attempted: "to run vCPU \(vcpu)", answer: exit.description,
                means: "The guest did something for which this monitor has no device and no answer.",
                advice:
                    "minivmm explain exit lists the exits; run with --trace - --explain to see what came before."
            )
        case .cancelled:
            Diagnosis(
                attempted: "to build the machine", answer: "none: it was cancelled",
                means: "The time limit or a signal ended it before the guest ran.",
                advice: "Give it more time (--timeout), less memory (--ram), or larger chunks (--chunk).")
        }
    }

    private static func backend(_ call: String, _ errno: Errno, _ attempted: String, _ hint: String?)
        -> Diagnosis
    {
        let known = CallErrors.of(call, errno)
        let general = CallErrors.general(errno)
        return Diagnosis(
            attempted: "\(call) on \(attempted)", answer: errno.nameAndNumber,
            means: (known?.means ?? general.means) + (hint.map { " Here: \($0)." } ?? ""),
            advice: known?.advice ?? general.advice)
    }
}

extension Lack {
    /// The four lines for a kernel that lacks what the machine needs.
    public var diagnosis: Diagnosis {
        switch self {
        case .privateMemory:
            Diagnosis(
                attempted: "KVM_CREATE_VM of a software-protected VM", answer: "EINVAL (22)",
                means: "Without such a VM type there is no private memory and nothing to convert.",
                advice:
                    "Take --backend memslot-trap, which needs none, or soft; or a kernel with KVM_SW_PROTECTED_VM."
            )
        case .aliases:
            Diagnosis(
                attempted: "KVM_CREATE_VM of a VM with two aliases of its memory", answer: "EINVAL (22)",
                means:
                    "This kernel takes the kind of an access from the page, so that none asks for a conversion.",
                advice: "Use one alias (--aliases one), if the guest can do with it, or --backend auto.")
        case .preservation:
            Diagnosis(
                attempted: "to build a machine whose guest needs its contents preserved",
                answer: "the VM was made; it promises nothing about contents",
                means:
                    "On this kernel the bytes do not survive a conversion, and losing them would be worse than not running.",
                advice:
                    "Take --backend auto, which looks for one that preserves them; minivmm probe says which do."
            )
        case .sharedGuestMemfd:
            Diagnosis(
                attempted: "KVM_CREATE_GUEST_MEMFD with MMAP and INIT_SHARED", answer: "EINVAL (22)",
                means:
                    "Pages that start shared on a VM with private memory need conversion in place (Linux 7.4).",
                advice:
                    "Take --backend auto or memslot-trap; on 7.4 load kvm with gmem_in_place_conversion=1.")
        case .conversion:
            Diagnosis(
                attempted: "to convert guest memory (KVM_SET_MEMORY_ATTRIBUTES2)", answer: "ENOTTY (25)",
                means: ConversionRow.noSuchCall.means, advice: ConversionRow.noSuchCall.advice)
        }
    }
}

extension ConfigurationError {
    /// Nil where the bounds of the option say it all.
    fileprivate var diagnosis: Diagnosis? {
        switch self {
        case .regions, .ramSize, .vcpus, .pageTables: nil
        case .sharedBitTooLow, .ramReachesAlias:
            Diagnosis(
                attempted: "to build a machine with two aliases of its memory",
                answer: "none: the kernel was not asked",
                means: "RAM, the first 4 GiB and their shared alias have to fit into this CPU's addresses.",
                advice: "Use one alias (--aliases one), or less RAM (--ram).")
        }
    }
}

extension ImageError {
    /// The four lines for an image that cannot be booted. They are the same for every error of an image.
    public var diagnosis: Diagnosis {
        Diagnosis(
            attempted: "to load the guest's image", answer: "none: the kernel was not asked for a VM",
            means:
                "This is nothing that can be booted: a guest is a flat image or a static ELF64 executable for x86-64, and fits into RAM.",
            advice:
                "minivmm list names guests that are there; guest/README.md has a linker's command line; --ram makes room."
        )
    }
}

extension ConversionError {
    /// The four lines for a conversion, including the ranges that were converted before it failed.
    public var diagnosis: Diagnosis {
        let (answer, means, advice) = parts
        return Diagnosis(
            attempted: "to convert \(request)", answer: answer,
            means: means
                + (result.converted.isEmpty
                    ? ""
                    : " Converted all the same: \(result.converted.map(\.description).joined(separator: ", "))."),
            advice: advice)
    }

    private var parts: (answer: String, means: String, advice: String) {
        switch reason {
        case .refused(let refusal):
            return (
                "none, the kernel was not asked: contents cannot be preserved: \(refusal)",
                "What cannot be preserved is refused and not silently lost. Nothing has changed.",
                "Ask for zero or unspecified contents (--contents) and carry the bytes over yourself, or take a kernel that preserves them "
                    + "(--backend auto)."
            )
        case .outsideRAM(let size):
            return (
                "none, the kernel was not asked: RAM ends at \(Words.hex(size))",
                "The range is not all RAM. An address is without the shared bit. Nothing has changed.",
                "Check the guest's arguments, or give it more RAM (--ram)."
            )
        case .inUse(let pages):
            let list =
                pages.prefix(4).map(\.description).joined(separator: ", ") + (pages.count > 4 ? ", …" : "")
            return (
                "EAGAIN (11), \(Words.count(UInt64(result.busyAnswers), "time")) in \(Words.count(UInt64(result.calls), "call")); "
                    + "in use: \(list)",
                ConversionRow.inUse.means,
                ConversionRow.inUse.advice
                    + " --in-use bisect, --attempts and --deadline set how long minivmm tries."
            )
        case .backend(let errno, let gpa):
            let row = ConversionRow.allCases.first {
                $0.errno == errno && errno != .invalidArgument && errno != .badAddress
            }
            return (
                errno.nameAndNumber + (gpa.map { " at \(Words.hex($0))" } ?? ""),
                row?.means ?? CallErrors.general(errno).means, row?.advice ?? CallErrors.general(errno).advice
            )
        case .zeroing(let errno, let gpa):
            return (
                "the conversion was done; zeroing was \(errno.nameAndNumber) at \(Words.hex(gpa))",
                "The pages have their new state, but from that address on they hold what they held.",
                "Treat the range as not zeroed: convert it again with contents zero before anybody reads it."
            )
        case .cancelled:
            return (
                "none: no further call was made",
                "The machine is to end, by its time limit, a signal or its guest.",
                "Nothing; with more time (--timeout) or larger chunks (--chunk) it gets further."
            )
        }
    }
}

extension HostAccessError {
    /// The four lines for a host's access to guest memory that returned an errno.
    public var diagnosis: Diagnosis {
        let (means, advice) =
            switch state {
            case .private?:
                (
                    "The page is private: only the guest may touch it. A plain access would have been SIGBUS.",
                    "Convert the page to shared first, or have the guest copy what the host is to see."
                )
            case .shared?:
                (
                    "The page is shared now: it was private for a moment while it was touched, or the memory behind it failed.",
                    "Touch it again, under the lock of the map of states; if it stays so, look at the host's log."
                )
            case nil:
                (
                    "The guest has no RAM there.",
                    "Check the address: it is without the shared bit, and RAM begins at 0."
                )
            }
        return Diagnosis(
            attempted:
                "the host's \(direction.rawValue) of guest memory at \(Words.hex(gpa)), by a system call on its mapping",
            answer: errno.nameAndNumber, means: means, advice: advice)
    }
}

extension KVMUnavailable {
    /// The four lines for a device such as `/dev/kvm` that cannot be used.
    public var diagnosis: Diagnosis {
        let (answer, means, advice): (String, String, String)
        switch (reason, errno) {
        case (.open, .noSuchFileOrDirectory):
            (answer, means, advice) = (
                errno.nameAndNumber,
                "This machine offers no KVM: no virtualisation, none passed on to it, or a module that is not loaded.",
                "Load kvm_intel or kvm_amd, or take --backend soft, which needs no KVM."
            )
        case (.open, .permissionDenied), (.open, .notPermitted):
            (answer, means, advice) = (
                errno.nameAndNumber, "The device is there, but not for this user.",
                "Add yourself to the group that owns it (usually kvm) and log in again, or take --backend soft."
            )
        case (.open, _):
            (answer, means, advice) = (
                errno.nameAndNumber, CallErrors.general(errno).means, CallErrors.general(errno).advice
            )
        case (.notKVM, _):
            (answer, means, advice) = (
                "\(errno.nameAndNumber) on its first ioctl", "Something else is behind this name.",
                "Look what it is; --backend soft needs no device."
            )
        case (.apiVersion(let version), _):
            (answer, means, advice) = (
                "API version \(version)",
                "KVM has spoken version 12 for as long as it is stable; this is no KVM.",
                "Take --backend soft, or another machine."
            )
        case (.runPageLength(let length), _):
            (answer, means, advice) = (
                "a kvm_run page of \(length) bytes",
                "That is too small for the page's own struct; this is no KVM.",
                "Take --backend soft, or another machine."
            )
        }
        return Diagnosis(attempted: "to open \(device)", answer: answer, means: means, advice: advice)
    }
}

extension Outcome {
    /// The four lines for how a run ended. Nil for endings that are not errors: an exit status of the guest,
    /// a halt, a signal.
    public var diagnosis: Diagnosis? {
        switch self {
        case .exited, .halted, .interrupted: return nil
        case .failed(let error): return error.diagnosis
        case .crashed(let vcpu, let crash): return crash.diagnosis(vcpu: vcpu)
        case .faultLoop(let vcpu, let fault, let faults, let rip, let why):
            return Diagnosis(
                attempted:
                    "to run vCPU \(vcpu), whose instruction at \(Words.hex(rip)) wants \(Words.hex(fault.gpa)) \(fault.wants.rawValue)",
                answer: "EFAULT with exit 39, \(faults) times in a row",
                means: "The same access meets the same state again and again (hazard A34): \(why).",
                advice:
                    "Convert on the fault to what the access wants (--on-fault convert), and keep an instruction from touching one page through both aliases. "
                    + "minivmm explain A34 has the tests.")
        case .timeLimit(let limit):
            return Diagnosis(
                attempted: "to run the guest to its end",
                answer: "none: it had not ended after \(limit.secondsText) s",
                means:
                    "It loops, or waits for something that does not come: there are no interrupts and no timer here. Or there is too "
                    + "much to do: to convert many GiB in small chunks (--ram, --chunk) takes long before the first instruction.",
                advice: "Give it more time (--timeout, 0 for no limit), or look where it stands (--trace -).")
        }
    }
}

extension Crash {
    fileprivate func diagnosis(vcpu: Int) -> Diagnosis {
        let (answer, means, advice) = cause.parts
        return Diagnosis(attempted: "to run vCPU \(vcpu)", answer: answer, means: means, advice: advice)
    }
}

extension Crash.Cause {
    fileprivate var parts: (answer: String, means: String, advice: String) {
        switch self {
        case .tripleFault:
            (
                "exit 8, KVM_EXIT_SHUTDOWN",
                "An exception came for which the guest has no handler: it begins without an IDT. So ends also what KVM has to "
                    + "emulate (OUTS, INS, an access where there is no RAM) while the guest's page tables are private: KVM cannot "
                    + "read private memory.",
                "Look at the instruction at RIP; run with --trace - --explain to see what it did before, and see minivmm explain "
                    + "emulation."
            )
        case .noDevice:
            (
                "exit 6, KVM_EXIT_MMIO", "The address is outside RAM and no device is there.",
                "Check the pointer, and the size of RAM (--ram). A slot that was deleted looks like this too (hazard A14)."
            )
        case .unreachableRAM:
            (
                "exit 6, KVM_EXIT_MMIO",
                "KVM emulates string I/O and reads and writes its data through the host's mapping. It cannot reach "
                    + "private memory there, and treats the access as MMIO.",
                "Convert the buffer to shared first, or move its bytes through a register (see minivmm explain emulation)."
            )
        case .outsideRAM:
            (
                "EFAULT with exit 39, outside RAM",
                "The guest accessed an address at which there is no RAM to convert.",
                "Check the pointer and the shared bit, or give the guest more RAM (--ram)."
            )
        case .emulation, .internalError:
            (
                "exit 17, KVM_EXIT_INTERNAL_ERROR",
                "KVM had to interpret an instruction and could not. It cannot read one that is in private memory.",
                "Look at the instruction at RIP: some hosts interpret ring 0, without SSE or AVX. --backend soft has both. Of private "
                    + "code no OUTS, INS or MMIO works, and without NRIPS no CPUID or RDMSR (minivmm explain emulation)."
            )
        case .softwareCPU(let failure):
            (
                failure.description, "The guest did something that the software CPU cannot go on from.",
                "Run it with --trace - --explain and look at the last events; docs/hostile-guests.md has what the engine is known "
                    + "to fail on."
            )
        }
    }
}
