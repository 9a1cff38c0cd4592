// SPDX-License-Identifier: MIT
import Glibc
public import MiniVMM

/// Something that a kernel answers and the model does not, made as small as it gets.
public struct Finding: Sendable {
    /// The smallest test that shows it; it says what the model comes to.
    public let source: Source
    /// Where the kernel was seen to do something else.
    public let failure: Failure
    /// In how many of how many runs of it.
    public let seen: Int
    public let runs: Int
    /// The number of the test that showed it first, counted from 1, and how many steps that had.
    public let found: Int
    public let steps: Int

    /// What was done: a step, or the steps of a parallel block.
    public var what: String { source.block(of: failure).map { "at once: \($0.text)" } ?? failure.text }

    /// What the model comes to.
    public var model: String {
        guard let block = source.block(of: failure) else { return failure.expected }
        let allowed = block.clauses.filter { $0.kind == .allowed }.map(\.conditionText)
        return allowed.count <= 3
            ? allowed.joined(separator: " or ") : "one of \(allowed.count) other outcomes"
    }
}

/// How often a finding shows by itself, on a kernel that has run no other test.
public struct Repetition: Sendable, Equatable {
    public let seen: Int
    public let runs: Int

    public init(seen: Int, runs: Int) {
        self.seen = seen
        self.runs = runs
    }

    /// Runs after which it has shown with a probability of 99 %, if it shows by chance as often as it did. Nil where it did
    /// not show: it needs what an earlier test left behind, or more luck.
    public var needed: Int? {
        guard seen > 0 else { return nil }
        guard seen < runs else { return 1 }
        let miss = 1 - Double(seen) / Double(runs)
        return Int((log(0.01) / log(miss)).rounded(.up))
    }
}

extension Finding {
    /// - Parameter kernel: has run no test before.
    public func repeated(on kernel: any KVMInterface, _ options: Runner.Options) -> Repetition {
        let runner = Runner(kernel, options)
        var shown = 0
        var done = 0
        // Where it always shows, once is enough.
        while done < runs, shown == 0 || seen < runs {
            if case .failed = runner.run(source) { shown += 1 }
            done += 1
        }
        return Repetition(seen: shown, runs: done)
    }
}

extension Source {
    /// The parallel block whose outcome is meant; nil where it is a step.
    fileprivate func block(of failure: Failure) -> Program.Block? {
        failure.isOfBlock ? Program(test).blocks.first { $0.first == failure.step } : nil
    }

    /// What is shown, in a line: the name of a test.
    func headline(_ failure: Failure) -> String {
        var line = "\(failure.text): \(failure.seen), and not \(failure.expected)"
        if let block = block(of: failure), case .outcome(let results, _, _, _) = failure.deviation {
            let steps = block.actors.joined().sorted { $0.index < $1.index }
            line =
                "at once: "
                + zip(steps, results).map { "\($0.step.role) \($0.step.action): \($1.outcome)" }
                .joined(separator: "; ")
        }
        return String(line.map { $0.isASCII && $0 != "\"" && $0 != "\\" ? $0 : "?" }.prefix(200))
    }
}

extension Program.Block {
    /// Its steps on one line, in the order of the text.
    fileprivate var text: String {
        actors.joined().sorted { $0.index < $1.index }.map { "\($0.step.role) \($0.step.action)" }
            .joined(separator: "; ")
    }
}
