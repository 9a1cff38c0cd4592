// SPDX-License-Identifier: MIT
import ConversionModel

/// The result of a test.
public enum Verdict: Sendable, Hashable {
    /// Every step ended as expected, and no outcome was forbidden.
    case passed
    /// A step or an outcome deviates. No step is performed after one that has failed.
    case failed(Failure)
    /// This kernel or this runner cannot judge the test, for this reason.
    case skipped(String)
    /// No result: the host ran out of a resource.
    case hostFailed(HostFailure)
}

/// A verdict, and for each parallel block the outcomes that were seen.
public struct Report: Sendable, Equatable {
    /// The result of the test.
    public var verdict: Verdict
    /// One report for each parallel block, in the order of the text. Empty for a test without blocks, and for
    /// one that was skipped or could not be performed.
    public var blocks: [BlockReport]
    /// Why the test ended early. Nil if all runs or interleavings were done.
    public var cut: Cut?
    /// One map for each pair of actors that was swept. Empty without a sweep.
    public var maps: [SweepMap] = []
    /// The number of schedules with two preemptions. Those with outcomes of their own have maps.
    public var secondSchedules = 0
    /// A schedule that shows the failure; nil without a failure or a sweep.
    public var schedule: Schedule?
    /// The kernel functions in which the victim of ``schedule`` was preempted, innermost first; empty if they are not known.
    public var functions: [String] = []
    /// Why a requested sweep was not done, as a sentence without its period. Nil if it was done or not requested.
    public var sweepAbsence: String?
    /// The results of each step with failing allocations, in the order of the text. Empty if no allocation was made to fail.
    public var failures: [StepFailures] = []

    /// A report, by default without blocks and not cut short.
    public init(verdict: Verdict, blocks: [BlockReport] = [], cut: Cut? = nil) {
        self.verdict = verdict
        self.blocks = blocks
        self.cut = cut
    }
}

/// A test with parallel blocks ended before all its runs or interleavings were done.
///
/// The outcomes seen so far are judged. A missing `required` outcome is not a failure, since it might have occurred later.
public struct Cut: Sendable, Equatable {
    /// The reason why the test ended.
    public enum Reason: Sendable, Equatable {
        /// The time limit of the options.
        case timeLimit(Duration)
        /// A signal of ``Runner/Options/interrupts``.
        case interrupted(signal: Int32)
        /// The limit on atomic pieces in the exploration of interleavings.
        case pieces(Int)
    }
    /// The reason why the test ended.
    public let reason: Reason
    /// Runs that were done; nil if interleavings were explored.
    public let runs: Int?
    /// Runs that were asked for; nil if interleavings were explored, or allocations made to fail.
    public let wanted: Int?

    package init(reason: Reason, runs: Int?, wanted: Int?) {
        self.reason = reason
        self.runs = runs
        self.wanted = wanted
    }
}

extension Cut: CustomStringConvertible {
    /// The reason and the progress: `timed out after 60.0 s (4,210 of 1,000,000 runs done)`.
    public var description: String {
        if case .timeLimit(let limit) = reason { return timedOut(after: limit, done: runs, of: wanted) }
        return "\(reason)" + progressText(done: runs, of: wanted)
    }
}

extension Cut.Reason: CustomStringConvertible {
    /// The reason for people: `timed out after 60.0 s`.
    public var description: String {
        switch self {
        case .timeLimit(let limit): timedOut(after: limit, done: nil, of: nil)
        case .interrupted(let signal): "interrupted by signal \(signal)"
        case .pieces(let count): "stopped at the limit of \(grouped(count)) atomic pieces"
        }
    }

    /// The reason in JSON: `time limit`, `signal` or `size`.
    public var word: String {
        switch self {
        case .timeLimit: "time limit"
        case .interrupted: "signal"
        case .pieces: "size"
        }
    }
}

/// The outcomes of a parallel block.
public struct BlockReport: Sendable, Equatable {
    /// The line of the block's first step in the text.
    public let line: Int
    /// Number of runs; nil if interleavings were explored.
    public let runs: Int?
    /// Number of different machine states in the interleavings, of this kernel or of the model that judges
    /// it. Nil if neither was explored.
    public let states: Int?
    /// Whether all runs or interleavings were done.
    public let isComplete: Bool
    /// Outcomes that were seen, the most frequent first, then those that only the model has. Without runs in
    /// alphabetical order.
    public let outcomes: [Outcome]

    /// An outcome: how each step with a named result ended in the same run.
    public struct Outcome: Sendable, Equatable {
        /// The results in the order of the test's text.
        public let results: [Failure.NamedOutcome]
        /// `a = ok, b = EAGAIN at 0`.
        public var text: String {
            results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
        }
        /// Number of runs with this outcome, 0 if only the model has it. Nil if interleavings were explored.
        public let count: Int?
        /// Whether the test's clauses permit it.
        public let isAllowed: Bool
        /// Whether the model has it; nil if the model was not asked.
        public let isInModel: Bool?
        /// One order of steps that leads to it, in the interleavings that were explored: those of this backend, or if
        /// the test was run, of the model. Nil if it was not looked for, or there is none.
        public package(set) var order: WitnessOrder?
        /// Whether an `allowed` or `required` clause names it. That prevails over the model: the test's
        /// author may know more.
        public let isNamed: Bool

        /// Whether neither the clauses nor the model forbid it.
        public var isFine: Bool { isAllowed && (isInModel != false || isNamed) }
    }
}
