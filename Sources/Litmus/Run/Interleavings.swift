import MiniVMM
import SoftKVM
import SystemPackage

/// Goes through all interleavings of a test's parallel blocks on the software kernel.
///
/// What is interleaved are the atomic pieces of each step (``Position``). Interleavings that lead to the same state of the
/// machine, with the same steps left, go on as one: the states are compared whole (``World/snapshot``), so the set of
/// outcomes is exact.
///
/// To go on differently from a state it is restored, if the model can say what comes of every step (``World/save()``). Otherwise
/// a run cannot be taken back, and the way to the state is gone again.
struct Interleavings {
    /// All endings, and how many states were met on the way to them.
    struct Result {
        var endings: Set<Ending> = []
        var states = 0
        /// Why these are not all; nil where they are.
        var cut: Cut.Reason?
    }

    /// Pieces that are done before it is given up.
    static let mostPieces = 5_000_000

    let source: Source
    let program: Program
    let facts: KernelFacts
    let patience: Patience
    /// The software kernel is the one that is looked at, and no judge of another.
    private let isJudged: Bool
    /// False goes through every interleaving by itself: for a check of this one.
    private let merges: Bool
    private let mostPieces: Int
    /// Whether the endings found so far will do where not all can be had.
    private let keepsPart: Bool
    /// No step needs a CPU, so that states can be restored.
    private let isSayable: Bool
    private var cut: Cut.Reason?
    private(set) var known: [Key: Set<Ending>] = [:]
    private var world: World?
    private var pieces = 0
    /// The state of a machine on which nothing was done.
    private var beginning: World.Snapshot?
    private var saved: World.Saved?

    init(
        _ source: Source, on facts: KernelFacts, _ patience: Patience, isJudged: Bool = false,
        merges: Bool = true, mostPieces: Int = Interleavings.mostPieces, keepsPart: Bool = false
    ) {
        self.mostPieces = mostPieces
        self.isJudged = isJudged
        self.keepsPart = keepsPart
        self.source = source
        self.merges = merges
        self.facts = facts
        self.patience = patience
        program = Program(source.test)
        isSayable = source.test.isSayable(on: facts, isModel: !isJudged)
    }

    mutating func explore() throws(Stop) -> Result {
        defer {
            world?.close()
            world = nil
        }
        var cursor = try start()
        let endings = try visit(&cursor, path: [])
        return Result(endings: endings, states: known.count, cut: cut)
    }

    // MARK: the run under way

    /// How far a run has come.
    struct Cursor {
        let world: World
        /// The part that is next, or under way.
        var part = 0
        /// In a block: how far each actor has come; empty outside.
        var actors: [Position] = []
        var failure: Failure?

        /// Those who have a step left and need not wait for another.
        func actors(of block: Program.Block) -> [Int] {
            block.actors.indices.filter { actor in
                let (position, steps) = (actors[actor], block.actors[actor])
                return position.step < steps.count
                    && !position.waits(before: steps[position.step].step, world)
            }
        }
    }

    private mutating func start() throws(Stop) -> Cursor {
        // A kernel with faults planted may not come back to what it was.
        if let world, !goBack(world) {
            world.close()
            self.world = nil
        }
        let fresh: World
        if let world {
            fresh = world
        } else {
            let own = (isSayable ? facts.valued : nil) ?? facts.anew
            fresh = try World(own, source.test, patience, isModel: !isJudged)
        }
        if world == nil {
            beginning = fresh.snapshot
            saved = fresh.save()
        }
        world = fresh
        var cursor = Cursor(world: fresh)
        try advanceToBlock(&cursor)
        return cursor
    }

    private func goBack(_ world: World) -> Bool {
        guard let saved else { return world.reset() && world.snapshot == beginning }
        world.restore(saved)
        return true
    }

    /// Does the steps up to the next block, or to the end.
    mutating func advanceToBlock(_ cursor: inout Cursor) throws(Stop) {
        while cursor.part < program.parts.count {
            switch program.parts[cursor.part] {
            case .block(let block):
                cursor.actors = block.actors.map { _ in Position() }
                return
            case .step(let index, let step):
                pieces += 1
                if let failure = try source.perform(index, step, cursor.world) {
                    cursor.failure = failure
                    return
                }
                cursor.part += 1
            }
        }
    }

    mutating func replay(_ path: [Int]) throws(Stop) -> Cursor {
        var cursor = try start()
        for actor in path { try advance(actor, &cursor) }
        return cursor
    }

    /// All endings from here on. The results of what was done before are not in them.
    private mutating func visit(_ cursor: inout Cursor, path: [Int]) throws(Stop) -> Set<Ending> {
        if let failure = cursor.failure { return [Ending(failure: failure)] }
        guard cursor.part < program.parts.count, case .block(let block) = program.parts[cursor.part] else {
            return [Ending()]
        }
        let key = key(of: cursor)
        if merges, let endings = known[key] { return endings }
        if let reason = pieces < mostPieces ? patience.stop : .pieces(mostPieces) {
            guard keepsPart else { throw .broken("not all interleavings are explored: \(reason)") }
            cut = reason
            return []
        }
        var endings: Set<Ending> = []
        var isHere = true
        let saved = cursor.world.save()
        for actor in cursor.actors(of: block) where cut == nil {
            var here = cursor
            if !isHere {
                if let saved { cursor.world.restore(saved) } else { here = try replay(path) }
            }
            isHere = false
            let result = try advance(actor, &here)
            for ending in try visit(&here, path: path + [actor]) {
                var ending = ending
                if let result {
                    ending.results[ResultKey(block: block.number, name: result.name)] = result.outcome
                }
                endings.insert(ending)
            }
        }
        if cut == nil { known[key] = endings }
        return endings
    }

    /// Everything that decides what can still come.
    struct Key: Hashable {
        let part: Int
        let actors: [Position.Key]
        let world: World.Snapshot
    }

    func key(of cursor: Cursor) -> Key {
        Key(part: cursor.part, actors: cursor.actors.map(\.key), world: cursor.world.snapshot)
    }

    // MARK: pieces

    /// Does the next piece of an actor, and all that follows a block whose last piece it was.
    ///
    /// - Returns: the result that has a name, if the step ended with it.
    @discardableResult
    mutating func advance(
        _ actor: Int, _ cursor: inout Cursor
    ) throws(Stop) -> (name: Name, outcome: StepOutcome)? {
        guard case .block(let block) = program.parts[cursor.part] else { return nil }
        let (index, step) = block.actors[actor][cursor.actors[actor].step]
        pieces += 1
        var position = cursor.actors[actor]
        let world = cursor.world
        if world.isRecording, position.began == nil { position.began = world.kernel.now() }
        let seen = try source.attempt(index, step) { () throws(Stop) in
            try position.advance(step, world)
        }
        cursor.actors[actor] = position
        guard let seen else { return nil }
        if let failure = source.hostFailure(seen, index, step, world) { throw .host(failure) }
        cursor.actors[actor] = Position(step: position.step + 1)
        if let began = position.began {
            world.record(step, line: source.places[index].line, seen, ok: step.accepts(seen), began: began)
        }
        if let failure = source.judge(seen, index, step, world) {
            cursor.failure = failure
            return nil
        }
        let isOver = zip(cursor.actors, block.actors).allSatisfy { $0.step == $1.count }
        if isOver {
            cursor.actors = []
            cursor.part += 1
            try advanceToBlock(&cursor)
        }
        return step.result.map { ($0, seen.outcome) }
    }
}

extension World {
    /// Everything that decides what later steps come to, on the software kernel.
    struct Snapshot: Hashable {
        fileprivate let kernel: SoftKVM.State?
        fileprivate let files: [Name: DescriptorID]
        fileprivate let views: [Name: MappingID]
        fileprivate let gone: Set<Name>
        fileprivate let holds: [Name: SoftPageHold.State?]
        fileprivate let slots: [SlotKey: Name]
        fileprivate let stuck: [String]
        fileprivate let said: [Int: SaidVCPU]
    }

    var snapshot: Snapshot {
        let state = state.withLock { $0 }
        return Snapshot(
            kernel: facts.soft?.state,
            files: state.files.compactMapValues { ($0 as? SoftGuestMemfd)?.number },
            views: state.views.compactMapValues { ($0.mapping as? SoftHostMapping)?.number },
            gone: Set(state.gone.keys), holds: state.holds.compactMapValues { ($0 as? SoftPageHold)?.state },
            slots: state.slots.mapValues(\.extent.name), stuck: state.agent?.stuck ?? [],
            said: state.said)
    }
}

extension Action {
    /// An access to memory, of a host's or a guest's instruction.
    var isAccess: Bool {
        switch self {
        case .read, .write, .fill, .check: true
        default: false
        }
    }

    /// To one byte.
    var isSingle: Bool {
        switch self {
        case .read, .write: true
        default: false
        }
    }
}
