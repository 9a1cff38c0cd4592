// SPDX-License-Identifier: MIT
import MiniVMM
public import SoftKVM

/// Finds where versions of the interface answer a test differently.
///
/// Every version performs every step, whatever the steps before returned. For a parallel block all outcomes
/// are compared.
public struct Comparison: Sendable {
    /// A step or an outcome for which the versions do not agree.
    public struct Difference: Sendable, Equatable {
        /// The line of the step in the test's text, or of the first step of the block.
        public let line: Int
        /// The step as written, without its expectation; or `parallel:` and an outcome.
        public let text: String
        /// One answer for each configuration, in their order: an outcome, for a block `seen`. `-` if the step
        /// could not be performed, or the outcome did not occur.
        public let answers: [String]
    }

    private let configurations: [SoftKVM.Configuration]

    /// - Parameter configurations: the versions to compare; any number.
    public init(_ configurations: [SoftKVM.Configuration]) { self.configurations = configurations }

    /// The steps of a test whose answers differ, in the order of the text, then the outcomes of its blocks.
    public func differences(_ source: Source) -> [Difference] {
        let runs = configurations.map { configuration in
            let backend = SoftKVM(configuration)
            return (answers(source, backend), outcomes(source, backend))
        }
        var differences: [Difference] = []
        for (index, step) in source.test.steps.enumerated() {
            let answers = runs.map { $0.0[index] ?? "-" }
            guard Set(answers).count > 1 else { continue }
            differences.append(
                Difference(
                    line: source.places[index].line, text: step.text, answers: answers))
        }
        for block in Program(source.test).blocks {
            let sets = runs.map { $0.1[block.number] ?? [] }
            for text in Set(sets.joined()).sorted() {
                let answers = sets.map { $0.contains(text) ? "seen" : "-" }
                guard Set(answers).count > 1 else { continue }
                differences.append(
                    Difference(
                        line: source.places[block.first].line, text: "parallel: \(text)", answers: answers))
            }
        }
        return differences
    }

    /// The outcome of each step outside of blocks, by its index. Steps that could not be performed are absent.
    private func answers(_ source: Source, _ backend: SoftKVM) -> [Int: String] {
        var answers: [Int: String] = [:]
        do throws(Stop) {
            let facts = try BackendFacts(backend).configured(for: source.test)
            let world = try World(facts, source.test, TestDeadline())
            defer { world.close() }
            for part in Program(source.test).parts {
                guard case .step(let index, let step) = part else { continue }
                guard let seen = try? world.perform(step) else { continue }
                answers[index] = seen.description
            }
        } catch {
            return answers
        }
        return answers
    }

    /// All outcomes of each block, by its number.
    private func outcomes(_ source: Source, _ backend: SoftKVM) -> [Int: Set<String>] {
        let blocks = Program(source.test).blocks
        guard !blocks.isEmpty,
            let result = try? source.explored(on: backend.configuration, TestDeadline())
        else { return [:] }
        var outcomes: [Int: Set<String>] = [:]
        for block in blocks {
            outcomes[block.number] = Set(
                result.endings.map(block.results(of:)).filter { $0.count == block.results.count }
                    .map(block.text))
        }
        return outcomes
    }
}
