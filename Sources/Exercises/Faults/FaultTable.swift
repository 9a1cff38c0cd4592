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

    /// Rows in the order of the exercises. ``Exercise/brokenKernel`` hides a fault and is not counted.
    package let rows: [Row]
    /// The largest number of seeds that were tried, from 0.
    package let seeds: UInt64
    /// After so many seeds in a row that refused nothing new, no more of an exercise are tried.
    package static let patience = 10

    /// The exercises that refuse answers.
    package static let exercises = Exercise.allCases.filter { $0 != .brokenKernel }

    /// Tries the first seeds of exercises.
    package init(seeds: UInt64, of exercises: [Exercise] = Self.exercises) {
        self.seeds = seeds
        var rows: [Row] = []
        for exercise in exercises {
            var refused: [PlantedFault] = []
            var idle = 0
            for seed in 0..<seeds where idle < Self.patience {
                // The other exercises have no SNP and TDX VMs.
                let others = PlantedFault.allCases.filter {
                    !refused.contains($0) && (!$0.isConfidential || exercise == .confidential)
                }
                guard !others.isEmpty else { break }
                let new = Problem(exercise, seed: seed).refused(among: others)
                idle = new.isEmpty ? idle + 1 : 0
                refused += new
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
