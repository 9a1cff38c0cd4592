// SPDX-License-Identifier: MIT
import Glibc
public import MiniVMM

/// A difference between a kernel and the model, shrunk to the fewest steps that still show it.
public struct Finding: Sendable {
    /// The smallest test that shows it. Its expectations are the model's answers.
    public let source: Source
    /// The kernel's answer when the difference was last seen.
    public let failure: Failure
    /// How many of the ``runs`` on the backend showed it.
    public let seen: Int
    /// Runs of the smallest test: 10 if it always failed before, else 100. There are fewer if the exploration ended.
    public let runs: Int
    /// The number of the test that first showed it, from 1, over all phases and generated tests.
    public let found: Int
    /// Steps of that test before it was shrunk.
    public let steps: Int
    /// The kernel functions in which the victim of the test's schedule was preempted, innermost first. Empty without a schedule, or
    /// if they are not known.
    public let functions: [String]

    /// The differing step, or the steps of the parallel block, as text.
    public var what: String { source.block(of: failure).map { "concurrently: \($0.text)" } ?? failure.text }

    /// The lines of the kernel's report about a bug of its own; empty for another difference.
    public var kernelLines: [String] {
        if case .kernel(let report) = failure.deviation { report.lines } else { [] }
    }

    /// The model's answer, for people.
    public var model: String {
        guard let block = source.block(of: failure) else { return failure.expected }
        let allowed = block.clauses.filter { $0.kind == .allowed }.map(\.conditionText)
        return allowed.count <= 3
            ? allowed.joined(separator: " or ") : "one of \(allowed.count) other outcomes"
    }
}

/// How often a finding shows on a backend that has run no other test.
public struct Repetition: Sendable, Equatable {
    /// Runs that showed it.
    public let seen: Int
    /// Completed runs.
    public let runs: Int

    /// - Parameter seen: at most `runs`.
    public init(seen: Int, runs: Int) {
        self.seen = seen
        self.runs = runs
    }

    /// The number of runs that show it with a probability of 99 %, at the rate seen. Nil if no run showed it: it
    /// depends on an earlier test, or is rarer.
    public var needed: Int? {
        guard seen > 0 else { return nil }
        guard seen < runs else { return 1 }
        let miss = 1 - Double(seen) / Double(runs)
        return Int((log(0.01) / log(miss)).rounded(.up))
    }
}

extension Finding {
    /// Runs the smallest test up to ``runs`` times on a backend that has run no test before. If each earlier run showed
    /// the finding, one run that shows it is enough.
    ///
    /// - Parameters:
    ///   - backend: must not have run a test before.
    ///   - options: those of each run.
    public func repeated(on backend: any Backend, _ options: Runner.Options) -> Repetition {
        var options = options
        options.failures = failure.injected.map { .one($0.point) }
        let runner = Runner(backend, options)
        var shown = 0
        var done = 0
        // A finding that always shows needs one run.
        while done < runs, shown == 0 || seen < runs {
            if case .failed = runner.run(source) { shown += 1 }
            done += 1
        }
        return Repetition(seen: shown, runs: done)
    }
}

extension Source {
    /// The parallel block that failed; nil if a step failed.
    fileprivate func block(of failure: Failure) -> Program.Block? {
        failure.isOfBlock ? Program(test).blocks.first { $0.first == failure.step } : nil
    }

    /// The finding on one line, as the name of a test.
    func headline(_ failure: Failure) -> String {
        let after = failure.injected.map { ", after a failed allocation of \($0.step)" } ?? ""
        var line = "\(failure.text): \(failure.seen) instead of \(failure.expected)\(after)"
        if let block = block(of: failure), case .outcome(let results, _, _, _) = failure.deviation {
            let steps = block.actors.joined().sorted { $0.index < $1.index }
            line =
                "concurrently: "
                + zip(steps, results).map { "\($0.step.text): \($1.outcome)" }
                .joined(separator: "; ")
        }
        return String(line.map { $0.isASCII && $0 != "\"" && $0 != "\\" ? $0 : "?" }.prefix(200))
    }
}

extension Program.Block {
    /// The steps of the block on one line, in the order of the text.
    fileprivate var text: String {
        actors.joined().sorted { $0.index < $1.index }.map(\.step.text)
            .joined(separator: "; ")
    }
}
