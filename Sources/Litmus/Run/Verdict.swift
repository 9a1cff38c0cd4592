// SPDX-License-Identifier: MIT
/// What a run of a test came to.
public enum Verdict: Sendable, Hashable {
    /// Every step ended as it must.
    case passed
    /// A step did not; nothing was done after it.
    case failed(Failure)
    /// This kernel, or this runner, cannot say anything about it.
    case skipped(String)
    /// Nothing is known: the host could not do its part.
    case hostFailed(HostFailure)
}

/// A verdict, and of a test with parallel blocks what was seen of each.
public struct Report: Sendable, Equatable {
    public var verdict: Verdict
    public var blocks: [BlockReport]
    /// Nil where everything was done that was asked for.
    public var cut: Cut?

    public init(verdict: Verdict, blocks: [BlockReport] = [], cut: Cut? = nil) {
        self.verdict = verdict
        self.blocks = blocks
        self.cut = cut
    }
}

/// A test with parallel blocks ended before all its runs, or all its interleavings, were done. What was seen until then is
/// judged, but nothing is missed: what was not seen may have come later.
public struct Cut: Sendable, Equatable {
    public enum Reason: Sendable, Equatable {
        case timeLimit(Duration)
        case interrupted(signal: Int32)
        /// More pieces than the exploration of interleavings does.
        case pieces(Int)
    }
    public let reason: Reason
    /// Runs done, and runs asked for; nil where interleavings are explored.
    public let runs: Int?
    public let wanted: Int?
}

extension Cut.Reason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .timeLimit(let limit): "the time limit of \(limit.secondsText) s"
        case .interrupted(let signal): "signal \(signal)"
        case .pieces(let count): "the bound of \(count) atomic pieces"
        }
    }

    /// For programs.
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
    /// The line of its first step.
    public let line: Int
    /// Runs of it, nil where the interleavings were explored instead.
    public let runs: Int?
    /// Different states of the machine that were met while going through the interleavings, of this kernel or of the model
    /// that judges it; nil without either.
    public let states: Int?
    /// Whether these are the outcomes of all runs, or of all interleavings, that were asked for.
    public let isComplete: Bool
    /// Those seen first, the most frequent first; then those that the model has and nobody saw.
    public let outcomes: [Outcome]

    public struct Outcome: Sendable, Equatable {
        /// In the order of the test's text.
        public let results: [Failure.NamedOutcome]
        /// `a = ok, b = EAGAIN at 0`.
        public var text: String {
            results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
        }
        /// Of how many runs; nil where all interleavings were gone through.
        public let count: Int?
        /// The test's clauses let it happen.
        public let isAllowed: Bool
        /// The model can come to it; nil where it was not asked.
        public let isInModel: Bool?
        /// An `allowed` or `required` clause of the test names it. The author of a test knows what a model may not.
        public let isNamed: Bool

        /// Nothing speaks against it.
        public var isFine: Bool { isAllowed && (isInModel != false || isNamed) }
    }
}
