// SPDX-License-Identifier: MIT
import MiniVMM

/// The outcomes of a parallel block that a kernel may show.
package struct PermittedOutcomes: Sendable {
    /// The outcomes that the model has and the test permits, each in the order of the text; nil if there are too many
    /// interleavings to explore them all.
    package let outcomes: [[StepOutcome]]?
}

extension Source {
    /// For each parallel block what a run on a real kernel is judged by.
    package func permittedOutcomes() -> [PermittedOutcomes] {
        let judge = Judge(self)
        let result = try? explored(TestDeadline(), mostPieces: 1_000_000)
        return judge.program.blocks.map { block in
            let outcomes = result.flatMap { result in
                result.cut == nil ? judge.complete(result.endings, block).filter(block.allows) : nil
            }
            return PermittedOutcomes(
                outcomes: outcomes?.map { outcome in block.list(outcome).map(\.outcome) }
                    .sorted { "\($0)" < "\($1)" })
        }
    }
}
