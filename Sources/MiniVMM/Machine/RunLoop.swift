import CKVMShim
import SystemPackage

/// The run loop of one vCPU: every exit is handled or named. Belongs to the thread that runs the vCPU.
///
/// With tracing off an exit allocates nothing and takes no lock, but the console's for console output.
struct RunLoop {
    let machine: Machine
    let vcpu: any KVMVCPU
    private(set) var statistics = RunStatistics()
    private var progress = ProgressGuard()
    /// RIP at the hypercall that the last exit was.
    private var callInProgress: UInt64?
    private let trace: Trace?
    private let observer: (any ExitObserver)?
    private let page: RunPage

    enum Pause {
        /// Its time slice is over, or it asked to let another run.
        case yielded
        /// `KVM_EXIT_HLT`; nothing can wake it.
        case halted
        /// The machine stops.
        case stopped
    }

    init(machine: Machine, vcpu: any KVMVCPU) {
        self.machine = machine
        self.vcpu = vcpu
        trace = machine.trace
        observer = machine.observer
        page = vcpu.runPage
    }

    private var actor: Actor { .vcpu(vcpu.id) }

    /// Runs the vCPU until it pauses.
    mutating func run() -> Pause {
        while true {
            let exit = vcpu.runToExit()
            statistics.exits += 1
            if let observer, !exit.isInterruption {
                observer.left(exit, vcpu, machine)
                if machine.isStopping { return .stopped }
            }
            switch exit {
            case .io(let io):
                progress.reset()
                if let pause = handle(io) { return pause }
            case .memoryFault(let fault, let errno):
                if let outcome = handle(fault, errno) { return end(outcome) }
                trace?.record(.resumed(gpa: fault.gpa), by: actor)
            case .hypercall(let call):
                progress.reset()
                handle(call)
                callInProgress = try? vcpu.registers().rip
                continue
            case .interrupted:
                if machine.isStopping {
                    trace?.record(.kicked, by: actor)
                    return .stopped
                }
                return .yielded
            case .halt:
                trace?.record(.halted, by: actor)
                return .halted
            case .shutdown:
                return end(
                    .crashed(vcpu: vcpu.id, "triple fault (an exception that no handler takes)\(place())"))
            case .mmio(let access):
                let write = access.is_write != 0
                trace?.record(.mmio(gpa: access.phys_addr, size: Int(access.len), write: write), by: actor)
                let isPrivate = machine.memory.state(at: access.phys_addr) == .private
                let what =
                    isPrivate
                    ? "which is private RAM that KVM cannot reach"
                    : "where the machine has neither RAM nor a device"
                return end(
                    .crashed(
                        vcpu: vcpu.id,
                        "\(write ? "wrote" : "read") \(access.len) bytes at \(hex(access.phys_addr)), \(what)\(place())"
                    ))
            case .internalError(CKVM_INTERNAL_ERROR_EMULATION) where stepOverCall(): break
            case .internalError(let suberror):
                if let failure = (vcpu as? any SoftwareVCPU)?.failure {
                    return end(.of(failure, vcpu: vcpu.id))
                }
                let why =
                    suberror == CKVM_INTERNAL_ERROR_EMULATION
                    ? "KVM could not execute an instruction (KVM_EXIT_INTERNAL_ERROR, emulation)"
                    : "KVM_EXIT_INTERNAL_ERROR, suberror \(suberror)"
                return end(.crashed(vcpu: vcpu.id, why + place()))
            case .failEntry(let reason):
                return fail("the CPU refused to enter the guest, reason \(hex(reason))")
            case .systemEvent(let type): return fail("KVM_EXIT_SYSTEM_EVENT of type \(type)")
            case .unsupported(let reason):
                return fail("KVM_EXIT reason \(reason), which this monitor does not know")
            case .failed(.resourceTemporarilyUnavailable): return .yielded
            case .failed(.badAddress):
                return end(.failed(.unexplainedFault(vcpu: vcpu.id, rip: try? vcpu.registers().rip)))
            case .failed(let errno):
                return end(
                    .failed(
                        .kernel(
                            call: "KVM_RUN", errno: errno, attempted: "vCPU \(vcpu.id)\(place())", hint: nil))
                )
            }
            callInProgress = nil
        }
    }

    private func end(_ outcome: Outcome) -> Pause {
        machine.stop(outcome)
        return .stopped
    }

    private func fail(_ text: String) -> Pause {
        end(.failed(.unsupportedExit(vcpu: vcpu.id, text + place())))
    }

    /// Where the vCPU stands, for a message.
    private func place() -> String {
        guard let registers = try? vcpu.registers() else { return "" }
        return " (RIP \(hex(registers.rip)), RSP \(hex(registers.rsp)))"
    }

    // MARK: ports

    private static let exitPort: UInt16 = 0xf4
    private static let hypercallPort: UInt16 = 0xe8
    private static let outsidePage = "KVM_EXIT_IO names data outside the kvm_run page"

    private mutating func handle(_ io: ckvm_run_io) -> Pause? {
        statistics.portExits += 1
        if io.direction == CKVM_EXIT_IO_IN {
            guard readPort(io) else { return fail(Self.outsidePage) }
            return machine.isStopping ? .stopped : nil
        }
        if io.port == Self.hypercallPort, io.size == 4, io.count == 1 { return callByPort(io) }
        var status: UInt8?
        let isConsole = Console.ports.contains(io.port) || io.port == Console.debugPort
        let inside: Void? = unsafe page.withIOData(io) { bytes in
            if isConsole {
                for index in bytes.indices where isFirstByte(index, of: io) {
                    unsafe machine.console.write(port: io.port, bytes[index])
                }
            } else if io.port == Self.exitPort {
                status = unsafe bytes.first
            }
        }
        guard inside != nil else { return fail(Self.outsidePage) }
        if trace != nil { traceIO(io) }
        guard let status else { return machine.isStopping ? .stopped : nil }
        trace?.record(.guestExited(status: status), by: actor)
        return end(.exited(status))
    }

    /// A device is one byte wide: of a wider OUT it takes the lowest, and of a string OUT one a transfer.
    private func isFirstByte(_ index: Int, of io: ckvm_run_io) -> Bool {
        io.size <= 1 || index % Int(io.size) == 0
    }

    /// - Returns: false if the kernel names bytes outside the page.
    private func readPort(_ io: ckvm_run_io) -> Bool {
        let isConsole = Console.ports.contains(io.port) || io.port == Console.debugPort
        let inside: Void? = unsafe page.withIOData(io) { bytes in
            for index in bytes.indices {
                // Nobody answers elsewhere: the bus floats high.
                unsafe bytes[index] =
                    isConsole && isFirstByte(index, of: io) ? machine.console.read(port: io.port) : 0xff
            }
        }
        if trace != nil { traceIO(io) }
        return inside != nil
    }

    /// A string instruction may make one exit of many transfers; each is an event.
    private func traceIO(_ io: ckvm_run_io) {
        let size = max(1, Int(io.size))
        _ = unsafe page.withIOData(io) { bytes in
            for start in stride(from: 0, to: bytes.count, by: size) {
                let transfer = unsafe bytes[start..<min(start + size, bytes.count)]
                let value = unsafe transfer.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                trace?.record(
                    io.direction == CKVM_EXIT_IO_IN
                        ? .portIn(port: io.port, size: size, value: value)
                        : .portOut(port: io.port, size: size, value: value), by: actor)
            }
        }
    }

    // MARK: calls

    private mutating func callByPort(_ io: ckvm_run_io) -> Pause? {
        let attempted = "a call of vCPU \(vcpu.id) by port"
        do throws(MachineError) {
            var registers = try calling("KVM_GET_REGS", attempted, vcpu.registers)
            let call = GuestCall(
                number: registers.rax & 0xffff_ffff,
                arguments: (registers.rbx, registers.rcx, registers.rdx))
            let answer = perform(call, byInstruction: false)
            registers.rax = UInt64(bitPattern: answer.result)
            if let word = answer.word { registers.rcx = word }
            try calling("KVM_SET_REGS", attempted) { () throws(Errno) in try vcpu.setRegisters(registers) }
            if machine.isStopping { return .stopped }
            return answer.yields ? .yielded : nil
        } catch {
            return end(.failed(error))
        }
    }

    /// The length of VMMCALL and of VMCALL.
    private static let callLength: UInt64 = 3

    /// On a CPU that does not save the next RIP (CPUID 0x8000000a EDX bit 3; emulated ones mostly), KVM reads the
    /// instruction to know where it ends, which it cannot where the code is private: the answer is in RAX, and
    /// RIP still at the call.
    private func stepOverCall() -> Bool {
        guard let rip = callInProgress, var registers = try? vcpu.registers(), registers.rip == rip else {
            return false
        }
        registers.rip = rip &+ Self.callLength
        do throws(Errno) { try vcpu.setRegisters(registers) } catch { return false }
        trace?.record(.steppedOver(rip: rip), by: actor)
        return true
    }

    private mutating func handle(_ call: ckvm_run_hypercall) {
        let answer = perform(
            GuestCall(number: call.nr, arguments: (call.args.0, call.args.1, call.args.2)),
            byInstruction: true)
        var reply = call
        reply.ret = UInt64(bitPattern: answer.result)
        page.hypercall = reply
    }

    private mutating func perform(_ call: GuestCall, byInstruction: Bool) -> GuestCall.Answer {
        statistics.hypercalls += 1
        let answer = call.perform(on: machine, by: actor, &statistics)
        trace?.record(
            .hypercall(
                number: call.number, call.arguments.0, call.arguments.1, call.arguments.2,
                byInstruction: byInstruction, result: answer.result), by: actor)
        return answer
    }

    // MARK: memory faults

    private mutating func handle(_ fault: MemoryFault, _ errno: Errno) -> Outcome? {
        statistics.memoryFaults += 1
        func fatal(_ outcome: Outcome) -> Outcome {
            trace?.record(.memoryFault(fault, errno, .fatal), by: actor)
            return outcome
        }
        guard errno != .hardwarePoisoned else {
            return fatal(.failed(.poisoned(vcpu: vcpu.id, gpa: fault.gpa)))
        }
        guard fault.unknownFlags == 0 else { return fatal(.failed(.unknownFaultFlags(vcpu: vcpu.id, fault))) }
        guard let range = PageRange.covering(start: fault.gpa, size: max(1, fault.size)),
            range.end <= machine.memory.size
        else {
            return fatal(
                .crashed(
                    vcpu: vcpu.id,
                    "touched \(fault.wants.rawValue) memory at \(hex(fault.gpa)), but RAM ends at "
                        + "\(hex(machine.memory.size))\(place())"))
        }
        if let rip = progress.note(fault, vcpu) {
            return fatal(.faultLoop(vcpu: vcpu.id, fault, faults: progress.faults, rip: rip, loopReason()))
        }
        // With one alias the kernel takes the kind of an access from the page's attribute: no access asks for anything,
        // and what faults has met a conversion on its way. To convert then would undo somebody's work.
        if machine.configuration.aliases == .one || machine.memory.uniformState(of: range) == fault.wants {
            statistics.raceFaults += 1
            trace?.record(.memoryFault(fault, errno, .race), by: actor)
            return nil
        }
        guard machine.configuration.faultPolicy == .convert else {
            trace?.record(.memoryFault(fault, errno, .reenter), by: actor)
            return nil
        }
        trace?.record(.memoryFault(fault, errno, .convert), by: actor)
        let request = ConversionRequest(
            range: range, to: fault.wants, contents: machine.configuration.contents)
        do throws(ConversionError) {
            statistics.count(try machine.converter.convert(request, by: actor))
            return nil
        } catch {
            statistics.count(error)
            // An access cannot be told no; a guest that must hear of it asks by hypercall.
            return .failed(.conversion(error))
        }
    }

    private func loopReason() -> String {
        guard machine.configuration.aliases == .two else {
            return
                "with one door an access never asks for a conversion, and the kernel does not let this one through"
        }
        return machine.configuration.faultPolicy == .reenter
            ? "the monitor was told to enter it again without converting (--on-fault reenter)"
            : "each conversion is undone by the next; one instruction may be touching a page through both doors"
    }
}

/// Notices a vCPU whose memory faults lead nowhere: many in a row, with the same registers each time.
struct ProgressGuard {
    /// Memory faults since the last exit of another kind.
    private(set) var faults = 0
    private var strikes = 0
    private var last: ckvm_regs?

    private static let period = 256
    private static let strikesToStop = 8

    mutating func reset() {
        guard faults != 0 else { return }
        self = ProgressGuard()
    }

    /// - Returns: RIP, once there is no doubt: 2304 faults in a row, the registers the same at every 256th of them.
    mutating func note(_ fault: MemoryFault, _ vcpu: any KVMVCPU) -> UInt64? {
        faults += 1
        guard faults % Self.period == 0, let now = try? vcpu.registers() else { return nil }
        strikes = last.map { $0.isEqual(to: now) } == true ? strikes + 1 : 0
        last = now
        return strikes >= Self.strikesToStop ? now.rip : nil
    }
}

extension ckvm_regs {
    fileprivate func isEqual(to other: ckvm_regs) -> Bool {
        rip == other.rip && rax == other.rax && rbx == other.rbx && rcx == other.rcx && rdx == other.rdx
            && rsi == other.rsi && rdi == other.rdi && rsp == other.rsp && rbp == other.rbp && r8 == other.r8
            && r9 == other.r9 && r10 == other.r10 && r11 == other.r11 && r12 == other.r12 && r13 == other.r13
            && r14 == other.r14 && r15 == other.r15
    }
}

extension RunStatistics {
    mutating func count(_ result: ConversionResult) {
        conversions += 1
        busyAnswers += UInt64(result.busyAnswers)
    }
    mutating func count(_ error: ConversionError) {
        failedConversions += 1
        busyAnswers += UInt64(error.result.busyAnswers)
    }
}
