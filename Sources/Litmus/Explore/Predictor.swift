// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// Adds the model's answers to the steps of a test as expectations, so that any runner can judge it.
///
/// Steps that cannot be judged are removed, such as a step on a file that could not be created, or a comparison of
/// undefined bytes.
struct Predictor: Sendable {
    /// A test with the model's answers as expectations.
    struct Prediction {
        let test: LitmusTest
        /// Further answers that a kernel may give, by the index of the step. The test ends after such an answer.
        let others: [Int: [StepOutcome]]
    }

    /// The largest number of outcomes of a parallel block that are listed in a test.
    static let mostOutcomes = 48

    /// The largest number of pieces explored for one test: a tenth of a second.
    static let mostPieces = 20_000

    /// The model that judges.
    let configuration: SoftKVM.Configuration

    /// - Returns: nil if no step is left, or the model's answers cannot be written in the test language.
    func predict(_ test: LitmusTest) -> Prediction? {
        var test = test
        var others: [Int: [StepOutcome]] = [:]
        // A step that cannot be performed may have had effects: everything is repeated without it.
        var isComplete = false
        while !isComplete {
            guard let said = predictSteps(test) else { return nil }
            (test.body, others, isComplete) = said
        }
        // After a block the machine is in one of several states, so the steps that check it form another block.
        if test.body.contains(where: \.isBlock) {
            guard let body = predictBlocks(test) else { return nil }
            test.body = body
        }
        return test.firstProblem() == nil ? Prediction(test: test, others: others) : nil
    }

    /// The test with answers up to the first block, and the rest unchanged; nil if the machine cannot be created.
    private func predictSteps(
        _ test: LitmusTest
    ) -> (body: [Entry], others: [Int: [StepOutcome]], isComplete: Bool)? {
        guard var oracle = try? Oracle(test, configuration) else { return nil }
        var others: [Int: [StepOutcome]] = [:]
        var body: [Entry] = []
        var rest = test.body[...]
        while case .step(let step)? = rest.first {
            rest.removeFirst()
            guard let (said, free) = predict(step, &oracle) else { return (body + rest, [:], false) }
            if !free.isEmpty { others[body.count] = free }
            body.append(.step(said))
        }
        return (body + rest, others, true)
    }

    /// The step with its answer; nil if it cannot be performed, or checks nothing.
    private func predict(_ step: Step, _ oracle: inout Oracle) -> (Step, others: [StepOutcome])? {
        guard let answers = try? oracle.perform(step) else { return nil }
        var step = step
        if answers.isAnyByte {
            guard case .read = step.action else { return nil }
            step.expectation = .unspecified
        } else {
            step.expectation = answers.model == .ok ? .unspecified : .anyOf([answers.model])
        }
        return (step, answers.others)
    }

    /// a to z, then r26 and so on.
    private static func result(_ number: Int) -> Name {
        let letter = UnicodeScalar(UInt8(97 + min(number, 25)))
        return Name(number < 26 ? String(Character(letter)) : "r\(number)") ?? .ram
    }

    /// The body with the outcomes of its blocks in all interleavings.
    private func predictBlocks(_ test: LitmusTest) -> [Entry]? {
        var test = test
        var results = 0
        test.body = test.body.map { entry in
            guard case .parallel(let block) = entry else { return entry }
            return .parallel(
                Parallel(
                    steps: block.steps.map { step in
                        var step = step
                        step.expectation = .named(Self.result(results))
                        results += 1
                        return step
                    }))
        }
        guard let source = try? Source(test),
            let result = try? source.explored(
                on: configuration, TestDeadline(), mostPieces: Self.mostPieces)
        else { return nil }
        guard !result.endings.isEmpty, !result.endings.contains(where: { $0.failure != nil }) else {
            return nil
        }
        var blocks = Program(test).blocks[...]
        var body: [Entry] = []
        for entry in test.body {
            guard case .parallel(var block) = entry, let known = blocks.popFirst() else {
                body.append(entry)
                continue
            }
            let outcomes = Set(result.endings.map(known.results(of:)))
            guard outcomes.count <= Self.mostOutcomes else { return nil }
            block.clauses = outcomes.sorted { known.text($0) < known.text($1) }.map { outcome in
                Clause(
                    .allowed,
                    known.results.compactMap { name in
                        outcome[name].map { Clause.Condition(result: name, outcome: $0) }
                    })
            }
            body.append(.parallel(block))
        }
        return body
    }
}
