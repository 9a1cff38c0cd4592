// SPDX-License-Identifier: MIT
import ConversionModel

/// Explores all interleavings of a test's parallel blocks in the model.
///
/// The interleaved atomic pieces are those of ``Position``. Interleavings that lead to the same state of the machine
/// with the same remaining steps are merged. Whole states are compared (``ModelMachine/Key``), so the set of outcomes
/// is exact. A state is a value, so a copy of it is enough to try another piece from there.
package struct Interleavings {
    /// All endings, and the number of states on the way to them.
    package struct Result {
        package var endings: Set<Ending> = []
        package var states = 0
        /// Why the endings are incomplete; nil if they are complete.
        package var cut: Cut.Reason?
        /// One order for each outcome of each block; empty unless requested.
        package var orders: [[[Name: StepOutcome]: WitnessOrder]] = []

        package init(
            endings: Set<Ending> = [], states: Int = 0, cut: Cut.Reason? = nil,
            orders: [[[Name: StepOutcome]: WitnessOrder]] = []
        ) {
            self.endings = endings
            self.states = states
            self.cut = cut
            self.orders = orders
        }
    }

    /// The number of pieces after which the exploration ends.
    package static let mostPieces = 5_000_000

    package let source: Source
    package let program: Program
    package let setup: ModelMachine.Setup
    package let limit: ExplorationLimit
    /// False explores every interleaving by itself, to check merging. That does not end if states recur.
    private let merges: Bool
    private let mostPieces: Int
    /// Whether an incomplete set of endings is acceptable.
    private let keepsPart: Bool
    private var cut: Cut.Reason?
    /// The index in ``endings`` of each state that was reached.
    private var numbers: [Key: Int] = [:]
    /// All endings of each state; nil while the state is being explored.
    private var endings: [Set<Ending>?] = []
    private var pieces = 0
    /// Called for the steps before the first block, which all interleavings share, and for the exploration.
    private var watcher: (@Sendable (RunEvent) -> Void)?
    /// Records the current interleaving; nil if it is not recorded.
    package var observer: StepObserver?

    /// - Parameter rules: with the settings of the test's header.
    package init(
        _ source: Source, on rules: Rules, _ limit: ExplorationLimit = ExplorationLimit(),
        merges: Bool = true,
        mostPieces: Int = Interleavings.mostPieces, keepsPart: Bool = false,
        watcher: (@Sendable (RunEvent) -> Void)? = nil
    ) {
        self.watcher = watcher
        self.mostPieces = mostPieces
        self.keepsPart = keepsPart
        self.source = source
        self.merges = merges
        self.limit = limit
        program = Program(source.test)
        setup = ModelMachine.Setup(rules, source.test)
    }

    /// - Parameter findsOrders: whether to find an order for each outcome.
    package mutating func explore(findsOrders: Bool = false) throws(Stop) -> Result {
        let first = try start()
        let watcher = watcher
        self.watcher = nil
        let explored = block(at: first).map { RunEvent.Part.exploration(first: $0.first) }
        if let explored { watcher?(.began(explored)) }
        let endings = try visit(first)
        var result = Result(endings: endings, states: numbers.count, cut: cut)
        if let explored {
            watcher?(.ended(explored, .states(result.states, isComplete: cut == nil)))
        }
        if findsOrders { result.orders = try witnessOrders(of: result) }
        return result
    }

    // MARK: positions

    /// The position of a run.
    package struct Cursor {
        package var machine: ModelMachine
        /// The next or current part.
        package var part = 0
        /// In a block: the position of each actor; empty outside of blocks.
        package var actors: [Position] = []
        package var failure: Failure?

        /// The actors that have a step left and do not wait for another actor.
        package func actors(of block: Program.Block) -> [Int] {
            block.actors.indices.filter { actor in
                let (position, steps) = (actors[actor], block.actors[actor])
                return position.step < steps.count
                    && !position.waits(before: steps[position.step].step, machine)
            }
        }
    }

    /// The state before the first block.
    package mutating func start() throws(Stop) -> Cursor {
        var cursor = Cursor(machine: try ModelMachine(setup))
        observer?.made(cursor.machine)
        try advanceToBlock(&cursor)
        return cursor
    }

    /// Performs the steps up to the next block, or to the end.
    private mutating func advanceToBlock(_ cursor: inout Cursor) throws(Stop) {
        while cursor.part < program.parts.count {
            switch program.parts[cursor.part] {
            case .block(let block):
                cursor.actors = block.actors.map { _ in Position() }
                return
            case .step(let index, let step):
                pieces += 1
                observer?.began(step)
                watcher?(.began(.step(index)))
                let seen = try source.attempt(index, step) { () throws(Stop) in
                    try cursor.machine.perform(step)
                }
                watcher?(.ended(.step(index), .outcome(of: step, seen)))
                observer?.ended(step, source.places[index].line, seen, cursor.machine)
                if let failure = source.judge(seen, index, step, cursor.machine.pages) {
                    cursor.failure = failure
                    return
                }
                cursor.part += 1
            }
        }
    }

    /// The block of the cursor; nil at the end.
    package func block(at cursor: Cursor) -> Program.Block? {
        guard cursor.failure == nil, cursor.part < program.parts.count,
            case .block(let block) = program.parts[cursor.part]
        else { return nil }
        return block
    }

    /// A state that is being explored.
    private struct Visit {
        let cursor: Cursor
        /// The index of the state in ``endings``.
        let number: Int
        /// The lowest index of a state that can be reached from here and is still being explored.
        var lowest: Int
        /// The actors whose next piece has not been tried from here, the next one last.
        var actors: [Int]
        var endings: Set<Ending> = []
        /// The result of the last piece from here, if it ended a step.
        var result: (place: Int, outcome: StepOutcome)?

        /// Adds the endings of the state that the last piece led to.
        mutating func add(_ rest: Set<Ending>, lowest: Int) {
            self.lowest = min(self.lowest, lowest)
            guard let result else {
                endings = endings.isEmpty ? rest : endings.union(rest)
                return
            }
            for var ending in rest {
                ending[result.place] = result.outcome
                endings.insert(ending)
            }
        }
    }

    /// The state that a piece leads to.
    private enum Arrival {
        case new(Visit)
        /// All endings of this state are known.
        case known(Set<Ending>)
        /// The state with this index is still being explored.
        case underWay(Int)
    }

    /// All endings from here on, without the results of earlier steps.
    ///
    /// This is a depth-first search. States that can be reached from each other (by vCPUs that undo each other's
    /// conversions) have the same endings, so they are completed together: Tarjan's algorithm for strongly connected
    /// components. A piece that ends a step leaves such a component. The path is an array, because it may have more
    /// states than fit on a thread's stack.
    private mutating func visit(_ cursor: Cursor) throws(Stop) -> Set<Ending> {
        var path: [Visit] = []
        /// The indices of explored states whose component is incomplete.
        var open: [Int] = []
        var arrival = try arrive(cursor)
        while true {
            switch arrival {
            case .new(let visit):
                path.append(visit)
                open.append(visit.number)
            case .known(let endings):
                guard !path.isEmpty else { return endings }
                path[path.count - 1].add(endings, lowest: .max)
            case .underWay(let number):
                path[path.count - 1].add([], lowest: number)
            }
            while cut != nil || path[path.count - 1].actors.isEmpty {
                let done = path.removeLast()
                if done.lowest == done.number, cut == nil {
                    while let number = open.last, number >= done.number {
                        open.removeLast()
                        endings[number] = done.endings
                    }
                }
                guard !path.isEmpty else { return done.endings }
                path[path.count - 1].add(
                    done.endings, lowest: done.lowest == done.number ? .max : done.lowest)
            }
            let last = path.count - 1
            var here = path[last].cursor
            path[last].result = try advance(path[last].actors.removeLast(), &here)
            arrival = try arrive(here)
        }
    }

    private mutating func arrive(_ cursor: Cursor) throws(Stop) -> Arrival {
        guard let block = block(at: cursor) else { return .known([Ending(failure: cursor.failure)]) }
        let key = merges ? key(of: cursor) : nil
        if let number = key.flatMap({ numbers[$0] }) {
            return endings[number].map { .known($0) } ?? .underWay(number)
        }
        if let reason = pieces < mostPieces ? limit.reason() : .pieces(mostPieces) {
            guard keepsPart else { throw .broken("not all interleavings are explored: \(reason)") }
            cut = reason
            return .known([])
        }
        let number = endings.count
        endings.append(nil)
        if let key { numbers[key] = number }
        return .new(
            Visit(
                cursor: cursor, number: number, lowest: number, actors: cursor.actors(of: block).reversed()))
    }

    /// The endings that can be reached from an explored state.
    package func endings(from cursor: Cursor) -> Set<Ending> {
        guard block(at: cursor) != nil else { return [Ending(failure: cursor.failure)] }
        return numbers[key(of: cursor)].flatMap { endings[$0] } ?? []
    }

    /// Everything that determines the endings of a state.
    package struct Key: Hashable {
        package let part: Int
        package let actors: [Position.Key]
        package let machine: ModelMachine.Key
    }

    package func key(of cursor: Cursor) -> Key {
        Key(
            part: cursor.part, actors: cursor.actors.map { $0.key(in: cursor.machine.kernel) },
            machine: cursor.machine.key)
    }

    // MARK: pieces

    /// Performs the next piece of an actor, and the steps after a block whose last piece it was.
    ///
    /// - Returns: the named result, if the step ended with one, and its place among all results.
    @discardableResult
    package mutating func advance(
        _ actor: Int, _ cursor: inout Cursor
    ) throws(Stop) -> (place: Int, outcome: StepOutcome)? {
        guard let block = block(at: cursor) else { return nil }
        let step = block.actors[actor][cursor.actors[actor].step].step
        guard let seen = try advancePiece(actor, &cursor), step.accepts(seen) else { return nil }
        return step.result.flatMap(block.place).map { ($0, seen.outcome) }
    }

    /// Performs the next piece of an actor, as ``advance(_:_:)`` does.
    ///
    /// - Returns: the answer of the step; nil if it has not ended.
    package mutating func advancePiece(_ actor: Int, _ cursor: inout Cursor) throws(Stop) -> Observation? {
        guard let block = block(at: cursor) else { return nil }
        let (index, step) = block.actors[actor][cursor.actors[actor].step]
        pieces += 1
        observer?.began(step)
        let seen = try source.attempt(index, step) { () throws(Stop) in
            try cursor.actors[actor].advance(step, &cursor.machine)
        }
        guard let seen else { return nil }
        observer?.ended(step, source.places[index].line, seen, cursor.machine)
        cursor.actors[actor] = Position(step: cursor.actors[actor].step + 1)
        if let failure = source.judge(seen, index, step, cursor.machine.pages) {
            cursor.failure = failure
            return seen
        }
        let isOver = zip(cursor.actors, block.actors).allSatisfy { $0.step == $1.count }
        if isOver {
            cursor.actors = []
            cursor.part += 1
            try advanceToBlock(&cursor)
        }
        return seen
    }
}
