// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// The result of checking an answer.
package struct Assessment: Sendable {
    /// The result.
    package enum Verdict: Sendable, Equatable {
        /// The answer is right.
        case right
        /// The form is as it was written. Nothing is revealed.
        case noAttempt
        /// Some blanks are empty. Nothing is revealed.
        case incomplete
        /// The answer is wrong, and a run or a fact refutes it.
        case wrong
        /// The model's limit was reached before the answer was refuted or proved.
        case undecided
    }

    /// The result.
    package var verdict: Verdict
    /// Points of this answer.
    package var points: Int
    /// Points of a right answer.
    package let possible: Int
    /// The line of the answer that is wrong; nil if there is none.
    package var line: Int?
    /// The reason in one sentence without its period.
    package var reason: String
    /// The run that refutes the answer, or shows what was asked for; nil if there is none.
    package var run: Run?

    init(
        _ verdict: Verdict, _ points: Int, of possible: Int, line: Int? = nil, _ reason: String,
        run: Run? = nil
    ) {
        self.verdict = verdict
        self.points = points
        self.possible = possible
        self.line = line
        self.reason = reason
        self.run = run
    }

    static func right(_ possible: Int, _ reason: String) -> Assessment {
        Assessment(.right, possible, of: possible, reason)
    }
}

/// A run of the model, as evidence.
package struct Run: Sendable {
    /// A heading for the run, without a period.
    package let title: String
    /// The test that ran.
    package let test: LitmusTest
    /// The steps and what every actor sees at the end.
    package let trace: ModelTrace
    /// For some steps, what the answer said about them, by index.
    package let remarks: [Int: String]
    /// Whether the kernel of the run is the broken one.
    let isBroken: Bool

    init(
        _ title: String, _ test: LitmusTest, _ trace: ModelTrace, remarks: [Int: String] = [:],
        isBroken: Bool = false
    ) {
        self.title = title
        self.test = test
        self.trace = trace
        self.remarks = remarks
        self.isBroken = isBroken
    }
}

extension Assessment {
    /// The assessment as lines for a terminal or a page, without colour.
    package var text: [String] {
        let place = line.map { "line \($0): " } ?? ""
        switch verdict {
        case .right: return ["Right: " + reason + "."] + (run?.text ?? [])
        case .noAttempt, .incomplete: return ["No answer yet: " + place + reason + "."] + (run?.text ?? [])
        case .wrong: return ["Wrong: " + place + reason + "."] + (run?.text ?? [])
        case .undecided: return ["Undecided: " + place + reason + "."]
        }
    }
}

extension Run {
    /// The run as lines.
    package var text: [String] {
        var out = ["", title + ":"]
        let steps = test.steps
        var number = 0
        for settings in test.settings.lines { out.append("     kernel " + settings) }
        for memory in test.memory { out.append("     memory " + memory.description) }
        for line in trace.lines where line.step < steps.count {
            let step = steps[line.step]
            number += 1
            var text = number < 10 ? "  \(number)  " : " \(number)  "
            text += step.actor.description.padded(to: 7) + step.withoutActor
            if let outcome = line.outcome {
                text = text.padded(to: 46) + "=> "
                text += line.isAnyByte ? "any byte (undefined)" : outcome.description
                if line.part == .ends { text += " (ends)" }
            } else {
                text = text.padded(to: 46) + (line.part == .begins ? "begins" : "continues")
            }
            let remark = remarks[line.step]
            let fits = remark.map { text.padded(to: 62).utf8.count + $0.utf8.count <= 80 } ?? false
            if let remark, fits { text = text.padded(to: 62) + remark }
            out.append(text)
            if let remark, !fits { out.append("            " + remark) }
            if !line.pieces.isEmpty { out += Self.folded(line.pieces.joined(separator: ", ")) }
        }
        if let problem = trace.problem { out.append("     The next step is impossible: \(problem)") }
        if let failure = trace.failure, failure < steps.count, trace.problem == nil {
            let step = steps[failure]
            if let expected = step.answer, step.result == nil { out.append("     expected: \(expected)") }
            if step.answer == nil { out.append("     expected: ok") }
        }
        if !trace.pages.isEmpty { out += ["", "What every actor sees then:"] + pageLines }
        return out
    }

    private static func folded(_ text: String) -> [String] {
        var lines: [FormLine] = []
        lines.explain(text, width: 68)
        return lines.map { if case .comment(let text) = $0 { "            " + text } else { "" } }
    }

    private var pageLines: [String] {
        var out: [String] = []
        for page in trace.pages {
            var text = "  page \(page.number)"
            if test.memory.count > 1 { text += " of \(page.memory.description)" }
            text = text.padded(to: test.memory.count > 1 ? 20 : 12)
            text += (page.state?.rawValue ?? "no file").padded(to: 10)
            text += "host: " + Self.look(page.host, "no view").padded(to: 12)
            if let guest = page.guest { text += "guest: " + Self.look(guest, "no memslot") }
            out.append(text)
        }
        return out
    }

    private static func look(_ byte: VisibleByte?, _ nothing: String) -> String {
        switch byte {
        case nil, .noMemslot: nothing
        case .byte(.known(let byte)): hexByte(byte)
        case .byte(.unknown): "undefined"
        case .byte(.garbled): "garbage"
        case .noPage: "SIGBUS"
        case .fault: "fault"
        }
    }
}

extension Step {
    /// The action, with its answer to memory faults.
    var withoutActor: String { text.after(actor.description) ?? text }
}

extension Assessment.Verdict {
    /// The verdict in JSON.
    package var word: String {
        switch self {
        case .right: "right"
        case .noAttempt: "no attempt"
        case .incomplete: "incomplete"
        case .wrong: "wrong"
        case .undecided: "undecided"
        }
    }
}
