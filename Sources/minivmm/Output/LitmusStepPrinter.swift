// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import Synchronization

/// Prints what one litmus test does while it runs, for `--verbose`.
///
/// A step has a line before it is performed and another one with its outcome. Each line is one `write(2)` with its line end: on a
/// serial console the kernel's own messages then begin at the start of a line, where programs look for them, even if the
/// kernel dies during the step.
final class LitmusStepPrinter: Sendable {
    private let out: Terminal
    private let prefix: String
    private let source: Source
    private let progress: ProgressLine
    /// A thread that was abandoned inside a system call may report its end when the test is over. That is not printed.
    private let isOver = Mutex(false)

    /// - Parameters:
    ///   - prefix: text before each line.
    ///   - progress: erased before each line.
    init(_ out: Terminal, prefix: String, _ source: Source, _ progress: ProgressLine) {
        self.out = out
        self.prefix = prefix
        self.source = source
        self.progress = progress
    }

    /// Prints what it is told, until ``end()``.
    var watcher: @Sendable (RunEvent) -> Void { { self.print($0) } }

    private func print(_ event: RunEvent) {
        isOver.withLock { isOver in
            guard !isOver else { return }
            progress.clear()
            let (text, isFine) = line(event)
            out.print(prefix + (isFine ? text : out.styled(text, .bad)))
        }
    }

    /// Prints nothing from now on.
    func end() { isOver.withLock { $0 = true } }

    private func line(_ event: RunEvent) -> (text: String, isFine: Bool) {
        switch event {
        case .began(let part): return (text(part) + " ...", true)
        case .beganAgain:
            return ("not passed on a machine that an earlier test had used; again on a new one", true)
        case .ended(let part, let result):
            let (outcome, isFine) = text(result, of: part)
            return ("\(text(part)) => \(outcome)", isFine)
        }
    }

    private func text(_ part: RunEvent.Part) -> String {
        switch part {
        case .step(let index): return text(index)
        case .block(let first, let runs):
            return "line \(line(first))  parallel, run 1" + (runs.map { " of \(grouped($0))" } ?? "")
        case .furtherRuns(let runs):
            return runs.map { "runs 2 to \(grouped($0))" } ?? "further runs under chosen schedules"
        case .exploration(let first):
            return
                "line \(line(first))  parallel, explored exhaustively (every interleaving, to the test's end)"
        case .allocation(let point): return "\(text(point.step)), allocation \(grouped(point.nth)) fails"
        }
    }

    private func text(_ index: Int) -> String {
        "line \(line(index))  \(source.test.steps[index].text)"
    }

    private func line(_ index: Int) -> Int { source.places[index].line }

    private func text(_ result: RunEvent.Result, of part: RunEvent.Part) -> (text: String, isFine: Bool) {
        switch result {
        case .outcome(let outcome, let oddity, let isExpected):
            let seen = "\(outcome)" + (oddity.map { ", and \($0)" } ?? "")
            guard !isExpected, case .step(let index) = part else { return (seen, true) }
            let expected = source.test.steps[index].answer ?? "success"
            return ("\(seen)  UNEXPECTED: the test expects \(expected)", false)
        case .results(let results, let isAllowed):
            let list = results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
            let seen = list.isEmpty ? "no named results" : list
            return isAllowed ? (seen, true) : ("\(seen)  FORBIDDEN", false)
        case .runs(let count): return (count == 1 ? "1 run done" : "\(grouped(count)) runs done", true)
        case .states(let count, let isComplete):
            let states = count == 1 ? "1 state" : "\(grouped(count)) states"
            return (states + (isComplete ? "" : "; not all interleavings were explored"), true)
        case .unused: return ("the step makes no such allocation", true)
        case .answer(let outcome, let isRight):
            let seen = outcome.map { "\($0)" } ?? "no outcome"
            return isRight ? (seen, true) : ("\(seen)  WRONG", false)
        }
    }
}
