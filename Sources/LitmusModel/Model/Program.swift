// SPDX-License-Identifier: MIT
import ConversionModel

/// A test in the form in which it runs: its parts in order, and for a block the steps of each actor.
package struct Program {
    package enum Part {
        case step(index: Int, Step)
        case block(Block)
    }

    /// A parallel block.
    package struct Block {
        /// The number of the block in the test, from 0.
        package let number: Int
        /// The index of its first step in ``LitmusTest/steps``.
        package let first: Int
        package let clauses: [Clause]
        /// The steps of each actor in their order. Actors are in the order of their first steps.
        package let actors: [[(index: Int, step: Step)]]
        /// The results of the block in the order of the text.
        package let results: [Name]
        /// The index of the first of them among the results of all blocks.
        package let firstResult: Int

        /// The index of a result among those of all blocks.
        package func place(of result: Name) -> Int? {
            results.firstIndex(of: result).map { firstResult + $0 }
        }
    }

    package let parts: [Part]

    package init(_ test: LitmusTest) {
        var parts: [Part] = []
        var index = 0
        var blocks = 0
        var results = 0
        for entry in test.body {
            switch entry {
            case .step(let step):
                parts.append(.step(index: index, step))
                index += 1
            case .parallel(let block):
                let first = index
                var actors: [Actor] = []
                var steps: [[(index: Int, step: Step)]] = []
                for step in block.steps {
                    if let place = actors.firstIndex(of: step.actor) {
                        steps[place].append((index, step))
                    } else {
                        actors.append(step.actor)
                        steps.append([(index, step)])
                    }
                    index += 1
                }
                parts.append(
                    .block(
                        Block(
                            number: blocks, first: first, clauses: block.clauses, actors: steps,
                            results: block.steps.compactMap { $0.result }, firstResult: results)))
                blocks += 1
                results += block.steps.count { $0.result != nil }
            }
        }
        self.parts = parts
    }

    package var blocks: [Block] {
        parts.compactMap { part in
            if case .block(let block) = part { block } else { nil }
        }
    }
}

extension Step {
    /// The name of its result.
    package var result: Name? { if case .named(let name) = expectation { name } else { nil } }
}

/// How a run ended: the results of its blocks, or the step that failed.
package struct Ending: Hashable {
    /// Indexed as in ``Program/Block/place(of:)``. Nil or missing if the step did not end with a result.
    package private(set) var results: ContiguousArray<StepOutcome?> = []
    package var failure: Failure?

    package init(results: ContiguousArray<StepOutcome?> = [], failure: Failure? = nil) {
        self.results = results
        self.failure = failure
    }

    package subscript(place: Int) -> StepOutcome? {
        get { results.indices.contains(place) ? results[place] : nil }
        set {
            while results.count <= place { results.append(nil) }
            results[place] = newValue
            while results.last == .some(nil) { results.removeLast() }
        }
    }
}

extension Program.Block {
    /// The results of this block in an ending.
    package func results(of ending: Ending) -> [Name: StepOutcome] {
        var results: [Name: StepOutcome] = [:]
        for (index, name) in self.results.enumerated() { results[name] = ending[firstResult + index] }
        return results
    }

    /// In the order of the text.
    package func list(_ outcome: [Name: StepOutcome]) -> [Failure.NamedOutcome] {
        results.compactMap { name in outcome[name].map { .init(name: name, outcome: $0) } }
    }

    /// The outcome for people.
    package func text(_ outcome: [Name: StepOutcome]) -> String {
        list(outcome).map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
    }

    /// Whether the test permits the outcome.
    package func allows(_ outcome: [Name: StepOutcome]) -> Bool {
        if clauses.contains(where: { $0.kind == .forbidden && $0.holds(for: outcome) }) { return false }
        return names(outcome) || !clauses.contains { $0.kind == .allowed }
    }

    /// Whether an `allowed` or `required` clause names the outcome.
    package func names(_ outcome: [Name: StepOutcome]) -> Bool {
        clauses.contains { $0.kind != .forbidden && $0.holds(for: outcome) }
    }

    /// The `required` clauses that none of these outcomes satisfies.
    package func unmet(in outcomes: some Collection<[Name: StepOutcome]>) -> [Clause] {
        clauses.filter { clause in
            clause.kind == .required
                && !outcomes.contains { clause.holds(for: $0) }
        }
    }
}

extension Clause {
    /// Whether an outcome satisfies all conditions.
    package func holds(for outcome: [Name: StepOutcome]) -> Bool { conditions.hold(for: outcome) }
}

extension [Clause.Condition] {
    /// Whether an outcome satisfies all of them.
    package func hold(for outcome: [Name: StepOutcome]) -> Bool {
        allSatisfy { condition in outcome[condition.result].map(condition.outcome.covers) ?? false }
    }
}
