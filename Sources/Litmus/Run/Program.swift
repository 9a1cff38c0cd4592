// SPDX-License-Identifier: MIT
import MiniVMM

/// A test as it is run: its parts in order, and of a block what each actor does.
struct Program {
    enum Part {
        case step(index: Int, Step)
        case block(Block)
    }

    /// A parallel block.
    struct Block {
        /// Which of the test's blocks it is, from 0.
        let number: Int
        /// The index of its first step in ``LitmusTest/steps``.
        let first: Int
        let clauses: [Clause]
        /// The steps of each actor, in their order; actors in the order in which they first act.
        let actors: [[(index: Int, step: Step)]]
        /// Its results in the order of the text.
        let results: [Name]
        /// The place of the first of them among the results of all blocks.
        let firstResult: Int

        /// The place of a result among those of all blocks.
        func place(of result: Name) -> Int? {
            results.firstIndex(of: result).map { firstResult + $0 }
        }
    }

    let parts: [Part]

    init(_ test: LitmusTest) {
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
                            results: block.steps.compactMap(\.result), firstResult: results)))
                blocks += 1
                results += block.steps.count { $0.result != nil }
            }
        }
        self.parts = parts
    }

    var blocks: [Block] {
        parts.compactMap { part in
            if case .block(let block) = part { block } else { nil }
        }
    }
}

extension Step {
    /// The name of its result.
    package var result: Name? { if case .named(let name) = expectation { name } else { nil } }
}

/// What came of a run: the results of its blocks, or the step that ended it.
struct Ending: Hashable {
    /// By the places of ``Program/Block/place(of:)``; nil, or not there, is one that did not end with a result.
    private(set) var results: ContiguousArray<StepOutcome?> = []
    var failure: Failure?

    subscript(place: Int) -> StepOutcome? {
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
    func results(of ending: Ending) -> [Name: StepOutcome] {
        var results: [Name: StepOutcome] = [:]
        for (index, name) in self.results.enumerated() { results[name] = ending[firstResult + index] }
        return results
    }

    /// In the order of the text.
    func list(_ outcome: [Name: StepOutcome]) -> [Failure.NamedOutcome] {
        results.compactMap { name in outcome[name].map { .init(name: name, outcome: $0) } }
    }

    /// As a person reads it.
    func text(_ outcome: [Name: StepOutcome]) -> String {
        list(outcome).map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
    }

    /// Whether the test lets that happen.
    func allows(_ outcome: [Name: StepOutcome]) -> Bool {
        if clauses.contains(where: { $0.kind == .forbidden && $0.holds(for: outcome) }) { return false }
        return names(outcome) || !clauses.contains { $0.kind == .allowed }
    }

    /// Whether a clause says that it may or must happen.
    func names(_ outcome: [Name: StepOutcome]) -> Bool {
        clauses.contains { $0.kind != .forbidden && $0.holds(for: outcome) }
    }

    /// The clauses that are required and hold in none of these.
    func unmet(in outcomes: some Collection<[Name: StepOutcome]>) -> [Clause] {
        clauses.filter { clause in
            clause.kind == .required
                && !outcomes.contains { clause.holds(for: $0) }
        }
    }
}

extension Clause {
    /// Whether an outcome satisfies all conditions.
    func holds(for outcome: [Name: StepOutcome]) -> Bool {
        conditions.allSatisfy { condition in
            outcome[condition.result].map(condition.outcome.covers) ?? false
        }
    }
}
