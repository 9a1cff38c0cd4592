// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// The run loop of one vCPU: every exit is handled or reported. Belongs to the thread that runs the vCPU.
///
/// With tracing off an exit allocates no memory, and takes no lock except the console's for console output.
struct RunLoop {
    private var exits: ExitLoop
    private var monitor: GuestExitHandler

    var statistics: RunStatistics { monitor.statistics }

    init(machine: Machine, vcpu: any KVMVCPU) {
        exits = ExitLoop(vcpu)
        monitor = GuestExitHandler(machine: machine, vcpu: vcpu)
    }

    enum Pause {
        /// Its time slice is over, or it yielded.
        case yielded
        /// `KVM_EXIT_HLT`; nothing can wake it.
        case halted
        /// The machine is stopping.
        case stopped
    }

    /// Runs the vCPU until it pauses.
    mutating func run() -> Pause { exits.run(&monitor) }
}

/// Handles the exits of a guest's vCPU. Exceptions are in ExceptionReport.swift.
struct GuestExitHandler: ExitHandler {
    typealias Pause = RunLoop.Pause

    let machine: Machine
    let vcpu: any KVMVCPU
    let actor: Actor
    private(set) var statistics = RunStatistics()
    private var progress = ProgressGuard()
    var report = ExceptionReport()
    /// SNP and TDX: the answer to a request of the guest, if that was the last exit.
    private var lastAnswer: GuestCall.Answer?
    let trace: Trace?
    private let observer: (any ExitObserver)?

    init(machine: Machine, vcpu: any KVMVCPU) {
        self.machine = machine
        self.vcpu = vcpu
        actor = .vcpu(vcpu.id)
        trace = machine.trace
        observer = machine.observer
    }

    mutating func left(_ exit: Exit) -> Pause? {
        statistics.exits += 1
        if case .failed = exit {} else { lastAnswer = nil }
        machine.traceGuestPages(by: actor)
        guard let observer, !exit.isInterruption else { return nil }
        observer.left(exit, vcpu, machine)
        return machine.isStopping ? .stopped : nil
    }

    func interrupted() -> Pause? {
        guard machine.isStopping else { return .yielded }
        trace?.record(.kicked, by: actor)
        return .stopped
    }

    /// The observer has seen it, and is asked before the vCPU enters again.
    func debugged() -> Pause? {
        observer == nil ? cannotContinue(.unknownExit(CKVM_EXIT_DEBUG)) : interrupted()
    }

    func halted() -> Pause {
        trace?.record(.halted, by: actor)
        return .halted
    }

    func mmio(_ access: ckvm_run_mmio) -> Pause? {
        let write = access.is_write != 0
        let (gpa, size) = (access.phys_addr, access.len)
        trace?.record(.mmio(gpa: gpa, size: Int(size), write: write), by: actor)
        return crash(
            machine.memory.state(at: gpa) == .private
                ? .unreachableRAM(gpa: gpa, size: size, isWrite: write)
                : .noDevice(gpa: gpa, size: size, isWrite: write))
    }

    func steppedOver(rip: UInt64) {
        trace?.record(.steppedOver(rip: rip), by: actor)
        observer?.steppedOver(vcpu, machine)
    }

    func cannotContinue(_ obstacle: ExitObstacle) -> Pause? {
        switch obstacle {
        case .shutdown: return tripleFault()
        case .internalError(let suberror):
            if let failure = (vcpu as? any SoftwareVCPU)?.failure { return end(.of(failure, vcpu: vcpu.id)) }
            return crash(suberror == CKVM_INTERNAL_ERROR_EMULATION ? .emulation : .internalError(suberror))
        case .failEntry(let reason): return fail(.failEntry(reason))
        // KVM_SYSTEM_EVENT_SEV_TERM and KVM_SYSTEM_EVENT_TDX_FATAL.
        case .systemEvent(6), .systemEvent(7): return crash(.terminated(vcpu.runPage.systemEventType))
        case .systemEvent(let type): return fail(.systemEvent(type))
        case .unknownExit(let reason): return fail(.unknown(reason))
        case .ioOutsideRunPage: return fail(.ioOutsideRunPage)
        case .runFailed(.resourceTemporarilyUnavailable): return .yielded
        case .runFailed(.ioError) where machine.configuration.vmType.isConfidential: return crash(.deadVM)
        case .runFailed(.badAddress):
            return end(.failed(.unexplainedFault(vcpu: vcpu.id, rip: place?.rip)))
        case .runFailed(.invalidArgument) where lastAnswer != nil:
            return end(.failed(.wrongAnswer(vcpu: vcpu.id, lastAnswer?.result ?? 0)))
        case .runFailed(let errno):
            return fail("KVM_RUN", errno, "vCPU \(vcpu.id)" + (place.map { " (\($0))" } ?? ""))
        case .registers(let call, let errno): return fail(call, errno, "vCPU \(vcpu.id)'s call by port")
        }
    }

    func end(_ outcome: Outcome) -> Pause {
        if let observer, !observer.ends(outcome, vcpu, machine) { return .yielded }
        machine.stop(outcome)
        return .stopped
    }

    private func fail(_ call: String, _ errno: Errno, _ attempted: String) -> Pause {
        end(.failed(.backend(call: call, errno: errno, attempted: attempted, hint: nil)))
    }

    func crash(_ cause: Crash.Cause) -> Pause {
        end(.crashed(vcpu: vcpu.id, Crash(cause, at: place)))
    }

    private func fail(_ kind: UnhandledExit.Kind) -> Pause {
        end(.failed(.unhandledExit(vcpu: vcpu.id, UnhandledExit(kind, at: place))))
    }

    /// The vCPU's position; nil if its registers cannot be read.
    private var place: VCPUPlace? {
        (try? vcpu.registers()).map { VCPUPlace(rip: $0.rip, rsp: $0.rsp) }
    }

    // MARK: ports

    private static let exitPort: UInt16 = 0xf4

    mutating func port(_ io: ckvm_run_io, _ bytes: UnsafeMutableRawBufferPointer) -> Pause? {
        statistics.portExits += 1
        progress.reset()
        let isConsole = Console.ports.contains(io.port) || io.port == Console.debugPort
        var status: UInt8?
        if io.direction == CKVM_EXIT_IO_IN {
            for index in bytes.indices {
                // No device answers elsewhere: the bus floats high.
                unsafe bytes[index] =
                    isConsole && isFirstByte(index, of: io) ? machine.console.read(port: io.port) : 0xff
            }
        } else if isConsole {
            for index in bytes.indices where isFirstByte(index, of: io) {
                unsafe machine.console.write(port: io.port, bytes[index])
            }
        } else if io.port == Self.exitPort {
            status = unsafe bytes.first
        } else if io.port == ExceptionTable.port, io.size == 1, let table = machine.layout.exceptions,
            let byte = unsafe bytes.first, let pause = exception(byte, table)
        {
            return pause == .yielded ? nil : pause
        } else if io.port == CallPage.port, io.size == 4, io.count == 1 {
            let number = unsafe bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            callByPage(number)
        } else if io.port == FirmwareTrap.port, let call = FirmwareTrap.call(vcpu) {
            guard let byte = call.teletype else { return crash(.firmwareCall(call.vector, ax: call.ax)) }
            machine.console.write(port: Console.debugPort, byte)
        }
        if trace != nil { unsafe traceIO(io, bytes) }
        guard let status else { return machine.isStopping ? .stopped : nil }
        trace?.record(.guestExited(status: status), by: actor)
        return end(.exited(status))
    }

    /// A device is one byte wide: it gets the lowest byte of a wider OUT, and one byte per transfer of a string OUT.
    private func isFirstByte(_ index: Int, of io: ckvm_run_io) -> Bool {
        io.size <= 1 || index % Int(io.size) == 0
    }

    /// One exit of a string instruction may have many transfers; each is an event.
    private func traceIO(_ io: ckvm_run_io, _ bytes: UnsafeMutableRawBufferPointer) {
        let size = max(1, Int(io.size))
        for start in stride(from: 0, to: bytes.count, by: size) {
            var value: UInt64 = 0
            for place in (start..<min(start + size, bytes.count)).reversed() {
                value = unsafe value << 8 | UInt64(bytes[place])
            }
            trace?.record(
                io.direction == CKVM_EXIT_IO_IN
                    ? .portIn(port: io.port, size: size, value: value)
                    : .portOut(port: io.port, size: size, value: value), by: actor)
        }
    }

    // MARK: calls

    /// A guest whose registers the monitor cannot see calls with its arguments in a shared page.
    private mutating func callByPage(_ number: UInt64) {
        guard let page = CallPage(number: number, in: machine.memory) else { return }
        let (answer, _) = call(page.call, byInstruction: false)
        page.answer(answer, in: machine.memory)
    }

    mutating func call(
        _ call: GuestCall, byInstruction: Bool
    ) -> (answer: GuestCall.Answer, end: Pause?) {
        progress.reset()
        statistics.hypercalls += 1
        if !byInstruction { statistics.portExits += 1 }
        let answer = call.perform(on: machine, by: actor, &statistics)
        machine.traceGuestPages(by: actor)
        trace?.record(
            .hypercall(
                number: call.number, call.arguments.0, call.arguments.1, call.arguments.2,
                byInstruction: byInstruction, result: answer.result), by: actor)
        guard !byInstruction else {
            guard machine.configuration.vmType.isConfidential else { return (answer, nil) }
            lastAnswer = answer.ofConfidentialGuest
            return (answer.ofConfidentialGuest, nil)
        }
        return (answer, machine.isStopping ? .stopped : answer.yields ? .yielded : nil)
    }

    // MARK: memory faults

    mutating func memoryFault(_ fault: MemoryFault, _ errno: Errno) -> Pause? {
        defer { machine.traceGuestPages(by: actor) }
        if let outcome = handle(fault, errno) { return end(outcome) }
        trace?.record(.resumed(gpa: fault.gpa), by: actor)
        return nil
    }

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
                    vcpu: vcpu.id, Crash(.outsideRAM(fault, ramSize: machine.memory.size), at: place)))
        }
        if let rip = progress.note(fault, vcpu) {
            return fatal(.faultLoop(vcpu: vcpu.id, fault, faults: progress.faults, rip: rip, loopReason))
        }
        guard
            fault.asksForConversion(
                machine.configuration.aliases, known: machine.memory.uniformState(of: range))
        else {
            statistics.raceFaults += 1
            trace?.record(.memoryFault(fault, errno, .race), by: actor)
            return nil
        }
        if machine.configuration.faultPolicy == .refuse {
            return fatal(.crashed(vcpu: vcpu.id, Crash(.strayAccess(fault), at: place)))
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
            // An access cannot get an errno; a guest that needs one converts by hypercall.
            return .failed(.conversion(error))
        }
    }

    private var loopReason: FaultLoopReason {
        guard machine.configuration.aliases == .two else { return .oneAlias }
        return machine.configuration.faultPolicy == .reenter ? .notConverted : .undone
    }
}

/// Detects a vCPU whose memory faults make no progress: many in a row, with the same registers each time.
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

    /// - Returns: RIP after 2304 faults in a row with the same registers at every 256th of them; nil before.
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
