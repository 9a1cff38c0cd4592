// SPDX-License-Identifier: MIT
import ConversionModel

/// How the model of Linux 7.4 answers where a test failed. It tells a wrong expectation from a wrong backend.
public enum ModelComparison: Sendable, Hashable {
    /// The model gives the same answer as the backend: the test is probably wrong.
    case same
    /// The model gives another answer, but allows that of the backend.
    case allowed
    /// The model does not allow the answer of the backend. `answer` is its own; nil if it has several, in different
    /// interleavings.
    case different(answer: StepOutcome?)
}

extension ModelComparison {
    /// The comparison in JSON: `same`, `allowed` or `different`.
    public var word: String {
        switch self {
        case .same: "same"
        case .allowed: "allowed"
        case .different: "different"
        }
    }
}

extension Failure {
    /// The comparison as a sentence for people; nil if the model was not asked or cannot judge the failure.
    public var modelText: String? {
        guard let model else { return nil }
        let name = "the model of Linux 7.4"
        switch (deviation, model) {
        case (.step, .same): return "\(name) gives the same answer: the expectation is probably wrong"
        case (.step, .allowed): return "\(name) allows this answer: the expectation is probably too strict"
        case (.step(let step, _, _), .different(let answer?)):
            return step.accepts(Observation(answer))
                ? "\(name) gives \(answer), as the test expects: the backend differs from it"
                : "\(name) gives \(answer): neither the backend nor the test agrees with it"
        case (.step, .different(nil)):
            return "\(name) never gives this answer: the backend differs from it"
        case (.outcome, .same), (.outcome, .allowed):
            return "\(name) has this outcome too: the test is probably wrong"
        case (.outcome, .different):
            return "\(name) never has this outcome: the backend differs from it"
        case (.missing, .same), (.missing, .allowed):
            return "it never occurs in \(name) either: the test is probably wrong"
        case (.missing, .different):
            return "it does occur in \(name): the backend differs from it"
        case (.impossible, _), (.machine, _), (.hang, _), (.kernel, _): return nil
        }
    }
}

extension LitmusTest {
    /// Compares the last of the outcomes of a test without parallel blocks with the model.
    ///
    /// - Parameter outcomes: of the steps from the first one on.
    /// - Returns: nil if the model cannot perform the steps, or does not allow an earlier outcome.
    package func modelComparison(_ outcomes: [StepOutcome]) -> ModelComparison? {
        guard let seen = outcomes.last, outcomes.count <= steps.count else { return nil }
        let steps = steps
        do throws(Oracle.Problem) {
            var oracle = try Oracle(self)
            for (step, outcome) in zip(steps, outcomes.dropLast()) {
                guard try oracle.follow(step, outcome) else { return nil }
            }
            let answers = try oracle.answers(to: steps[outcomes.count - 1])
            if answers.model == seen { return .same }
            return answers.contains(seen) ? .allowed : .different(answer: answers.model)
        } catch {
            return nil
        }
    }
}

extension Report {
    /// Compares a failure of a test with parallel blocks with the model.
    ///
    /// - Parameter explore: explores the model; nil if that was not possible. Called only if the test failed.
    package mutating func compare(_ program: Program, _ explore: () -> Interleavings.Result?) {
        guard case .failed(var failure) = verdict, failure.model == nil, let model = explore() else { return }
        failure.model = failure.compared(with: model, program)
        verdict = .failed(failure)
    }
}

extension Failure {
    /// - Parameter model: everything that can happen in the model.
    fileprivate func compared(with model: Interleavings.Result, _ program: Program) -> ModelComparison? {
        let isSame: Bool
        switch deviation {
        case .step(_, let seen, let oddity):
            isSame = model.endings.contains { ending in
                guard let other = ending.failure, other.step == step,
                    case .step(_, let answer, let otherOddity) = other.deviation
                else { return false }
                return answer == seen && otherOddity == oddity
            }
        case .outcome(let results, _, _, _):
            guard let block = program.blocks.first(where: { $0.first == step }) else { return nil }
            isSame = model.endings.contains { block.list(block.results(of: $0)) == results }
        case .missing(let clause):
            guard let block = program.blocks.first(where: { $0.first == step }) else { return nil }
            let outcomes = model.endings.map(block.results(of:))
            guard block.isMet(clause, in: outcomes) || model.cut == nil else { return nil }
            isSame = !block.isMet(clause, in: outcomes)
        case .impossible, .machine, .hang, .kernel: return nil
        }
        if isSame { return .same }
        if case .missing = deviation { return .different(answer: nil) }
        return model.cut == nil ? .different(answer: nil) : nil
    }
}

extension Program.Block {
    /// Whether one of the outcomes, all of whose steps ended, satisfies a clause.
    fileprivate func isMet(_ clause: Clause, in outcomes: [[Name: StepOutcome]]) -> Bool {
        outcomes.contains { $0.count == results.count && clause.holds(for: $0) }
    }
}
