// SPDX-License-Identifier: MIT
public import MiniVMM
import SystemPackage

// The four lines below each error of the monitor.

extension MachineError {
    /// The four lines for a machine that could not be built, or whose run the monitor or the host ended.
    public var diagnosis: Diagnosis {
        switch self {
        case .configuration(let error):
            error.diagnosis
                ?? Diagnosis(
                    attempted: "to build the requested machine",
                    answer: "stopped before creating a VM",
                    means: "No backend supports a machine like this.",
                    advice: "Change that option; minivmm help run lists the limits of each.")
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
                    "The host memory behind that page has failed. This does not depend on whether the page is private or shared.",
                advice: "Look for memory errors in the host's log, and start the guest again.")
        case .unknownFaultFlags(let vcpu, let fault):
            Diagnosis(
                attempted: "to run vCPU \(vcpu), which accessed \(Words.hex(fault.gpa))",
                answer: "EFAULT with exit 39, flags \(Words.hex(fault.flags))",
                means:
                    "Flag bits \(Words.hex(fault.unknownFlags)) are not part of this version of the interface. The kernel is newer, and the "
                    + "monitor cannot tell what the access needed.",
                advice: "Use a minivmm that supports this kernel, or --backend soft.")
        case .unexplainedFault(let vcpu, let rip):
            Diagnosis(
                attempted: "to run vCPU \(vcpu)" + (rip.map { " at RIP \(Words.hex($0))" } ?? ""),
                answer: "EFAULT without exit 39",
                means:
                    "The kernel could not reach memory behind a memslot and does not report where: a mapping may be gone, or a page private.",
                advice:
                    "Keep the memory at userspace_addr mapped (hazards A9, A12), and KVM's own structures on shared pages (A28)."
            )
        case .wrongAnswer(let vcpu, let ret):
            Diagnosis(
                attempted: "to run vCPU \(vcpu) after a page state change or MapGPA of its guest",
                answer: "EINVAL, because the monitor had written \(ret) into hypercall.ret",
                means:
                    "KVM accepts 0, EAGAIN (11) and EINVAL (22) there, and enters the guest with no other answer.",
                advice: "Answer with one of these three, as positive numbers (hazard V30).")
        case .softwareCPU(let vcpu, let failure):
            Diagnosis(
                attempted: "to run vCPU \(vcpu) on the software CPU, which runs in its own process",
                answer: failure.description,
                means:
                    "The process could not start, or something outside of minivmm ended it. The guest is not the cause.",
                advice:
                    "Check the limits of this shell (ulimit -v, ulimit -u), and look in the kernel's log for processes that were killed "
                    + "when memory ran out."
            )
        case .unhandledExit(let vcpu, let exit):
            Diagnosis(
                attempted: "to run vCPU \(vcpu)", answer: exit.description,
                means: "The guest did something that this monitor does not support.",
                advice:
                    "minivmm explain exit lists the exits; run with --trace - --explain to see what happened before."
            )
        case .cancelled:
            Diagnosis(
                attempted: "to build the machine", answer: "cancelled before the guest ran",
                means: "The time limit was reached, or a signal arrived.",
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
    /// The four lines for a backend that lacks what the machine needs.
    public var diagnosis: Diagnosis {
        switch self {
        case .privateMemory:
            Diagnosis(
                attempted: "KVM_CREATE_VM of a software-protected VM", answer: "EINVAL (22)",
                means: "Without this VM type there is no private memory and nothing to convert.",
                advice:
                    "Use --backend memslot-trap, which does not need it, or --backend soft; or boot a kernel with "
                    + "CONFIG_KVM_SW_PROTECTED_VM."
            )
        case .interruptControllers:
            Diagnosis(
                attempted: "KVM_CREATE_IRQCHIP and KVM_CREATE_PIT2", answer: "this backend has no such call",
                means:
                    "The interrupt controllers and the timer are those of KVM. minivmm has none of its own.",
                advice: "Use a backend on /dev/kvm (--backend memslot-trap or linux), or leave out --irqchip."
            )
        case .aliases:
            Diagnosis(
                attempted: "KVM_CREATE_VM of a VM with two aliases of its memory", answer: "EINVAL (22)",
                means:
                    "On this backend the state of the page decides the kind of an access, so no access can request a conversion.",
                advice: "Use one alias (--aliases one) if the guest works with it, or --backend auto.")
        case .preservation:
            Diagnosis(
                attempted: "to build a machine whose guest needs its contents preserved",
                answer: "the VM was created, but does not guarantee that contents are preserved",
                means:
                    "On this backend the bytes do not survive a conversion. Losing them silently would be worse than not running.",
                advice:
                    "Use --backend auto, which finds a backend that preserves them; minivmm probe lists which backends do."
            )
        case .sharedGuestMemfd:
            Diagnosis(
                attempted: "KVM_CREATE_GUEST_MEMFD with MMAP and INIT_SHARED", answer: "EINVAL (22)",
                means:
                    "Pages that start shared on a VM with private memory need in-place conversion (Linux 7.4).",
                advice:
                    "Use --backend auto or memslot-trap; on Linux 7.4, load kvm with gmem_in_place_conversion=1."
            )
        case .confidentialVM:
            Diagnosis(
                attempted: "KVM_CREATE_VM of an SNP or TDX VM",
                answer: "not supported by this monitor on this backend",
                means:
                    "SNP and TDX need their hardware and firmware, which this program does not drive. SoftKVM has models of both.",
                advice: "Use --backend soft, or omit --backend.")
        case .conversion:
            Diagnosis(
                attempted: "to convert guest memory (KVM_SET_MEMORY_ATTRIBUTES2)", answer: "ENOTTY (25)",
                means: ConversionRow.noSuchCall.means, advice: ConversionRow.noSuchCall.advice)
        }
    }
}

extension ConfigurationError {
    /// Nil if the error's own text is enough.
    fileprivate var diagnosis: Diagnosis? {
        switch self {
        case .regions, .ramSize, .vcpus, .pageTables, .modeOfConfidentialVM, .oneCPUOnly: nil
        case .sharedBitTooLow, .ramReachesAlias:
            Diagnosis(
                attempted: "to build a machine with two aliases of its memory",
                answer: "stopped before creating a VM",
                means:
                    "RAM, the first 4 GiB and the shared alias of both must fit into this CPU's guest-physical addresses.",
                advice: "Use one alias (--aliases one), or less RAM (--ram).")
        }
    }
}

extension ImageError {
    /// The four lines for an image that cannot be booted. They are the same for every error of an image.
    public var diagnosis: Diagnosis {
        Diagnosis(
            attempted: "to load the guest's image", answer: "stopped before creating a VM",
            means:
                "The file cannot be booted. A guest is a flat image, a boot sector, a Multiboot or PVH kernel, or a static ELF executable "
                + "for x86, and must fit into RAM.",
            advice:
                "minivmm list shows the built-in guests; docs/guests.md has the formats; guest/README.md has a linker's command line; "
                + "--ram makes room."
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
                    : " Converted before that: \(result.converted.map(\.description).joined(separator: ", "))."),
            advice: advice)
    }

    private var parts: (answer: String, means: String, advice: String) {
        switch reason {
        case .refused(.onlyGuestInitialises):
            return (
                "refused by the monitor, the backend was not called: \(ContentRefusal.onlyGuestInitialises)",
                "On SNP the guest reads garbage from a new private page, whatever the host has written. On TDX the module zeroes the page "
                    + "when the guest accepts it. Nothing has changed.",
                "Request unspecified contents, and let the guest initialise the page after it has validated or accepted it."
            )
        case .refused(let refusal):
            return (
                "refused by the monitor, the backend was not called: \(refusal)",
                "The monitor refuses a request to preserve contents that it cannot honour, instead of losing them. Nothing has changed.",
                "Request zero or unspecified contents (--contents) and copy the bytes yourself, or use a backend that preserves them "
                    + "(--backend auto)."
            )
        case .outsideRAM(let size):
            return (
                "refused by the monitor, the backend was not called: RAM ends at \(Words.hex(size))",
                "Part of the range is not RAM. Addresses must be given without the shared bit. Nothing has changed.",
                "Check the guest's arguments, or give it more RAM (--ram)."
            )
        case .inUse(let pages):
            let list =
                pages.prefix(4).map(\.description).joined(separator: ", ") + (pages.count > 4 ? ", …" : "")
            return (
                "EAGAIN (11) from \(result.busyAnswers) of \(Words.count(UInt64(result.calls), "call")); in use: \(list)",
                ConversionRow.inUse.means,
                ConversionRow.inUse.advice
                    + " --in-use bisect, --attempts and --deadline control how long minivmm tries."
            )
        case .backend(let error, let gpa):
            let errno = Errno(error)
            let row = ConversionRow.allCases.first {
                $0.errno == errno && errno != .invalidArgument && errno != .badAddress
            }
            return (
                errno.nameAndNumber + (gpa.map { " at \(Words.hex($0))" } ?? ""),
                row?.means ?? CallErrors.general(errno).means, row?.advice ?? CallErrors.general(errno).advice
            )
        case .zeroing(let error, let gpa):
            return (
                "converted, but zeroing failed with \(Errno(error).nameAndNumber) at \(Words.hex(gpa))",
                "The pages have their new state, but from that address on they still have their old contents.",
                "Treat the range as not zeroed: convert it again with zero contents before it is read."
            )
        case .cancelled:
            return (
                "cancelled before the next call",
                "The machine is stopping: its time limit was reached, a signal arrived, or its guest ended.",
                "Nothing. With more time (--timeout) or larger chunks (--chunk) it gets further."
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
                    "The page is private: only the guest may access it. A plain access would have raised SIGBUS.",
                    "Convert the page to shared first, or have the guest copy the data to a shared page."
                )
            case .shared?:
                (
                    "The page is shared now. It was private at the time of the access, or the memory behind it has failed.",
                    "Access it again under the lock of the map of states. If the error remains, read the host's log."
                )
            case nil:
                (
                    "The guest has no RAM at this address.",
                    "Check the address: it must be without the shared bit, and RAM starts at 0."
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
                "This machine has no KVM: the CPU or hypervisor offers no virtualisation, or the kvm module is not loaded.",
                "Load kvm_intel or kvm_amd, or use --backend soft, which needs no KVM."
            )
        case (.open, .permissionDenied), (.open, .notPermitted):
            (answer, means, advice) = (
                errno.nameAndNumber, "The device exists, but this user may not open it.",
                "Add yourself to the group that owns it (usually kvm) and log in again, or use --backend soft."
            )
        case (.open, _):
            (answer, means, advice) = (
                errno.nameAndNumber, CallErrors.general(errno).means, CallErrors.general(errno).advice
            )
        case (.notKVM, _):
            (answer, means, advice) = (
                "\(errno.nameAndNumber) from its first ioctl", "The path is not a KVM device.",
                "Check the path; --backend soft needs no device."
            )
        case (.apiVersion(let version), _):
            (answer, means, advice) = (
                "API version \(version)",
                "Every stable KVM reports API version 12, so this is not KVM.",
                "Use --backend soft, or another machine."
            )
        case (.runPageLength(let length), _):
            (answer, means, advice) = (
                "a kvm_run page of \(length) bytes",
                "That is smaller than the struct in it, so this is not KVM.",
                "Use --backend soft, or another machine."
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
        case .exited, .quit, .interrupted: return nil
        case .halted:
            return Diagnosis(
                attempted: "to run the guest to its end", answer: "exit 5, KVM_EXIT_HLT, on every vCPU",
                means:
                    "HLT waits for an interrupt. This machine has no interrupt controller, so none ever comes.",
                advice: "A guest ends with a status by writing a byte to port 0xf4.")
        case .failed(let error): return error.diagnosis
        case .crashed(let vcpu, let crash): return crash.diagnosis(vcpu: vcpu)
        case .faultLoop(let vcpu, let fault, let faults, let rip, let why):
            return Diagnosis(
                attempted:
                    "to run vCPU \(vcpu), whose instruction at \(Words.hex(rip)) needs \(Words.hex(fault.gpa)) \(fault.wants.rawValue)",
                answer: "EFAULT with exit 39, \(faults) times in a row",
                means: "The same access finds the page in the same state every time (hazard A34): \(why).",
                advice:
                    "Convert on a fault to the state that the access needs (--on-fault convert), and avoid instructions that access one page "
                    + "through both aliases. minivmm explain A34 lists the tests.")
        case .timeLimit(let limit):
            return Diagnosis(
                attempted: "to run the guest to its end",
                answer: "not finished after \(limit.secondsText) s",
                means:
                    "The guest is in an endless loop, or waits for an event that never comes: there are no interrupts and no timer. Or "
                    + "there was too much to do: converting many GiB in small chunks (--ram, --chunk) takes long before the first "
                    + "instruction.",
                advice: "Give it more time (--timeout, 0 for no limit), or find out where it is (--trace -).")
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
        case .exception(let unhandled):
            (
                "exception \(unhandled.exception.vector), reported by the monitor's handler in the guest",
                unhandled.exception.cause + unhandled.exception.causeUnderKVM,
                "Look at the instruction. A guest that handles exceptions loads an IDT of its own."
            )
        case .tripleFault(.of(let unhandled)):
            (
                "exit 8, KVM_EXIT_SHUTDOWN",
                unhandled.exception.cause
                    + " The CPU could not deliver the exception: the guest has no handler for it, or the handler's stack cannot be written.",
                "Look at the instruction, and at the guest's IDT."
            )
        case .tripleFault(.reset):
            (
                "exit 8, KVM_EXIT_SHUTDOWN",
                "The guest raised an exception that the CPU could not deliver. An AMD CPU is then reset before KVM returns, so the "
                    + "instruction and the registers are lost.",
                "Run the guest with --backend soft, which keeps them, or with --trace - to see what happened before."
            )
        case .tripleFault(.unknown):
            (
                "exit 8, KVM_EXIT_SHUTDOWN",
                "The guest raised an exception that the CPU could not deliver: the guest has no handler for it, or the handler's stack "
                    + "cannot be written. KVM does not report which one.",
                "Look at the instruction at RIP, or run the guest with --backend soft, which names the exception."
            )
        case .noDevice:
            (
                "exit 6, KVM_EXIT_MMIO", "The address is outside RAM, and no device has it.",
                "Check the pointer, and the size of RAM (--ram). A deleted memslot has the same effect (hazard A14)."
            )
        case .unreachableRAM:
            (
                "exit 6, KVM_EXIT_MMIO",
                "KVM emulates string I/O and accesses its data through the host's mapping. It cannot reach private memory there, and "
                    + "treats the access as MMIO.",
                "Convert the buffer to shared first, or move its bytes through a register (see minivmm explain emulation)."
            )
        case .outsideRAM:
            (
                "EFAULT with exit 39, outside RAM",
                "The guest accessed an address without RAM, so there is nothing to convert.",
                "Check the pointer and the shared bit, or give the guest more RAM (--ram)."
            )
        case .strayAccess:
            (
                "EFAULT with exit 39, in RAM",
                "The guest accessed the page through the alias that does not match its state, or before it had asked for a conversion. "
                    + "An access is no request: a conversion would lose the page.",
                "The guest must convert first. --on-fault convert shows what an obedient monitor does (hazard V26)."
            )
        case .deadVM:
            (
                "KVM_RUN: EIO",
                "KVM ends a TD that touches a private page before it has accepted it, and no vCPU of it runs again.",
                "Accept each page before its first use (hazard V16)."
            )
        case .terminated:
            (
                "exit 24, KVM_EXIT_SYSTEM_EVENT",
                "The guest found something wrong and asked to be terminated, as Linux does when memory is not what it should be.",
                "See what the guest printed before."
            )
        case .firmwareCall:
            (
                "port 0xeb, from the machine's own handler of that vector",
                "In real mode every vector leads to a handler of the machine that reports it, until the guest sets the vector. The only "
                    + "service of a BIOS that exists is INT 0x10 with AH 0x0e, which prints a character. There are no disks, timers or "
                    + "keyboards.",
                "Use COM1 (port 0x3f8) for output, and load what the guest needs together with it. For an exception, look at the "
                    + "instruction before RIP, or install a handler in the vector table at address 0."
            )
        case .emulation, .internalError:
            (
                "exit 17, KVM_EXIT_INTERNAL_ERROR",
                "KVM had to emulate an instruction and could not. It cannot read instructions in private memory.",
                "Look at the instruction at RIP: some hosts emulate ring 0, without SSE or AVX. --backend soft supports both. In private "
                    + "code OUTS, INS and MMIO do not work, and without NRIPS neither do CPUID and RDMSR (minivmm explain emulation)."
            )
        case .softwareCPU(let failure):
            (
                failure.description, "The guest did something that the software CPU cannot continue from.",
                "Run it with --trace - --explain and look at the last events; docs/hostile-guests.md lists what the engine is known to "
                    + "fail on."
            )
        }
    }
}
