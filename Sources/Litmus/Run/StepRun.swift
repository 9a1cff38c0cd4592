// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage

/// Why a test ends without a verdict from its steps.
enum Stop: Error {
    /// The backend lacks what the test needs.
    case skip(String)
    /// The test cannot be performed, or not after the outcome of an earlier step.
    case broken(String)
    /// A particular step cannot be performed.
    case brokenStep(Failure)
    /// The host ran out of a resource.
    case host(HostFailure)
}

/// The answer of a step.
struct Observation: Hashable, CustomStringConvertible {
    var outcome: StepOutcome
    /// In the model: the contents are undefined, and a kernel may show any other byte.
    var isAnyByte = false
    /// An effect that is never permitted and that no outcome expresses.
    var oddity: String?
    /// The conversions by the monitor's converter for this step, in order.
    var conversions: [FileConversion] = []

    init(_ outcome: StepOutcome, oddity: String? = nil) {
        self.outcome = outcome
        self.oddity = oddity
    }

    var description: String { "\(outcome)" + (oddity.map { ", and \($0)" } ?? "") }
}

extension Source {
    /// Calls `body`, and adds the place of the step to an error.
    func attempt<R>(_ index: Int, _ step: Step, _ body: () throws(Stop) -> R) throws(Stop) -> R {
        do throws(Stop) {
            return try body()
        } catch {
            guard case .broken(let reason) = error else { throw error }
            throw .brokenStep(
                Failure(.impossible(step, reason: reason), step: index, line: places[index].line))
        }
    }

    /// Performs a whole step.
    ///
    /// - Parameter watcher: called before and after the step.
    /// - Returns: nil if the outcome is an expected one.
    func perform(
        _ index: Int, _ step: Step, _ world: World, isRacing: Bool = false,
        watcher: (@Sendable (RunEvent) -> Void)?, _ result: (StepOutcome) -> Void = { _ in }
    ) throws(Stop) -> Failure? {
        watcher?(.began(.step(index)))
        let began = world.isRecording ? world.backend.now() : 0
        let seen = try attempt(index, step) { () throws(Stop) in try world.perform(step, isRacing: isRacing) }
        if world.isRecording {
            world.record(step, line: places[index].line, seen, began: began)
        }
        watcher?(.ended(.step(index), .outcome(of: step, seen)))
        if let failure = hostFailure(seen, index, step, world) { throw .host(failure) }
        result(seen.outcome)
        return judge(seen, index, step, world.pages)
    }

    /// The failure of a step; nil if the outcome is an expected one.
    func judge(
        _ seen: Observation, _ index: Int, _ step: Step, _ pages: (Step) -> [String]
    ) -> Failure? {
        guard !step.accepts(seen) else { return nil }
        return Failure(
            .step(step, seen: seen.outcome, oddity: seen.oddity), step: index,
            line: places[index].line, pages: pages(step.call(endingWith: seen.outcome)))
    }

    static func verdict(_ stop: Stop) -> Verdict {
        switch stop {
        case .skip(let reason): .skipped(reason)
        case .broken(let reason): .failed(Failure(.machine(reason: reason)))
        case .brokenStep(let failure): .failed(failure)
        case .host(let failure): .hostFailed(failure)
        }
    }

    /// All endings in the model.
    ///
    /// - Parameter model: the configuration, apart from what the test's header sets. The default is the model of Linux
    ///   7.4.
    func explored(
        on model: SoftKVM.Configuration = SoftKVM.Configuration(), _ deadline: TestDeadline,
        mostPieces: Int = Interleavings.mostPieces, findsOrders: Bool = false
    ) throws(Stop) -> Interleavings.Result {
        var interleavings = Interleavings(
            self, on: model.configured(for: test), deadline, mostPieces: mostPieces)
        return try interleavings.explore(findsOrders: findsOrders)
    }
}

extension RunEvent.Result {
    static func outcome(of step: Step, _ seen: Observation) -> Self {
        .outcome(seen.outcome, oddity: seen.oddity, isExpected: step.accepts(seen))
    }
}

extension Step {
    func accepts(_ seen: Observation) -> Bool {
        guard seen.oddity == nil else { return false }
        switch (expectation, seen.outcome) {
        case (.unspecified, .value), (.unspecified, .garbage), (.unspecified, .ok), (.named, _): return true
        // The page is poisoned whether the kernel could release its contents (0) or not (EBUSY).
        case (.unspecified, .errno(Errno.resourceBusy.rawValue, nil)) where action.isPoison: return true
        case (.unspecified, _): return false
        case (.anyOf(let outcomes), let seen): return outcomes.contains { $0.covers(seen) }
        }
    }
}

extension Action {
    /// Whether it makes the memory of a page fail.
    fileprivate var isPoison: Bool { if case .advise(_, .hwPoison) = self { true } else { false } }
}

extension StepOutcome {
    /// `SIGBUS` and `fault` without a place match any place. Everything else must be equal.
    func covers(_ seen: StepOutcome) -> Bool {
        switch (self, seen) {
        case (.sigbus(nil), .sigbus): return true
        case (.fault(let wanted, nil), .fault(let state, _)): return wanted == state
        case (.status(let wanted, nil), .status(let status, _)): return wanted == status
        // EHWPOISON comes with a memory fault, too. Only shared pages can be poisoned.
        case (.fault(.shared, let place), .errno(Errno.hardwarePoisoned.rawValue, let seen)):
            return place == nil || place == seen
        case (.errno(Errno.hardwarePoisoned.rawValue, nil), .errno(Errno.hardwarePoisoned.rawValue, _)):
            return true
        default: break
        }
        return self == seen
    }
}
