// SPDX-License-Identifier: MIT
import ConversionModel
import Foundation
import Testing

@testable import Exercises

@Suite("Planted faults as wrong answers")
struct FaultTableTests {
    static let conversions = PlantedFault.allCases.filter { !$0.isConfidential }

    /// The sample monitor, which is right, is refused on a kernel with any of the faults that a conversion can have.
    @Test(arguments: Seeds.first(2, orIfMany: 100)) func theMonitorRefusesEveryFault(_ seed: UInt64) {
        let problem = Problem(.monitor, seed: seed)
        let refused = problem.refused(among: Self.conversions)
        let missed = Self.conversions.filter { !refused.contains($0) }
        #expect(missed.isEmpty, "\(missed.map(\.name))")
        guard case .cases(let suite) = problem.task else {
            Issue.record("exercise 8 has no cases")
            return
        }
        // Every case asks something of the student: with empty pieces none holds. Without memory for attributes a kernel may
        // refuse all calls, so there the pages must only keep their bytes.
        for item in suite.cases where !item.name.hasPrefix("the kernel has no memory") {
            let alone = CaseSuite(cases: [item], mostSteps: suite.mostSteps)
            let empty = Array(repeating: Filling(line: 1, lines: [], isEmpty: false), count: 3)
            let policy = Filling(
                line: 1, lines: [AnswerFile.Line(number: 1, text: "preserve")], isEmpty: false)
            let found = try? alone.assess(empty + [policy])
            #expect(found?.verdict == .wrong, "\(item.name)")
        }
    }

    /// The rows of docs/exercises.md, which `minivmm exercise --faults` has printed. Rows that take long are made again only
    /// by the long version of the tests.
    @Test func theTableOfTheDocumentIsCurrent() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("docs/exercises.md"), encoding: .utf8)
        let lines = text.split(separator: "\n").map(String.init)
        let start = try #require(lines.firstIndex { $0.contains("answers refused for a planted fault") })
        let command = try #require(lines[..<start].last { $0.hasPrefix("$ minivmm exercise --faults ") })
        let seeds = try #require(command.split(separator: " ").last.flatMap { UInt64($0) })
        let quick: [Exercise] = [.refusedRequests, .pageInUse, .monitor]
        let exercises = Seeds.areMany ? FaultTable.exercises : quick
        let table = FaultTable(seeds: seeds, of: exercises)
        for row in table.rows {
            let line = try #require(lines[start...].first { $0.contains(row.exercise.title) })
            let special = row.refused.count(where: \.isConfidential)
            let all = PlantedFault.allCases.count - Self.conversions.count
            let counts = " \(row.refused.count - special) of \(Self.conversions.count) "
            #expect(
                line.contains(counts) && line.hasSuffix(" \(special) of \(all)"),
                "\(line): \(row.refused.map(\.name))")
        }
        if Seeds.areMany {
            #expect(table.missed.filter { !$0.isConfidential }.isEmpty)
            let line = try #require(lines[start...].first { $0.contains("all of them") })
            #expect(line.contains(" \(Self.conversions.count) of \(Self.conversions.count) "))
        }
    }
}
