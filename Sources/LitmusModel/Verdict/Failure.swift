// SPDX-License-Identifier: MIT
import ConversionModel

/// The first deviation of a test from what it expects.
public struct Failure: Sendable, Hashable {
    /// The deviation.
    public enum Deviation: Sendable, Hashable {
        /// A step ended otherwise. `oddity` describes in words an effect that is never permitted, such as a
        /// changed input word; nil if there is none.
        case step(Step, seen: StepOutcome, oddity: String?)
        /// A step could not be performed, because an earlier one ended otherwise.
        case impossible(Step, reason: String)
        /// The machine of the test could not be made or used.
        case machine(reason: String)
        /// A parallel block had a forbidden outcome in `count` of `runs` runs. Both are nil if all
        /// interleavings were explored.
        case outcome([NamedOutcome], against: Judge, count: Int?, runs: Int?)
        /// A `required` outcome of a parallel block occurs in no interleaving.
        case missing(Clause)
        /// These steps had not ended after the time limit. `runs` is nil for a test without parallel blocks.
        case hang(steps: [String], limit: Duration, runs: Runs?)
        /// While the test ran, the kernel reported a bug of its own in its log.
        case kernel(KernelReport)
    }

    /// The result of a step in a parallel block.
    public struct NamedOutcome: Sendable, Hashable {
        /// The name that the step gives its result.
        public let name: Name
        /// How the step ended.
        public let outcome: StepOutcome
    }

    /// Which of the two forbids an outcome.
    public enum Judge: Sendable, Hashable {
        /// The clauses of the test.
        case test
        /// The model: no interleaving has the outcome.
        case model
    }

    /// How many runs of a test were done.
    public struct Runs: Sendable, Hashable {
        /// Runs that ended.
        public let done: Int
        /// Runs that were asked for.
        public let wanted: Int

        package init(done: Int, wanted: Int) {
            self.done = done
            self.wanted = wanted
        }
    }

    private struct Content: Sendable, Hashable {
        let deviation: Deviation
        let step: Int?
        let line: Int?
        let pages: [String]
        var model: ModelComparison?
        var injected: InjectedFailure?
    }
    /// A failure is large and rare, and every step returns an optional one.
    private indirect enum Box: Sendable, Hashable { case content(Content) }
    private var box: Box
    private var content: Content {
        get {
            switch box {
            case .content(let content): content
            }
        }
        set { box = .content(newValue) }
    }

    /// The deviation.
    public var deviation: Deviation { content.deviation }
    /// The index in ``LitmusTest/steps`` of the step, or of the first one of the block; nil for a machine, a hang or a
    /// report of the kernel.
    public var step: Int? { content.step }
    /// The line of that step in the text; nil if there is none.
    public var line: Int? { content.line }
    /// One line for each page around the step: its state, and what the host reads there.
    public var pages: [String] { content.pages }
    /// How the model answers there; nil if it was not asked or cannot judge it.
    public package(set) var model: ModelComparison? {
        get { content.model }
        set { content.model = newValue }
    }
    /// The allocation that failed in the run; nil if none did.
    public package(set) var injected: InjectedFailure? {
        get { content.injected }
        set { content.injected = newValue }
    }

    package init(_ deviation: Deviation, step: Int? = nil, line: Int? = nil, pages: [String] = []) {
        box = .content(Content(deviation: deviation, step: step, line: line, pages: pages))
    }

    /// Whether it concerns a parallel block as a whole.
    public var isOfBlock: Bool {
        switch deviation {
        case .outcome, .missing: true
        case .step, .impossible, .machine, .hang, .kernel: false
        }
    }
}

extension Failure {
    /// The kind of a failure, without its numbers: two findings of one kind are one.
    package enum Kind: Hashable {
        case step(actor: String, action: String, expected: [String], seen: String, isOdd: Bool)
        case impossible(actor: String, action: String)
        case machine
        case outcome(against: Judge)
        case missing
        case hang
        case kernel(name: String)
    }

    package var kind: Kind {
        switch deviation {
        case .step(let step, let seen, let oddity):
            .step(
                actor: step.actor.word, action: step.action.word, expected: step.expectation.words,
                seen: seen.word, isOdd: oddity != nil)
        case .impossible(let step, _): .impossible(actor: step.actor.word, action: step.action.word)
        case .machine: .machine
        case .outcome(_, let judge, _, _): .outcome(against: judge)
        case .missing: .missing
        case .hang: .hang
        case .kernel(let report): .kernel(name: report.name)
        }
    }
}

extension Expectation {
    /// The outcomes without their numbers.
    fileprivate var words: [String] {
        switch self {
        case .unspecified, .named: ["ok"]
        case .anyOf(let outcomes): outcomes.map { $0.word }
        }
    }
}

// MARK: text

extension Failure: CustomStringConvertible {
    /// The failed step as written, without its expectation, or `parallel`.
    public var text: String {
        switch deviation {
        case .step(let step, _, _), .impossible(let step, _): step.text
        case .machine: "making the machine"
        case .outcome, .missing: "parallel"
        case .hang(let steps, _, _): steps.isEmpty ? "between two steps" : steps.joined(separator: ", ")
        case .kernel: "the kernel's log"
        }
    }

    /// The expectation, for people.
    public var expected: String {
        switch deviation {
        case .step(let step, _, _), .impossible(let step, _):
            switch step.expectation {
            case .unspecified, .named: "success"
            case .anyOf(let outcomes): outcomes.map { $0.description }.joined(separator: " or ")
            }
        case .machine: "a machine"
        case .outcome(_, .test, _, _): "an outcome that the test allows"
        case .outcome(_, .model, _, _): "an outcome that the model allows"
        case .missing(let clause): "an interleaving with \(clause.conditionText)"
        case .hang: "the end of the step"
        case .kernel: "no report about the kernel itself"
        }
    }

    /// The actual outcome, as text.
    public var seen: String {
        switch deviation {
        case .step(_, let seen, let oddity): "\(seen)" + (oddity.map { ", and \($0)" } ?? "")
        case .impossible(_, let reason), .machine(let reason): reason
        case .outcome(let results, _, let count, let runs):
            results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
                + (count.map { ", in \(grouped($0)) of \(grouped(runs ?? 0)) runs" } ?? "")
        case .missing: "no interleaving has this outcome"
        case .hang(_, let limit, let runs):
            timedOut(after: limit, done: runs?.done, of: runs?.wanted)
        case .kernel(let report): report.headline
        }
    }

    /// All ``lines``, separated by newlines.
    public var description: String { lines.joined(separator: "\n") }

    /// The failure for people, line by line: what failed, what was expected and seen, what the model says, and the pages.
    public var lines: [String] {
        let place = line.map { "line \($0): " } ?? ""
        let model = (modelText.map { [$0] } ?? []) + (injected.map { [$0.description] } ?? [])
        switch deviation {
        case .step, .impossible, .machine:
            return ["\(place)\(text)", "expected: \(expected)", "seen: \(seen)"] + model + pages
        case .outcome(let results, let judge, let count, let runs):
            let outcome = results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
            let often = count.map { " in \(grouped($0)) of \(grouped(runs ?? 0)) runs" } ?? ""
            let rest = judge == .test ? ["the test does not allow it"] + model : model
            return ["\(place)\(text)", "outcome \(outcome) occurred\(often)"] + rest + pages
        case .missing(let clause):
            return [
                "\(place)\(text)",
                "required outcome \(clause.conditionText) never occurs in any interleaving",
            ] + model + pages
        case .hang: return ["\(place)\(text)", seen] + pages
        case .kernel(let report): return ["the kernel reported a bug of its own:"] + report.lines
        }
    }
}

/// `timed out after 3.0 s (4,210 of 1,000,000 runs done)`.
package func timedOut(after limit: Duration, done: Int?, of wanted: Int?) -> String {
    let text = limit.secondsText
    let seconds = text.contains(".") ? text : text + ".0"
    return "timed out after \(seconds) s\(progressText(done: done, of: wanted))"
}

/// ` (4,210 of 1,000,000 runs done)`, or ` (4,210 runs done)` if it is not known how many there are.
package func progressText(done: Int?, of wanted: Int?) -> String {
    guard let done else { return "" }
    return " (\(grouped(done))\(wanted.map { " of \(grouped($0))" } ?? "") runs done)"
}

/// 12345 as `12,345`.
package func grouped(_ number: Int) -> String {
    var text = ""
    for (index, digit) in String(number).reversed().enumerated() {
        if index > 0, index % 3 == 0, digit != "-" { text.append(",") }
        text.append(digit)
    }
    return String(text.reversed())
}
