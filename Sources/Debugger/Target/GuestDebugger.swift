// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// The run loop's side of the debugger: holds the vCPUs of a machine back until a client lets them go, and stops all of
/// them when one has a reason (all-stop).
///
/// Three kinds of threads meet here. A vCPU's thread calls the ``ExitObserver`` methods and waits in them while the guest
/// stands still. The server's thread calls the ``DebugTarget`` methods; as long as no vCPU is inside, the vCPUs, their registers and
/// the breakpoints belong to it. The machine's thread calls ``start(_:_:)`` and ``finish(_:)``. ``RunState`` is behind the lock.
package final class GuestDebugger: ExitObserver {
    private let run: ConditionLock<RunState?> = ConditionLock(nil)
    /// Set once, by ``start(_:_:)``.
    private let parts = Mutex<Parts?>(nil)
    /// Signalled when the guest may have stopped.
    private let wake: EventDescriptor
    let breakpoints = Mutex(BreakpointState())
    let explanation = Mutex(Explanation())

    struct Parts {
        let machine: Machine
        let server: DebugServer
    }

    /// Breakpoints. Owned by the server's thread, except that a vCPU's thread looks up what it has reached.
    struct BreakpointState {
        var set: [Breakpoint] = []
        var plan: BreakpointPlan?
        var patches = CodePatches()
        /// The abilities of this backend's debug registers; nil until the first breakpoint.
        var facts: DebugFacts?
        /// The bytes at the watchpoints of the plan that are compared, when they were looked at last.
        var bytes: [Breakpoint: [UInt8]] = [:]
        /// The last setting of each vCPU.
        var applied: [Int: ckvm_guest_debug] = [:]
    }

    /// The facts for `monitor why`.
    struct Explanation {
        var fault: (vcpu: Int, fault: MemoryFault, state: PageState?, rip: UInt64?)?
        var ending: (text: String, signal: DebugSignal)?
        var error: DebugError?
        /// `monitor faults stop`: a memory fault stops the guest once the monitor has handled it.
        var stopsAtFaults = false
    }

    /// - Throws: `EMFILE`, `ENFILE` or `ENOMEM` if the host has no descriptor or memory left.
    package init() throws(Errno) { wake = try EventDescriptor() }

    /// Starts to serve on the listener. Call this before the machine runs.
    ///
    /// - Throws: `EAGAIN` if the system cannot create another thread.
    package func start(_ machine: Machine, _ listener: DebugListener) throws(Errno) {
        let server = DebugServer(listener, self, wake: wake)
        run.withLock { $0 = RunState(vcpus: machine.vcpus.count) }
        parts.withLock { $0 = Parts(machine: machine, server: server) }
        try server.start()
    }

    /// Tells a waiting client how the guest has ended, and closes everything. Call this when the machine has run.
    package func finish(_ outcome: Outcome) {
        let parts = parts.withLock { parts in
            defer { parts = nil }
            return parts
        }
        // A crash ends with the signal that it stopped with.
        let signal = explanation.withLock { $0.ending?.signal }
        let isCrash = DebugSignal(ofCrash: outcome, codeAtRIP: { [] }) != nil
        parts?.server.finish(isCrash ? .signalled(signal ?? .segmentationFault) : DebugEnding(outcome))
    }

    var machine: Machine? { parts.withLock { $0?.machine } }

    /// Threads of the machine are the vCPUs', or one for all of them.
    private func key(_ vcpu: Int, _ machine: Machine) -> Int { machine.backend.runsVCPUsInTurns ? 0 : vcpu }

    /// Changes the state, kicks the vCPUs if it says so, and wakes the server if the guest has stopped.
    func change(_ body: (inout RunState) -> Bool) {
        let machine = machine
        let hasStopped = run.withLock { state -> Bool in
            guard var now = state else { return false }
            // Under the lock, so that a vCPU that enters later is not kicked any more.
            if body(&now), let machine { for vcpu in machine.vcpus { vcpu.kick() } }
            state = now
            return now.hasStopped
        }
        if hasStopped { wake.signal() }
    }

    func read<R>(_ body: (RunState) -> R) -> R? { run.read { $0.map(body) } }

    // MARK: vCPU threads

    package func mayEnter(_ vcpu: any KVMVCPU, _ machine: Machine) -> Bool {
        let (id, key) = (vcpu.id, key(vcpu.id, machine))
        let skips = machine.backend.runsVCPUsInTurns
        change { state in
            state.leave(key)
            return false
        }
        let enters = run.wait { state -> Bool? in
            guard var now = state else { return true }
            let entry = now.enter(id, key: key, skips: skips)
            state = now
            switch entry {
            case nil: return nil
            case .enter?:
                vcpu.runPage.clearImmediateExit()
                return true
            case .skip?, .end?: return false
            }
        }
        // KVM keeps the trap flag for the RIP at which it was asked to step, and so must be asked before each step.
        let request = breakpoints.withLock { $0.applied[id] }
        if enters, let request, request.control & CKVM_GUESTDBG_SINGLESTEP != 0 {
            try? vcpu.setGuestDebug(request)
        }
        return enters
    }

    package func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine) {
        switch exit {
        case .debug(let debug):
            guard let stop = reason(debug, vcpu, machine) else { return }
            change { $0.add(stop) }
        case .halt: change { $0.halt(vcpu.id) }
        case .memoryFault(let fault, _):
            let (state, rip) = (machine.memory.state(at: fault.gpa), try? vcpu.registers().rip)
            let stops = explanation.withLock { explanation in
                explanation.fault = (vcpu.id, fault, state, rip)
                return explanation.stopsAtFaults
            }
            // The kick takes effect when the monitor has handled the fault and enters again.
            if stops { change { $0.add(RunState.Stop(vcpu: vcpu.id, signal: .trap, kind: .plain)) } }
        default: break
        }
    }

    /// KVM drops the trap flag when RIP is set, so that this is the step, and the next one must be asked for again.
    package func steppedOver(_ vcpu: any KVMVCPU, _ machine: Machine) {
        guard let request = breakpoints.withLock({ $0.applied[vcpu.id] }),
            request.control & CKVM_GUESTDBG_SINGLESTEP != 0, let registers = try? vcpu.registers(),
            let special = try? vcpu.specialRegisters()
        else { return }
        try? vcpu.setGuestDebug(request)
        let base = special.efer & 1 << 10 != 0 && special.cs.l != 0 ? 0 : special.cs.base
        let step = ckvm_run_debug(
            exception: 1, pad: 0, pc: base &+ registers.rip, dr6: 1 << 14, dr7: request.debugreg.7)
        // The kick takes effect when the monitor enters again.
        if let stop = reason(step, vcpu, machine) { change { $0.add(stop) } }
    }

    /// The meaning of a `KVM_EXIT_DEBUG`.
    ///
    /// - Returns: nil if the guest goes on.
    private func reason(_ debug: ckvm_run_debug, _ vcpu: any KVMVCPU, _ machine: Machine) -> RunState.Stop? {
        func stop(_ kind: StopReason.Kind) -> RunState.Stop {
            RunState.Stop(vcpu: vcpu.id, signal: .trap, kind: kind)
        }
        let isStep = read { if case .step? = $0.action(of: vcpu.id) { true } else { false } } ?? true
        return breakpoints.withLock { breakpoints in
            if debug.exception == 3 {
                guard breakpoints.patches.contains(debug.pc) else {
                    // An INT3 of the guest itself. On hardware RIP is after it.
                    if var registers = try? vcpu.registers(), registers.rip == debug.pc {
                        registers.rip &+= 1
                        try? vcpu.setRegisters(registers)
                    }
                    return stop(.plain)
                }
                return stop(.softwareBreakpoint)
            }
            let registers = breakpoints.plan?.registers ?? []
            let hits = registers.indices.filter { debug.dr6 & 1 << UInt64($0) != 0 }.map { registers[$0] }
            if let watched = hits.first(where: \.kind.isWatchpoint) {
                return stop(.watchpoint(watched.kind, watched.address))
            }
            if let reached = hits.first(where: { $0.address == debug.pc }) {
                return stop(reached.kind == .software ? .softwareBreakpoint : .hardwareBreakpoint)
            }
            guard let compared = breakpoints.plan?.compared, !compared.isEmpty else { return stop(.plain) }
            if let reached = compared.first(where: { !$0.kind.isWatchpoint && $0.address == debug.pc }) {
                return stop(reached.kind == .software ? .softwareBreakpoint : .hardwareBreakpoint)
            }
            if let changed = breakpoints.noteChange(seenBy: vcpu, machine) {
                return stop(.watchpoint(.write, changed))
            }
            return isStep ? stop(.plain) : nil
        }
    }

    package func ends(_ outcome: Outcome, _ vcpu: any KVMVCPU, _ machine: Machine) -> Bool {
        if isOwnBreakpoint(outcome, vcpu) {
            change { $0.add(RunState.Stop(vcpu: vcpu.id, signal: .trap, kind: .softwareBreakpoint)) }
            return false
        }
        guard let signal = DebugSignal(ofCrash: outcome, codeAtRIP: { self.code(at: vcpu, machine) }) else {
            return true
        }
        explanation.withLock { $0.ending = (outcome.description, signal) }
        let key = key(vcpu.id, machine)
        change { state in
            let kicks = state.add(
                RunState.Stop(vcpu: vcpu.id, signal: signal, kind: .plain, endsGuest: true))
            state.leave(key)
            return kicks
        }
        run.wait { state in state?.mayEnd(vcpu.id) == false ? nil : () }
        return true
    }

    /// Whether a KVM that interprets the guest could not execute an INT3 of the debugger.
    private func isOwnBreakpoint(_ outcome: Outcome, _ vcpu: any KVMVCPU) -> Bool {
        guard case .crashed(_, let crash) = outcome, case .emulation = crash.cause, let place = crash.place
        else {
            return false
        }
        return breakpoints.withLock { $0.patches.contains(place.rip) }
    }

    private func code(at vcpu: any KVMVCPU, _ machine: Machine) -> [UInt8] {
        let view = GuestView(machine)
        guard let registers = try? vcpu.registers(), let special = try? vcpu.specialRegisters(),
            let physical = try? view.translate(registers.rip, special)
        else { return [] }
        return (try? view.read(physical: physical, count: Int(min(2, pageSize - physical % pageSize)))) ?? []
    }

    package func threadEnded(_ vcpus: [any KVMVCPU], _ machine: Machine) {
        guard let first = vcpus.first else { return }
        let key = key(first.id, machine)
        change { state in
            state.leave(key)
            return false
        }
        // The machine ends when its last thread has, and a stopped guest must not.
        run.wait { state in state?.mode == .stopped ? nil : () }
    }

    package func stopping() {
        change { state in
            state.end()
            return false
        }
    }
}

extension DebugSignal {
    /// The signal that tells a debugger of a crash. Nil for an ending that is none.
    ///
    /// - Parameter code: the bytes at RIP, as many as can be read. They tell INT3 and an undefined instruction from other
    ///   exceptions, which KVM does not report.
    init?(ofCrash outcome: Outcome, codeAtRIP code: () -> [UInt8]) {
        switch outcome {
        case .exited, .halted, .timeLimit, .interrupted, .quit: return nil
        case .failed: self = .abort
        case .faultLoop: self = .segmentationFault
        case .crashed(_, let crash):
            switch crash.cause {
            case .exception(let unhandled), .tripleFault(.of(let unhandled)):
                self.init(unhandled.exception)
                return
            case .tripleFault, .emulation: break
            default:
                self = .segmentationFault
                return
            }
            let bytes = code()
            switch (bytes.first, bytes.dropFirst().first) {
            case (0xcc, _): self = .trap
            case (0x0f, 0x0b), (0x0f, 0xff), (0x0f, 0xb9): self = .illegalInstruction
            default: self = .segmentationFault
            }
        }
    }
}

extension DebugSignal {
    /// The signal that Linux sends to a process for this exception.
    fileprivate init(_ exception: CPUException) {
        self =
            switch exception.vector {
            case CPUException.divideError, 16, 19: .arithmetic
            case 1, CPUException.breakpoint: .trap
            case CPUException.invalidOpcode: .illegalInstruction
            default: .segmentationFault
            }
    }
}

extension DebugEnding {
    package init(_ outcome: Outcome) {
        switch outcome {
        case .exited(let status): self = .exited(status)
        case .halted: self = .exited(0)
        case .crashed, .faultLoop: self = .signalled(.segmentationFault)
        case .timeLimit: self = .signalled(.alarm)
        case .quit: self = .signalled(.interrupt)
        case .interrupted(let signal):
            self = .signalled(UInt8(exactly: signal).flatMap { DebugSignal(rawValue: $0) } ?? .terminate)
        case .failed: self = .signalled(.abort)
        }
    }
}
