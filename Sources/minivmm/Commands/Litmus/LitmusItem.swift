// SPDX-License-Identifier: MIT
import Explain
import Litmus
import MiniVMM

extension LitmusCommand {
    /// A test and its result.
    struct Item {
        let path: String
        let source: Source
        /// The outcome that `--witness` selects.
        var witness: OutcomePattern?
        var report = Report(verdict: .skipped("not run"))
        /// The time of all its runs; nil if it was not run.
        var nanoseconds: UInt64?
        var verdict: Verdict { report.verdict }

        /// The first outcome that `--witness` selects and an order leads to.
        var selected: (BlockReport, BlockReport.Outcome)? {
            guard let witness else { return nil }
            for block in report.blocks {
                for outcome in block.outcomes where outcome.order != nil && witness.matches(outcome.results) {
                    return (block, outcome)
                }
            }
            return nil
        }

        /// The file's name without its ending.
        var shortName: String { LitmusFiles.shortName(path) }
    }
}

extension Verdict {
    var isFailure: Bool { if case .failed = self { true } else { false } }
    var isSkip: Bool { if case .skipped = self { true } else { false } }
    /// The verdict in JSON.
    var word: String {
        switch self {
        case .passed: "passed"
        case .failed: "failed"
        case .skipped: "skipped"
        case .hostFailed: "error"
        }
    }
}

extension HostFailure {
    var diagnosis: Diagnosis {
        Diagnosis(
            attempted: "to run a litmus test: \(call)", answer: "\(errno.name): \(errno)",
            means: "The host ran out of a resource that the test needs. That is no verdict on the kernel.",
            advice: advice)
    }
}
