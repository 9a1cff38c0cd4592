// SPDX-License-Identifier: MIT
/// Which vCPUs run, and why the guest has stopped. A value without a lock: ``GuestDebugger`` guards it.
///
/// vCPUs run on host threads, named by keys: each on its own, or all on one if the backend runs them in turns. The guest has
/// stopped when the mode says so and no thread is inside.
struct RunState {
    enum Mode {
        case stopped
        case running
        /// Without a debugger, and without breakpoints.
        case detached
        /// The machine is ending, whatever the debugger wants.
        case ending
    }
    /// A reason to stop, with the vCPU that had it.
    struct Stop: Equatable {
        let vcpu: Int
        let signal: DebugSignal
        let kind: StopReason.Kind
        /// Whether the vCPU's thread waits for this stop to be reported: the guest ends after it.
        var endsGuest = false
    }

    private(set) var mode = Mode.stopped
    private var actions: [ResumeAction?]
    private var halted: Set<Int> = []
    /// Keys of the threads that may be in the kernel.
    private var inside: Set<Int> = []
    /// The first one is reported next.
    private var stops: [Stop] = []
    /// Whether the server has to report a stop, even without one in `stops`.
    private var owesReport = false
    private var lastVCPU = 0
    private var endingReported: Set<Int> = []

    init(vcpus: Int) { actions = Array(repeating: nil, count: vcpus) }

    var hasStopped: Bool { mode == .stopped && inside.isEmpty }
    func isHalted(_ vcpu: Int) -> Bool { halted.contains(vcpu) }

    // MARK: the server's thread

    /// - Returns: false if all of these vCPUs have halted.
    mutating func resume(_ chosen: [ResumeAction?]) -> Bool {
        let canRun = chosen.indices.contains { chosen[$0] != nil && !halted.contains($0) }
        // The machine may have begun to end while the client was thinking.
        guard mode != .ending else { return true }
        // A guest that has halted entirely ends when it goes on.
        guard canRun || !stops.isEmpty || halted.count == actions.count || !endingReported.isEmpty else {
            return false
        }
        actions = chosen
        owesReport = true
        // Stops of other vCPUs in the meantime are reported first.
        if stops.isEmpty { mode = .running }
        return true
    }

    mutating func detach() {
        guard mode != .ending else { return }
        stops = []
        endingReported = Set(actions.indices)
        owesReport = false
        mode = .detached
    }

    /// - Returns: whether the vCPUs must be kicked.
    mutating func interrupt() -> Bool {
        owesReport = true
        guard mode == .running || mode == .detached else { return false }
        mode = .stopped
        return true
    }

    mutating func takeStop() -> Stop? {
        guard hasStopped, owesReport else { return nil }
        owesReport = false
        let stop = stops.isEmpty ? nil : stops.removeFirst()
        if let stop {
            lastVCPU = stop.vcpu
            if stop.endsGuest { endingReported.insert(stop.vcpu) }
            // A breakpoint is reached again if it is still there; a finished step has nothing to tell any more.
            stops.removeAll { !$0.endsGuest && $0.kind == .plain }
            stops.removeAll { $0.kind == .softwareBreakpoint || $0.kind == .hardwareBreakpoint }
        }
        return stop ?? Stop(vcpu: lastVCPU, signal: .interrupt, kind: .plain)
    }

    // MARK: the vCPUs' threads

    enum Entry { case enter, skip, end }

    /// The thread is out of the kernel, and wants in with this vCPU.
    ///
    /// - Parameter skips: whether a vCPU that must not run is left out, and its thread runs another one.
    /// - Returns: nil to wait.
    mutating func enter(_ vcpu: Int, key: Int, skips: Bool) -> Entry? {
        inside.remove(key)
        switch mode {
        case .ending: return .end
        case .stopped: return nil
        case .detached: break
        case .running:
            if actions[vcpu] == nil { return skips ? .skip : nil }
        }
        inside.insert(key)
        return .enter
    }

    /// - Returns: whether the other vCPUs must be kicked.
    mutating func add(_ stop: Stop) -> Bool {
        guard mode == .running || mode == .stopped else { return false }
        stops.append(stop)
        defer { mode = .stopped }
        return mode == .running
    }

    func action(of vcpu: Int) -> ResumeAction? { mode == .running || mode == .stopped ? actions[vcpu] : nil }

    /// The vCPU has halted for good.
    ///
    /// - Returns: whether the others must be kicked.
    mutating func halt(_ vcpu: Int) -> Bool {
        halted.insert(vcpu)
        guard mode == .running else { return false }
        let canRun = actions.indices.contains { actions[$0] != nil && !halted.contains($0) }
        let isStep = if case .step? = actions[vcpu] { true } else { false }
        guard isStep || !canRun && halted.count < actions.count else { return false }
        return add(Stop(vcpu: vcpu, signal: .trap, kind: .plain))
    }

    mutating func leave(_ key: Int) { inside.remove(key) }

    /// Whether the guest may end in the way in which this vCPU ends it: the stop has been reported, and the debugger has let
    /// it go on.
    func mayEnd(_ vcpu: Int) -> Bool {
        switch mode {
        case .ending, .detached: true
        case .stopped: false
        case .running: endingReported.contains(vcpu)
        }
    }

    mutating func end() { mode = .ending }
}
