// SPDX-License-Identifier: MIT
import ConversionModel

/// Which planted faults each exercise refuses.
///
/// Somebody who believes in a kernel with a fault gives wrong answers: the predictions that such a kernel confirms, or
/// steps that run on such a kernel. An exercise refuses a fault if one of its problems refuses that answer.
package struct FaultTable: Sendable {
    /// An exercise and the faults that it refuses.
    package struct Row: Sendable {
        /// The exercise.
        package let exercise: Exercise
        /// The faults, in the order of their declaration.
        package let refused: [PlantedFault]
    }

    /// The exercises that refuse answers. ``Exercise/brokenKernel`` hides a fault and is not counted.
    package let rows: [Row]
    /// The number of seeds that were tried, from 0.
    package let seeds: UInt64

    /// Tries the first seeds of every exercise.
    package init(seeds: UInt64) {
        self.seeds = seeds
        var rows: [Row] = []
        for exercise in Exercise.allCases where exercise != .brokenKernel {
            var refused: [PlantedFault] = []
            for seed in 0..<seeds {
                let others = PlantedFault.allCases.filter { !refused.contains($0) }
                refused += Problem(exercise, seed: seed).refused(among: others)
            }
            rows.append(Row(exercise: exercise, refused: refused.sorted { $0.rawValue < $1.rawValue }))
        }
        self.rows = rows
    }

    /// The faults that some exercise refuses.
    package var refused: [PlantedFault] {
        PlantedFault.allCases.filter { fault in rows.contains { $0.refused.contains(fault) } }
    }

    /// The faults that no exercise refuses.
    package var missed: [PlantedFault] {
        let refused = refused
        return PlantedFault.allCases.filter { !refused.contains($0) }
    }
}

extension PlantedFault {
    /// Whether the fault breaks a rule that only SNP and TDX VMs have.
    package var isConfidential: Bool { rawValue >= PlantedFault.unvalidatedPageReadable.rawValue }
}
