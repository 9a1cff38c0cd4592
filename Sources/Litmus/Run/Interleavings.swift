import MiniVMM
import SoftKVM
import SystemPackage

/// Goes through all interleavings of a test's parallel blocks on the software kernel.
///
/// The pieces that are interleaved are what is one to everybody else: a call of the conversion ioctl, a vCPU's access, a
/// host's access to a page once it has its reference, and the taking of that reference before. Interleavings that lead to
/// the same state of the machine, with the same steps left, go on as one: the state is written down whole
/// (``World/appendState(to:)``) and compared, so the set of outcomes is exact.
///
/// A run cannot be taken back. To go on differently from a state, the way to it is gone again.
struct Interleavings {
    /// All endings, and how many states were met on the way to them.
    struct Result {
        var endings: Set<Ending> = []
        var states = 0
    }

    /// Pieces that are done before it is given up.
    static let mostPieces = 5_000_000

    let source: Source
    let program: Program
    let facts: KernelFacts
    let patience: Patience
    /// False goes through every interleaving by itself: for a check of this one.
    private let merges: Bool
    private let mostPieces: Int
    private(set) var known: [[UInt8]: Set<Ending>] = [:]
    private var world: World?
    private var pieces = 0
    /// The state of a machine on which nothing was done.
    private var beginning: [UInt8] = []

    init(
        _ source: Source, on facts: KernelFacts, _ patience: Patience, merges: Bool = true,
        mostPieces: Int = Interleavings.mostPieces
    ) {
        self.mostPieces = mostPieces
        self.source = source
        self.merges = merges
        self.facts = facts
        self.patience = patience
        program = Program(source.test)
    }

    mutating func explore() throws(Stop) -> Result {
        defer {
            world?.close()
            world = nil
        }
        var cursor = try start()
        let endings = try visit(&cursor, path: [])
        return Result(endings: endings, states: known.count)
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
    }

    struct Position {
        /// The step that is next, or under way.
        var step = 0
        /// Bytes of its access that are done.
        var done: UInt64 = 0
        /// When it began, where that is written down.
        var began: UInt64?
        /// The references that the step has on pages: an access on its own, who unmaps on all that were mapped.
        var references: [SoftPageHold] = []
        /// The page that a vCPU is about to write is in the dirty log.
        var isLogged = false

        mutating func letGo() {
            for reference in references { reference.release() }
            references = []
        }
    }

    private mutating func start() throws(Stop) -> Cursor {
        // A kernel with faults planted may not come back to what it was.
        if let world, !world.reset() || state(of: world) != beginning {
            world.close()
            self.world = nil
        }
        let fresh: World
        if let world { fresh = world } else { fresh = try World(facts, source.test, patience) }
        if world == nil { beginning = state(of: fresh) }
        world = fresh
        var cursor = Cursor(world: fresh)
        try advanceToBlock(&cursor)
        return cursor
    }

    private func state(of world: World) -> [UInt8] {
        var state: [UInt8] = []
        world.appendState(to: &state)
        return state
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
        guard pieces < mostPieces else {
            throw .broken("more than \(mostPieces) pieces, and not all interleavings are gone through")
        }
        if patience.isOver { throw .broken("time is over, and not all interleavings are gone through") }
        var endings: Set<Ending> = []
        var isHere = true
        for actor in block.actors.indices where cursor.actors[actor].step < block.actors[actor].count {
            var here = isHere ? cursor : try replay(path)
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
        known[key] = endings
        return endings
    }

    /// Everything that decides what can still come.
    func key(of cursor: Cursor) -> [UInt8] {
        var key: [UInt8] = [
            UInt8(truncatingIfNeeded: cursor.part), UInt8(truncatingIfNeeded: cursor.part >> 8),
        ]
        for position in cursor.actors {
            key.append(UInt8(truncatingIfNeeded: position.step))
            key.append(UInt8(truncatingIfNeeded: position.step >> 8))
            key.append(contentsOf: (0..<4).map { UInt8(truncatingIfNeeded: position.done >> ($0 * 8)) })
            key.append(
                UInt8(truncatingIfNeeded: position.references.count) << 1 | (position.isLogged ? 1 : 0))
            for reference in position.references { reference.appendState(to: &key) }
        }
        cursor.world.appendState(to: &key)
        return key
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
            try piece(of: step, &position, world)
        }
        cursor.actors[actor] = position
        guard let seen else { return nil }
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

    /// References on all pages that are mapped, the step itself, and the references let go of one after the other.
    private func unmapping(
        _ view: Extent, _ step: Step, _ position: inout Position, _ world: World
    ) throws(Stop) -> Observation? {
        guard position.done == 0 else {
            position.references.removeFirst().release()
            return position.references.isEmpty ? Observation(.ok) : nil
        }
        if position.references.isEmpty {
            position.references = try world.beginUnmapping(view)
            if !position.references.isEmpty { return nil }
        }
        let seen = try world.perform(step)
        guard seen.outcome == .ok, !position.references.isEmpty else {
            position.letGo()
            return seen
        }
        position.done = 1
        return nil
    }

    /// A reference on the page; then, as long as the page is new to the LRU, none for a moment; then the failure of its
    /// memory, whatever the page is by now.
    private func poisoning(
        _ page: Extent, _ step: Step, _ position: inout Position, _ world: World
    ) throws(Stop) -> Observation? {
        guard position.done == 0 else {
            try world.failMemory(page)
            return Observation(.errno(Errno.resourceBusy.rawValue))
        }
        if position.references.isEmpty {
            guard let reference = try? world.beginHostAccess(page, step) else {
                return try world.perform(step)
            }
            position.references = [reference]
        } else {
            position.letGo()
            position.done = 1
        }
        return nil
    }

    /// - Returns: what came of the step, nil if there is more of it.
    private func piece(
        of step: Step, _ position: inout Position, _ world: World
    ) throws(Stop) -> Observation? {
        if let view = step.action.unmapped { return try unmapping(view, step, &position, world) }
        if let page = step.action.poisoned { return try poisoning(page, step, &position, world) }
        guard let extent = step.action.extent, step.action.isAccess else { return try world.perform(step) }
        let place = extent.offset + position.done
        let left = extent.size - position.done
        let count = min(left, pageSize - place % pageSize)
        let part = Extent(extent.name, offset: place, size: count)
        if case .vcpu(let number) = step.role {
            // The page is logged before it is written, and once more if the log has been taken in between.
            if step.action.isWrite, !position.isLogged, try world.beginGuestWrite(at: place) {
                position.isLogged = true
                return nil
            }
            if position.references.isEmpty, let fault = try world.beginGuestFault(at: place) {
                position.references = [fault]
                return nil
            }
            let seen = try world.guest().access(part, step.action, vcpu: number, isRacing: true)
            position.letGo()
            position.isLogged = false
            position.done += count
            return seen.outcome == .ok && position.done < extent.size ? nil : seen
        }
        guard let reference = position.references.first else {
            if let reference = try world.beginHostAccess(part, step) {
                position.references = [reference]
                return nil
            }
            let seen = Observation(.sigbus(at: place))
            return step.action.isSingle ? seen.withoutPlace : seen
        }
        defer {
            position.letGo()
            position.done += count
        }
        switch step.action {
        case .write(_, let byte), .fill(_, let byte):
            reference.fill(at: place % pageSize, count: Int(count), with: byte)
        default:
            let byte = reference.read(at: place % pageSize, count: 1)?.first ?? 0
            return Observation(.value(byte))
        }
        return position.done + count < extent.size ? nil : Observation(.ok)
    }
}

extension World {
    /// The reference that an access takes on its page first.
    ///
    /// - Returns: nil if the host gets no page.
    fileprivate func beginHostAccess(_ extent: Extent, _ step: Step) throws(Stop) -> SoftPageHold? {
        let role = step.role
        let mapping: any HostMapping
        if case .child(let number) = role {
            guard let view = try child(number).mapping(of: extent.name) else {
                throw .broken("\(role) has no view `\(extent.name)`: there was none when it was forked")
            }
            try extent.isInside(view.length)
            mapping = view
        } else {
            mapping = try self.mapping(extent)
        }
        // Who reads the pages, or writes them.
        let kind: HoldKind = step.action.isWrite ? .gupTest : .directIO
        return (try? mapping.hold(at: extent.offset, length: extent.size, by: kind)) as? SoftPageHold
    }

    /// Those on the pages that are mapped in what is to be unmapped. Nothing where that cannot be done.
    fileprivate func beginUnmapping(_ extent: Extent) throws(Stop) -> [SoftPageHold] {
        guard let view = state.withLock({ $0.views[extent.name] })?.mapping as? SoftHostMapping,
            extent.offset <= view.length
        else { return [] }
        return view.holdMapped(at: extent.offset, length: min(extent.size, view.length - extent.offset))
    }

    fileprivate func failMemory(_ page: Extent) throws(Stop) {
        try poison(page)
        (try mapping(page) as? SoftHostMapping)?.failMemory(at: page.offset)
    }

    /// A write fault of a vCPU: the page comes into the dirty log.
    ///
    /// - Returns: whether its slot has one.
    fileprivate func beginGuestWrite(at gpa: UInt64) throws(Stop) -> Bool {
        (try vm(nil) as? SoftVM)?.beginGuestWrite(at: gpa) ?? false
    }

    fileprivate func beginGuestFault(at gpa: UInt64) throws(Stop) -> SoftPageHold? {
        (try vm(nil) as? SoftVM)?.beginGuestFault(at: gpa)
    }

    /// Everything that decides what later steps come to, on the software kernel.
    func appendState(to bytes: inout [UInt8]) {
        let state = state.withLock { $0 }
        func append(_ name: Name) { bytes += Array(name.description.utf8) + [0] }
        for (name, file) in state.files.sorted(by: { $0.key.description < $1.key.description }) {
            append(name)
            (file as? SoftGuestMemfd)?.appendState(to: &bytes)
        }
        for (name, view) in state.views.sorted(by: { $0.key.description < $1.key.description }) {
            append(name)
            (view.mapping as? SoftHostMapping)?.appendState(to: &bytes)
            // A file that is closed lives on in its views.
            if state.files[view.file] == nil {
                (view.mapping as? SoftHostMapping)?.appendFileState(to: &bytes)
            }
        }
        for name in state.gone.keys.map(\.description).sorted() { bytes += Array(name.utf8) + [1] }
        for (name, hold) in state.holds.sorted(by: { $0.key.description < $1.key.description }) {
            append(name)
            (hold as? SoftPageHold)?.appendState(to: &bytes)
        }
        for (_, vm) in state.vms.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            (vm as? SoftVM)?.appendState(to: &bytes)
        }
        for (key, slot) in state.slots.sorted(by: {
            ($0.key.vm.rawValue, $0.key.number) < ($1.key.vm.rawValue, $1.key.number)
        }) {
            bytes += Array("\(key.vm.rawValue) \(key.number) \(slot.extent.name)".utf8) + [0]
        }
        for access in state.agent?.stuck ?? [] { bytes += Array(access.utf8) + [0] }
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

    /// The part of a view that it takes out of the page tables; all of it is more than there is.
    fileprivate var unmapped: Extent? {
        switch self {
        case .unmap(let view): Extent(view, offset: 0, size: .max)
        case .advise(let extent, .dontNeed): extent
        default: nil
        }
    }

    /// The page whose memory fails: the first of those that are named.
    fileprivate var poisoned: Extent? {
        guard case .advise(let extent, .hwPoison) = self, extent.offset % pageSize == 0 else { return nil }
        return Extent(extent.name, offset: extent.offset, size: min(extent.size, pageSize))
    }

    fileprivate var isWrite: Bool {
        switch self {
        case .write, .fill: true
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
