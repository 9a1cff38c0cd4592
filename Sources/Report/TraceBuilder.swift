// SPDX-License-Identifier: MIT
import MiniVMM

/// Makes a ``RecordedTrace`` of events as they come, whether they are values or lines of a file.
///
/// Of a long trace the first half of the events that may be kept and the last half are; what lies between is counted,
/// and what it did to the pages is told. Its memory does not grow with the trace then.
struct TraceBuilder: Sendable {
    /// Actors and shapes that are told apart; the rest is one of each.
    static let mostActors = 200
    static let mostShapes = 2000
    /// Bytes of texts in either half of the last events; fewer events are kept where they have longer texts.
    private static let mostTextBytes = 32 << 20

    var trace = RecordedTrace()
    private let mostEvents: Int
    /// The first half, once it is full.
    private var head: EventColumns?
    /// The last ones: those before ``current``, and those now being added.
    private var older = EventColumns()
    private var current = EventColumns()
    private var leftOut = LeftOut()
    private var console = ConsoleLines<UInt8>()
    private var shapesByHash: [UInt64: UInt16] = [:]
    private var actorsByHash: [UInt64: UInt8] = [:]
    private var actorsByValue: [Actor: UInt8] = [:]
    private var overflowShape: UInt16?
    private var isFinishing = false
    // The event being added, if it comes as a value.
    private var name = EventName.boot
    private var keys: [EventKey] = []
    private var types: [RecordedTrace.ValueType] = []
    private var hash: UInt64 = 0

    init(mostEvents: Int) { self.mostEvents = max(2, mostEvents) }

    private var mostLast: Int { mostEvents - mostEvents / 2 }

    // MARK: events as values

    mutating func begin(backend: BackendIdentity, time: UInt64) {
        trace.backend = backend.name
        trace.host = backend.host
        trace.isSimulated = backend.kind == .simulated
        trace.start = time
    }

    mutating func add(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        let who = index(of: actor)
        if let letter = event.printedLetter { return print(letter, by: who, at: time) }
        endPrinting(who)
        add(time, who) { event.describe(to: &$0) }
    }

    private mutating func add(_ time: UInt64, _ actor: UInt8, _ describe: (inout Self) -> Void) {
        begin(time, actor)
        hash = LineScanner.seed
        keys.removeAll(keepingCapacity: true)
        types.removeAll(keepingCapacity: true)
        describe(&self)
        let (name, keys, types) = (name, keys, types)
        end(hash, types) {
            RecordedTrace.Shape(
                name: name.spelling.description, keys: keys.map(\.spelling.description), types: types)
        }
    }

    private mutating func index(of actor: Actor) -> UInt8 {
        if let known = actorsByValue[actor] { return known }
        let index = index(ofActor: EventColumns.hash(actor.description.utf8)) { actor.description }
        if index < Self.mostActors { actorsByValue[actor] = index }
        return index
    }

    // MARK: events as they are read

    /// - Parameter hash: of the actor's name.
    mutating func index(ofActor hash: UInt64, _ name: () -> String) -> UInt8 {
        if let known = actorsByHash[hash] { return known }
        let index = trace.actors.count
        if index >= Self.mostActors {
            if index == Self.mostActors { trace.actors.append("others") }
            return UInt8(Self.mostActors)
        }
        trace.actors.append(name())
        actorsByHash[hash] = UInt8(index)
        return UInt8(index)
    }

    mutating func begin(_ time: UInt64, _ actor: UInt8) {
        if !isFinishing { makeRoom() }
        current.begin(time, actor)
    }

    private mutating func makeRoom() {
        if head == nil {
            guard current.count >= mostEvents / 2 else { return }
            head = current
        } else {
            guard current.count >= mostLast || current.textBytes >= Self.mostTextBytes else { return }
            for event in 0..<older.count { leaveOut(event) }
            older = current
        }
        current = EventColumns()
    }

    mutating func append(_ bits: Int64) { current.append(bits) }

    mutating func append(utf8: some Collection<UInt8>, hash: UInt64, _ make: () -> String) {
        current.append(utf8: utf8, hash: hash, make)
    }

    mutating func append(_ text: String) { current.append(text) }

    /// Ends the event.
    ///
    /// - Parameter hash: of its name, keys and types. Hashes can be made to collide; with the types right, nothing worse
    ///   than a wrong name comes of it.
    mutating func end(
        _ hash: UInt64, _ types: some Collection<RecordedTrace.ValueType>, _ make: () -> RecordedTrace.Shape
    ) {
        if let known = shapesByHash[hash], trace.shapes[Int(known)].types.elementsEqual(types) {
            return current.end(known)
        }
        guard trace.shapes.count < Self.mostShapes else {
            current.removeValues()
            current.append(make().name)
            return current.end(otherShape())
        }
        let index = UInt16(trace.shapes.count)
        trace.shapes.append(make())
        shapesByHash[hash] = index
        current.end(index)
    }

    private mutating func otherShape() -> UInt16 {
        if let overflowShape { return overflowShape }
        let index = UInt16(trace.shapes.count)
        trace.shapes.append(RecordedTrace.Shape(name: "other", keys: ["event"], types: [.text]))
        overflowShape = index
        return index
    }

    // MARK: the console

    mutating func print(_ letter: UInt8, by actor: UInt8, at time: UInt64) {
        if let line = console.print(letter, by: actor, time: time) { add(line) }
    }

    /// The actor does something else.
    mutating func endPrinting(_ actor: UInt8) {
        if let line = console.end(of: actor) { add(line) }
    }

    private mutating func add(_ line: ConsoleLines<UInt8>.Line) {
        add(line.time, line.actor) {
            $0.begin(.console)
            $0.text(.text, line.text)
            $0.number(.exits, UInt64(line.exits))
        }
    }

    // MARK: the end

    private mutating func leaveOut(_ event: Int) {
        let shape = trace.shapes[Int(older.shapeOf[event])]
        trace.conversions.add(
            shape.event, byVCPU: RecordedTrace.isVCPU(trace.actors[Int(older.actorOf[event])]))
        leftOut.take(event, of: older, shape)
    }

    /// All that has been added.
    func finished() -> RecordedTrace {
        var copy = self
        return copy.finish()
    }

    private mutating func finish() -> RecordedTrace {
        for line in console.endAll() { add(line) }
        isFinishing = true
        if let head { join(head) }
        trace.columns = current
        for event in 0..<trace.count {
            trace.conversions.add(trace.shape(event).event, byVCPU: RecordedTrace.isVCPU(trace.actor(event)))
        }
        return trace
    }

    private mutating func join(_ head: EventColumns) {
        let surplus = max(0, older.count + current.count - mostLast)
        for event in 0..<min(surplus, older.count) { leaveOut(event) }
        let last = [(older, min(surplus, older.count)..<older.count), (current, 0..<current.count)]
        current = head
        if leftOut.count > 0 { tellLeftOut(kept: last.reduce(0) { $0 + $1.1.count }) }
        for (columns, events) in last {
            for event in events {
                current.append(event, of: columns, trace.shapes[Int(columns.shapeOf[event])])
            }
        }
    }

    /// One event for all that is not there, and one for each range of pages that it changed.
    private mutating func tellLeftOut(kept: Int) {
        let host = index(of: .monitor)
        let count = leftOut.count
        add(leftOut.firstTime, host) {
            $0.begin(.leftOut)
            $0.number(.events, UInt64(count))
        }
        let (changes, untold) = leftOut.changes()
        for (range, state) in changes {
            add(leftOut.lastTime, host) {
                $0.begin(.pagesThen)
                $0.number(.gpa, range.start)
                $0.number(.size, range.size)
                $0.text(.state, state.rawValue)
            }
        }
        if let untold {
            trace.notes.append(
                "Behind what was left out, the pages from \(untold) on may be in another state than is drawn."
            )
        }
        trace.notes.append(
            "\(count) events in the middle are left out: this shows the first \(mostEvents / 2) and the last "
                + "\(kept). `minivmm report TRACE.jsonl --text` lists all; `--events N` draws more of them.")
    }
}

extension TraceBuilder: TraceFields {
    mutating func begin(_ name: EventName) {
        self.name = name
        hash = (hash ^ UInt64(name.rawValue)) &* LineScanner.prime
    }

    mutating func number(_ key: EventKey, _ value: UInt64) {
        add(key, RecordedTrace.ValueType(value))
        current.append(Int64(bitPattern: value))
    }

    mutating func signed(_ key: EventKey, _ value: Int64) {
        // A script cannot hold a smaller one; a reader of a file keeps it as text, too.
        guard value >= -(1 << 53) else { return text(key, String(value)) }
        add(key, value < 0 ? .number : RecordedTrace.ValueType(value.magnitude))
        current.append(value)
    }

    mutating func flag(_ key: EventKey, _ value: Bool) {
        add(key, .flag)
        current.append(value ? 1 : 0)
    }

    mutating func text(_ key: EventKey, _ value: String) {
        add(key, .text)
        current.append(value)
    }

    private mutating func add(_ key: EventKey, _ type: RecordedTrace.ValueType) {
        keys.append(key)
        types.append(type)
        hash = (hash ^ UInt64(key.rawValue) << 8 ^ UInt64(type.rawValue)) &* LineScanner.prime
    }
}
