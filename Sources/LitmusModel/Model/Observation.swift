// SPDX-License-Identifier: MIT
import ConversionModel

/// Why a test ends without a verdict from its steps.
package enum Stop: Error {
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
package struct Observation: Hashable, CustomStringConvertible {
    package var outcome: StepOutcome
    /// In the model: the contents are undefined, and a kernel may show any other byte.
    package var isAnyByte = false
    /// An effect that is never permitted and that no outcome expresses.
    package var oddity: String?
    /// The conversions by the monitor's converter for this step, in order.
    package var conversions: [FileConversion] = []

    package init(_ outcome: StepOutcome, oddity: String? = nil) {
        self.outcome = outcome
        self.oddity = oddity
    }

    package var description: String { "\(outcome)" + (oddity.map { ", and \($0)" } ?? "") }
}

extension Step {
    package func accepts(_ seen: Observation) -> Bool {
        guard seen.oddity == nil else { return false }
        switch (expectation, seen.outcome) {
        case (.unspecified, .value), (.unspecified, .garbage), (.unspecified, .ok), (.named, _): return true
        // The page is poisoned whether the kernel could release its contents (0) or not (EBUSY).
        case (.unspecified, .errno(ErrorNumber.resourceBusy.rawValue, nil)) where action.isPoison: return true
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
    package func covers(_ seen: StepOutcome) -> Bool {
        switch (self, seen) {
        case (.sigbus(nil), .sigbus): return true
        case (.fault(let wanted, nil), .fault(let state, _)): return wanted == state
        case (.status(let wanted, nil), .status(let status, _)): return wanted == status
        // EHWPOISON comes with a memory fault, too. Only shared pages can be poisoned.
        case (.fault(.shared, let place), .errno(ErrorNumber.hardwarePoisoned.rawValue, let seen)):
            return place == nil || place == seen
        case (
            .errno(ErrorNumber.hardwarePoisoned.rawValue, nil),
            .errno(ErrorNumber.hardwarePoisoned.rawValue, _)
        ):
            return true
        default: break
        }
        return self == seen
    }
}

extension Source {
    /// Calls `body`, and adds the place of the step to an error.
    package func attempt<R>(_ index: Int, _ step: Step, _ body: () throws(Stop) -> R) throws(Stop) -> R {
        do throws(Stop) {
            return try body()
        } catch {
            guard case .broken(let reason) = error else { throw error }
            throw .brokenStep(
                Failure(.impossible(step, reason: reason), step: index, line: places[index].line))
        }
    }

    /// The failure of a step; nil if the outcome is an expected one.
    package func judge(
        _ seen: Observation, _ index: Int, _ step: Step, _ pages: (Step) -> [String]
    ) -> Failure? {
        guard !step.accepts(seen) else { return nil }
        return Failure(
            .step(step, seen: seen.outcome, oddity: seen.oddity), step: index,
            line: places[index].line, pages: pages(step.call(endingWith: seen.outcome)))
    }
}
