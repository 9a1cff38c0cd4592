// SPDX-License-Identifier: MIT
import MiniVMM

/// One order of steps, found in the model, that leads to an outcome of a parallel block.
public struct WitnessOrder: Sendable, Equatable {
    /// How much of its step a turn performs.
    public enum Part: String, Sendable {
        /// All of it.
        case whole
        /// The first atomic pieces; another actor has its turn before the step ends.
        case begins
        /// Atomic pieces in the middle.
        case continues
        /// The last atomic pieces.
        case ends
    }

    /// Consecutive atomic pieces of one step.
    public struct Turn: Sendable, Equatable {
        /// The index of the step in ``LitmusTest/steps``.
        public let step: Int
        /// How much of the step this turn performs.
        public fileprivate(set) var part: Part
        /// A phrase for each piece. Empty for a step that is a single piece.
        public fileprivate(set) var pieces: [String]
        /// How the step ended; nil if it has not ended after this turn.
        public fileprivate(set) var outcome: StepOutcome?
    }

    /// The turns in their order. A test with several blocks has the turns of the earlier blocks first.
    public let turns: [Turn]

    /// The order on one line: `r begins, c, r ends`. A step is called by the name of its result, or by its actor and
    /// action if it has none.
    public func text(of test: LitmusTest) -> String {
        let steps = test.steps
        return turns.map { turn in
            let step = steps[turn.step]
            let name = step.result?.description ?? "\(step.actor) \(step.action.word)"
            return turn.part == .whole ? name : "\(name) \(turn.part.rawValue)"
        }
        .joined(separator: ", ")
    }
}

/// An outcome of a parallel block, selected by some or all of its results.
public struct OutcomePattern: Sendable, Equatable {
    /// The conditions, all of which must hold in the same run. At least one.
    public let conditions: [Clause.Condition]

    /// Reads conditions as a clause has them: `a = ok, c = EAGAIN at 0`.
    ///
    /// - Parameter test: the test whose results they name.
    /// - Throws: ``SyntaxError`` in line 1 if the text is malformed, or no block of the test has these results, or a step
    ///   cannot end that way on any kernel.
    public init(parsing text: String, of test: LitmusTest) throws(SyntaxError) {
        var parser = LineParser(try Lexer.tokens(Array(text.utf8)[...], line: 1), line: 1)
        let blocks = Program(test).blocks
        let names = blocks.flatMap(\.results).map(\.description)
        guard !names.isEmpty else {
            throw parser.error("the test has no parallel block with named results")
        }
        let steps = test.steps.filter { $0.result != nil }
        let conditions = try parser.conditions { (name, column, parser) throws(SyntaxError) in
            guard !names.contains(name.description) else { return }
            let near = NearWords.suggestion(for: name.description, among: names)
            throw parser.error(
                at: column,
                "no step has the result \(name)"
                    + (near.isEmpty ? "; the results are \(names.joined(separator: ", "))" : near))
        } check: { (condition, column, parser) throws(SyntaxError) in
            let named = steps.filter { $0.result == condition.result }
            if let step = named.first, !named.contains(where: { $0.canEnd(with: condition.outcome) }) {
                throw parser.error(at: column, step.hint(condition.outcome))
            }
        }
        try parser.end()
        guard blocks.contains(where: { block in conditions.allSatisfy { block.results.contains($0.result) } })
        else { throw parser.error(at: 1, "no parallel block has all of these results") }
        self.conditions = conditions
    }

    /// All conditions of several patterns.
    ///
    /// - Parameter patterns: at least one, all of the same block.
    public init(all patterns: [OutcomePattern]) { conditions = patterns.flatMap(\.conditions) }

    /// The conditions as a clause has them.
    public var text: String {
        conditions.map { "\($0.result) = \($0.outcome)" }.joined(separator: ", ")
    }

    /// Whether an outcome satisfies all conditions.
    public func matches(_ results: [Failure.NamedOutcome]) -> Bool {
        conditions.allSatisfy { condition in
            results.contains { $0.name == condition.result && condition.outcome.covers($0.outcome) }
        }
    }
}

// MARK: the search

extension Interleavings {
    /// One order for each outcome of each block, by the number of the block. Outcomes are missing if the exploration or
    /// this search was cut short.
    mutating func witnessOrders(of result: Result) throws(Stop) -> [[[Name: StepOutcome]: WitnessOrder]] {
        let blocks = program.blocks
        var orders: [[[Name: StepOutcome]: WitnessOrder]] = Array(repeating: [:], count: blocks.count)
        guard result.cut == nil else { return orders }
        let endings = sorted(result.endings)
        for block in blocks {
            for ending in endings {
                let outcome = block.results(of: ending)
                guard outcome.count == block.results.count, orders[block.number][outcome] == nil else {
                    continue
                }
                guard deadline.stop == nil, !deadline.isOver else { return orders }
                orders[block.number][outcome] = try order(try path(to: ending), upTo: block)
            }
        }
        return orders
    }

    /// Endings in a fixed order: those without a failure first, then by their text.
    func sorted(_ endings: Set<Ending>) -> [Ending] {
        func text(_ ending: Ending) -> String {
            program.blocks.map { $0.text($0.results(of: ending)) }.joined(separator: "; ")
                + (ending.failure?.description ?? "")
        }
        return endings.map { ($0, $0.failure == nil ? 0 : 1, text($0)) }
            .sorted { ($0.1, $0.2) < ($1.1, $1.2) }.map(\.0)
    }

    /// The turns of an interleaving.
    ///
    /// - Parameters:
    ///   - path: the actors of a block, by their places in it, in the order of their pieces.
    ///   - last: the block with which the order ends.
    private mutating func order(_ path: [Int], upTo last: Program.Block) throws(Stop) -> WitnessOrder {
        var turns: [WitnessOrder.Turn] = []
        var cursor = try start()
        var begun: Set<Int> = []
        var previous: Int?
        for actor in path {
            guard let block = block(at: cursor), block.number <= last.number else { break }
            let before = cursor.actors[actor]
            let index = block.actors[actor][before.step].index
            let seen = try advancePiece(actor, &cursor)
            let text = before.text(to: seen == nil ? cursor.actors[actor] : nil)
            if previous != index {
                turns.append(WitnessOrder.Turn(step: index, part: .begins, pieces: [], outcome: nil))
                if begun.contains(index) { turns[turns.count - 1].part = .continues }
            }
            turns[turns.count - 1].pieces.append(text)
            begun.insert(index)
            previous = index
            guard let seen else { continue }
            let turn = turns.count - 1
            turns[turn].outcome = seen.outcome
            let isWhole = turns[turn].part == .begins
            turns[turn].part = isWhole ? .whole : .ends
            if isWhole, turns[turn].pieces.count == 1 { turns[turn].pieces = [] }
            previous = nil
        }
        return WitnessOrder(turns: turns)
    }
}

extension Position {
    /// Describes the piece from this position to another one, for people.
    ///
    /// - Parameter after: nil if the piece ends the step.
    func text(to after: Position?) -> String {
        guard let after else {
            switch phase {
            case .releasing: return "releases the last page"
            case .deleting: return "deletes the memslot"
            case .failing: return "poisons the page"
            case .asked: return "maps the page"
            case .begin, .copying, .faulted, .convertedWithoutEffect: return "completes"
            }
        }
        if fault == nil, after.fault != nil { return "begins a page fault" }
        if fault != nil, after.fault == nil { return "completes the page fault" }
        if after.references.count > references.count { return "takes a reference on a page" }
        if case .copying = phase { return "copies a page" }
        if after.references.count < references.count { return "releases a page" }
        if !isLogged, after.isLogged { return "logs the page as dirty" }
        if phase == after.phase { return "completes one part" }
        switch after.phase {
        case .deleting: return "invalidates the memslot"
        case .failing: return "drops its reference"
        case .asked: return "reads the page's state"
        case .faulted: return "exits with a memory fault"
        case .releasing: return "stops"
        case .begin, .copying, .convertedWithoutEffect: break
        }
        if case .faulted = phase { return "converts the page" }
        return "completes one part"
    }
}
