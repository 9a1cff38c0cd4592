// SPDX-License-Identifier: MIT
import ConversionModel

/// An event of a running test, reported to ``Runner/Options/watcher``.
///
/// A part that has begun and does not end is the one in progress, or the one in which the test ended without an outcome.
public enum RunEvent: Sendable, Hashable {
    /// A part of a test's run. Steps have their index in ``LitmusTest/steps``.
    public enum Part: Sendable, Hashable {
        /// A step outside of parallel blocks.
        case step(Int)
        /// A parallel block, by its first step, in the first run. `runs` is the number of runs that the test is to have; nil
        /// if that is not known, as in a sweep.
        case block(first: Int, runs: Int?)
        /// All runs after the first. Their steps are not reported. `runs` is as in ``block(first:runs:)``.
        case furtherRuns(runs: Int?)
        /// The exhaustive exploration from a parallel block, named by its first step, to the end of the test.
        case exploration(first: Int)
        /// A run in which an allocation fails. Its steps are not reported.
        case allocation(FailurePoint)
    }

    /// How a part ended.
    public enum Result: Sendable, Hashable {
        /// A step outside of parallel blocks: its outcome, in words an effect that is never permitted (nil if there is
        /// none), and whether the test expects that.
        case outcome(StepOutcome, oddity: String?, isExpected: Bool)
        /// A parallel block in one run: its named results, and whether the test's clauses allow them.
        case results([Failure.NamedOutcome], isAllowed: Bool)
        /// The number of all completed runs, with the first.
        case runs(Int)
        /// An exploration: the number of different machine states, and whether every interleaving was explored.
        case states(Int, isComplete: Bool)
        /// A run in which an allocation failed: the outcome of the step (nil if a call that prepares it failed), and
        /// whether it and everything after it were right.
        case answer(StepOutcome?, isRight: Bool)
        /// No allocation failed, because the step makes fewer.
        case unused
    }

    /// A part is about to begin. Nothing of it has been done.
    case began(Part)
    /// A part has ended with a result.
    case ended(Part, Result)
    /// The test did not pass on a machine that an earlier test had used, and begins again on a new one, which decides.
    case beganAgain
}

extension RunEvent.Result {
    package static func outcome(of step: Step, _ seen: Observation) -> Self {
        .outcome(seen.outcome, oddity: seen.oddity, isExpected: step.accepts(seen))
    }
}
