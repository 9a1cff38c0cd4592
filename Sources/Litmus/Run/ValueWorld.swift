import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage

// The machine of a test on a kernel that is a value: its state can be saved and restored, and the model says what comes of a
// vCPU's steps.

/// A vCPU without a CPU.
struct SaidVCPU: Hashable {
    /// It stands before an access that it cannot finish.
    var isStuck = false
    /// The last access that it did not finish.
    var pending: String?
}

extension LitmusTest {
    /// The model alone can say what comes of every step: no step needs an instruction to be executed, and no rule that only
    /// shows in an exit is broken.
    ///
    /// - Parameter countsMatter: what `zapped` answers is looked at. A count of pages has those of the guest that acts.
    func isSayable(on facts: KernelFacts, isModel: Bool, countsMatter: Bool = true) -> Bool {
        guard facts.soft != nil, !hasTwoDoors else { return false }
        let isSaid = steps.allSatisfy { step in
            guard case .vcpu = step.role else { return true }
            switch step.action {
            case .again, .clock: return false
            default: return isModel && !facts.isFaulty
            }
        }
        return isSaid && !(countsMatter && countsTheGuest)
    }

    /// The pages of the guest that acts come or go between two counts: on a default VM they go with any memslot, and a vCPU
    /// that has not made an access brings them with its first hypercall.
    private var countsTheGuest: Bool {
        let counts = steps.contains { if case .zapped = $0.action { true } else { false } }
        let brings = steps.contains { step in
            switch step.action {
            case .hypercall, .preFault: true
            default: false
            }
        }
        return counts && (vm == .default || brings)
    }
}

extension World {
    /// All of a machine's state.
    struct Saved {
        fileprivate let kernel: KernelModel
        fileprivate let state: State
    }

    /// Of a kernel that is a value; nil on any other.
    func save() -> Saved? {
        guard isValue, let soft = facts.soft else { return nil }
        return Saved(kernel: soft.value, state: state.withLock { $0 })
    }

    /// The machine is again what it was.
    func restore(_ saved: Saved) {
        facts.soft?.value = saved.kernel
        state.withLock { $0 = saved.state }
    }

    // MARK: vCPUs

    /// What comes of a vCPU's step, by the model.
    func say(_ action: Action, _ number: Int) throws(Stop) -> Observation {
        guard let vm = try vm(nil) as? SoftVM else { throw .broken("a vCPU does not \(action)") }
        let isStuck = state.withLock { $0.said[number]?.isStuck == true }
        if case .hypercall(let extent, let attributes) = action {
            let call = try Agent.Call(extent, attributes)
            guard !isStuck else { throw Agent.isStuck(number) }
            guard let (errno, page) = try mapGPARange(call) else { return Observation(.ok) }
            return Observation(.errno(errno.rawValue, at: page))
        }
        defer { state.withLock { $0.mappedPages = vm.countPages4K() } }
        switch action {
        case .preFault(let extent):
            guard let range = PageRange(start: extent.offset, size: extent.size) else {
                return Observation(.errno(Errno.invalidArgument.rawValue))
            }
            for page in range.chunks(of: pageSize) {
                let isPrivate = vm.isTakenForPrivate(at: page.start)
                guard let failure = vm.preFaultPage(at: page.start, asPrivate: isPrivate) else { continue }
                // A part that was done is a success.
                return Observation(page.start == range.start ? .errno(failure.rawValue) : .ok)
            }
            return Observation(.ok)
        default: break
        }
        guard let extent = action.extent else { throw .broken("a vCPU does not \(action)") }
        try Agent.check(extent)
        guard !isStuck else { throw Agent.isStuck(number) }
        let (outcome, stops) = try sayAccess(extent, action, vm)
        state.withLock { state in
            var vcpu = state.said[number] ?? SaidVCPU()
            vcpu.isStuck = stops
            if action.isSingle { vcpu.pending = "\(action)" }
            state.said[number] = vcpu
        }
        return Observation(outcome)
    }

    /// - Returns: the outcome, and whether the vCPU stands before an access that it has not finished.
    private func sayAccess(
        _ extent: Extent, _ action: Action, _ vm: SoftVM
    ) throws(Stop) -> (StepOutcome, stops: Bool) {
        guard extent.size <= Agent.mostBytes else {
            throw .skip("a vCPU touches at most \(Agent.mostBytes / pageSize) pages in a step")
        }
        var isMMIO = false
        var answer = StepOutcome.ok
        // What stops a step first is what it comes to.
        func stop(_ outcome: StepOutcome) -> (StepOutcome, stops: Bool) { (isMMIO ? .mmio : outcome, true) }
        for offset in extent.offset..<extent.offset + extent.size {
            switch vm.access(offset, writing: action.byteWritten) {
            case .byte(let read):
                switch action {
                case .read: answer = .value(read)
                case .check(_, let byte) where byte != read && answer == .ok: answer = .differs(at: offset)
                default: break
                }
            case .mmio: isMMIO = true
            case .fault(let fault): return stop(.fault(fault.wants, at: fault.gpa))
            case .poisoned(let fault): return stop(.errno(Errno.hardwarePoisoned.rawValue, at: fault.gpa))
            case .noPage: return stop(.errno(Errno.badAddress.rawValue))
            }
        }
        return (isMMIO ? .mmio : answer, false)
    }
}

extension Action {
    fileprivate var byteWritten: UInt8? {
        switch self {
        case .write(_, let byte), .fill(_, let byte): byte
        default: nil
        }
    }
}
