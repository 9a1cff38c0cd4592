// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM

/// Explores all interleavings of a test's parallel blocks on the model.
///
/// The atomic pieces that are interleaved are those of ``Position``. Interleavings that lead to the same state of the machine,
/// with the same steps left, go on as one. The states are compared whole (``ModelMachine/Key``), so the set of outcomes is
/// exact. A state is a value: to go on differently from it, a copy is enough.
struct Interleavings {
    /// All endings, and how many states there were on the way to them.
    struct Result {
        var endings: Set<Ending> = []
        var states = 0
        /// Why these are not all; nil where they are.
        var cut: Cut.Reason?
        /// For each block an order for each of its outcomes, as far as they were looked for.
        var orders: [[[Name: StepOutcome]: WitnessOrder]] = []
    }

    /// Pieces after which it ends.
    static let mostPieces = 5_000_000

    let source: Source
    let program: Program
    let setup: ModelMachine.Setup
    let deadline: TestDeadline
    /// False explores every interleaving by itself, to check what merging does. That has no end where states
    /// come back.
    private let merges: Bool
    private let mostPieces: Int
    /// Whether the endings found so far will do where not all can be had.
    private let keepsPart: Bool
    private var cut: Cut.Reason?
    /// The states that were reached, in that order, and their places in ``endings``.
    private var numbers: [Key: Int] = [:]
    /// All endings of each state; nil while it is explored.
    private var endings: [Set<Ending>?] = []
    private var pieces = 0
    /// Where the interleaving under way is recorded, if it is.
    var tape: Tape?

    /// - Parameter configuration: of the kernel, as the test's header wants it.
    init(
        _ source: Source, on configuration: SoftKVM.Configuration, _ deadline: TestDeadline,
        merges: Bool = true,
        mostPieces: Int = Interleavings.mostPieces, keepsPart: Bool = false
    ) {
        self.mostPieces = mostPieces
        self.keepsPart = keepsPart
        self.source = source
        self.merges = merges
        self.deadline = deadline
        program = Program(source.test)
        setup = ModelMachine.Setup(configuration, source.test)
    }

    /// - Parameter findsOrders: whether an order is looked for that leads to each outcome.
    mutating func explore(findsOrders: Bool = false) throws(Stop) -> Result {
        let endings = try visit(start())
        var result = Result(endings: endings, states: numbers.count, cut: cut)
        if findsOrders { result.orders = try witnessOrders(of: result) }
        return result
    }

    // MARK: a run under way

    /// How far a run has come.
    struct Cursor {
        var machine: ModelMachine
        /// The part that is next, or under way.
        var part = 0
        /// In a block: how far each actor has come; empty outside.
        var actors: [Position] = []
        var failure: Failure?

        /// The actors that have a step left and need not wait for another.
        func actors(of block: Program.Block) -> [Int] {
            block.actors.indices.filter { actor in
                let (position, steps) = (actors[actor], block.actors[actor])
                return position.step < steps.count
                    && !position.waits(before: steps[position.step].step, machine)
            }
        }
    }

    /// The state before the first block.
    mutating func start() throws(Stop) -> Cursor {
        var cursor = Cursor(machine: try ModelMachine(setup))
        tape?.note(cursor.machine)
        try advanceToBlock(&cursor)
        return cursor
    }

    /// Does the steps up to the next block, or to the end.
    private mutating func advanceToBlock(_ cursor: inout Cursor) throws(Stop) {
        while cursor.part < program.parts.count {
            switch program.parts[cursor.part] {
            case .block(let block):
                cursor.actors = block.actors.map { _ in Position() }
                return
            case .step(let index, let step):
                pieces += 1
                tape?.begin(step)
                let seen = try source.attempt(index, step) { () throws(Stop) in
                    try cursor.machine.perform(step)
                }
                tape?.end(step, line: source.places[index].line, seen, cursor.machine)
                if let failure = source.judge(seen, index, step, cursor.machine.pages) {
                    cursor.failure = failure
                    return
                }
                cursor.part += 1
            }
        }
    }

    /// The block that the cursor is in; nil at the end.
    func block(at cursor: Cursor) -> Program.Block? {
        guard cursor.failure == nil, cursor.part < program.parts.count,
            case .block(let block) = program.parts[cursor.part]
        else { return nil }
        return block
    }

    /// A state that is being explored.
    private struct Visit {
        let cursor: Cursor
        /// The place of the state in ``endings``.
        let number: Int
        /// The lowest number of a state that can be reached from here and is still being explored.
        var lowest: Int
        /// The actors that have not gone on from here yet, the next one last.
        var actors: [Int]
        var endings: Set<Ending> = []
        /// The result of the last piece done from here, if a step ended with it.
        var result: (place: Int, outcome: StepOutcome)?

        /// Adds the endings of a state to which the last piece led.
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

    /// Where a piece has led.
    private enum Arrival {
        case new(Visit)
        /// All endings of this state are known.
        case known(Set<Ending>)
        /// The state with this number, which is still being explored.
        case underWay(Int)
    }

    /// All endings from here on. The results of what was done before are not in them.
    ///
    /// Depth first. States that can be reached from each other (vCPUs that undo each other's conversions)
    /// have the same endings, so they are complete together: Tarjan's algorithm for strongly connected
    /// components. Pieces that end a step lead out of such a component. The path is a list, because it may
    /// have more states than a thread's stack has room for.
    private mutating func visit(_ cursor: Cursor) throws(Stop) -> Set<Ending> {
        var path: [Visit] = []
        /// The numbers of states that are explored, and whose component is not.
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
        if let reason = pieces < mostPieces ? deadline.stop : .pieces(mostPieces) {
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

    /// The endings reachable from a state that was explored.
    func endings(from cursor: Cursor) -> Set<Ending> {
        guard block(at: cursor) != nil else { return [Ending(failure: cursor.failure)] }
        return numbers[key(of: cursor)].flatMap { endings[$0] } ?? []
    }

    /// Everything that decides what can still come.
    struct Key: Hashable {
        let part: Int
        let actors: [Position.Key]
        let machine: ModelMachine.Key
    }

    func key(of cursor: Cursor) -> Key {
        Key(
            part: cursor.part, actors: cursor.actors.map { $0.key(in: cursor.machine.kernel) },
            machine: cursor.machine.key)
    }

    // MARK: pieces

    /// Performs the next piece of an actor, and the steps after a block whose last piece it was.
    ///
    /// - Returns: the named result, if the step ended with one, and its place among all results.
    @discardableResult
    mutating func advance(
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
    mutating func advancePiece(_ actor: Int, _ cursor: inout Cursor) throws(Stop) -> Observation? {
        guard let block = block(at: cursor) else { return nil }
        let (index, step) = block.actors[actor][cursor.actors[actor].step]
        pieces += 1
        tape?.begin(step)
        let seen = try source.attempt(index, step) { () throws(Stop) in
            try cursor.actors[actor].advance(step, &cursor.machine)
        }
        guard let seen else { return nil }
        tape?.end(step, line: source.places[index].line, seen, cursor.machine)
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
