// SPDX-License-Identifier: MIT
import MiniVMM

/// The first thing in a test that was not as it must be.
public struct Failure: Sendable, Hashable {
    public enum Deviation: Sendable, Hashable {
        /// A step ended otherwise. The oddity is what no outcome has words for, and what must never be.
        case step(Step, seen: StepOutcome, oddity: String?)
        /// A step could not be done at all: an earlier one ended otherwise.
        case impossible(Step, reason: String)
        /// The machine could not be made, or not be used.
        case machine(reason: String)
        /// A parallel block had an outcome that it must not have, in so many runs; nil where all interleavings were explored.
        case outcome([NamedOutcome], against: Judge, count: Int?, runs: Int?)
        /// A required outcome of a parallel block is in none of all interleavings.
        case missing(Clause)
        /// Steps that did not end in time, with the runs that were done; nil for a test without parallel blocks.
        case hang(steps: [String], limit: Duration, runs: Runs?)
    }

    /// The result of a step in a parallel block.
    public struct NamedOutcome: Sendable, Hashable {
        public let name: Name
        public let outcome: StepOutcome
    }

    /// Who says that an outcome must not be.
    public enum Judge: Sendable, Hashable {
        /// The test's clauses.
        case test
        /// The model does not have it.
        case model
    }

    public struct Runs: Sendable, Hashable {
        public let done: Int
        public let wanted: Int
    }

    public let deviation: Deviation
    /// The index in ``LitmusTest/steps``: of the step, or of the first one of the block; nil where it is neither.
    public let step: Int?
    /// Its line in the text.
    public let line: Int?
    /// The pages around a step, one a line: their states, and what the host reads there.
    public let pages: [String]

    init(_ deviation: Deviation, step: Int? = nil, line: Int? = nil, pages: [String] = []) {
        self.deviation = deviation
        self.step = step
        self.line = line
        self.pages = pages
    }

    /// It is about a parallel block as a whole.
    public var isOfBlock: Bool {
        switch deviation {
        case .outcome, .missing: true
        case .step, .impossible, .machine, .hang: false
        }
    }
}

extension Failure {
    /// The kind of a failure, without its numbers: two findings of one kind are one.
    enum Kind: Hashable {
        case step(actor: String, action: String, expected: [String], seen: String, isOdd: Bool)
        case impossible(actor: String, action: String)
        case machine
        case outcome(against: Judge)
        case missing
        case hang
    }

    var kind: Kind {
        switch deviation {
        case .step(let step, let seen, let oddity):
            .step(
                actor: step.role.word, action: step.action.word, expected: step.expectation.words,
                seen: seen.word, isOdd: oddity != nil)
        case .impossible(let step, _): .impossible(actor: step.role.word, action: step.action.word)
        case .machine: .machine
        case .outcome(_, let judge, _, _): .outcome(against: judge)
        case .missing: .missing
        case .hang: .hang
        }
    }
}

extension Expectation {
    /// The outcomes without their numbers.
    fileprivate var words: [String] {
        switch self {
        case .unspecified, .named: ["ok"]
        case .anyOf(let outcomes): outcomes.map(\.word)
        }
    }
}

// MARK: text

extension Failure: CustomStringConvertible {
    /// What it is about: the step as it is written, without its expectation, or `parallel`.
    public var text: String {
        switch deviation {
        case .step(let step, _, _), .impossible(let step, _): "\(step.role) \(step.action)"
        case .machine: "the machine is made"
        case .outcome, .missing: "parallel"
        case .hang(let steps, _, _): steps.isEmpty ? "no step" : steps.joined(separator: ", ")
        }
    }

    public var expected: String {
        switch deviation {
        case .step(let step, _, _), .impossible(let step, _):
            switch step.expectation {
            case .unspecified, .named: "success"
            case .anyOf(let outcomes): outcomes.map(\.description).joined(separator: " or ")
            }
        case .machine: "a machine"
        case .outcome(_, .test, _, _): "an outcome that the test allows"
        case .outcome(_, .model, _, _): "an outcome that the model has"
        case .missing(let clause): "an interleaving with \(clause.conditionText)"
        case .hang: "an end of the step"
        }
    }

    public var seen: String {
        switch deviation {
        case .step(_, let seen, let oddity): "\(seen)" + (oddity.map { ", and \($0)" } ?? "")
        case .impossible(_, let reason), .machine(let reason): reason
        case .outcome(let results, _, let count, let runs):
            results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
                + (count.map { ", in \($0) of \(runs ?? 0) runs" } ?? "")
        case .missing: "no interleaving has this outcome"
        case .hang(_, let limit, let runs):
            "timed out after \(limit.secondsText) s in: \(text)"
                + (runs.map { " (\($0.done) of \($0.wanted) runs done)" } ?? "")
        }
    }

    public var description: String { lines.joined(separator: "\n") }

    /// For people, line by line.
    public var lines: [String] {
        ["\(line.map { "line \($0): " } ?? "")\(text)", "expected: \(expected)", "seen: \(seen)"] + pages
    }
}
