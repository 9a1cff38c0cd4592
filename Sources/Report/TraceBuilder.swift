// SPDX-License-Identifier: MIT
import MiniVMM

/// Builds a ``RecordedTrace`` from events, which come as values or as lines of a file.
///
/// Memory is bounded: of a long trace, the first and the last events are kept. The builder counts the events in between, and
/// records the page states after them.
struct TraceBuilder: Sendable {
    /// Limits for distinct actors and shapes. Further ones share one actor and one shape.
    static let mostActors = 200
    static let mostShapes = 2000
    /// The limit for bytes of texts in ``current``. With long texts, fewer of the last events are kept.
    private static let mostTextBytes = 32 << 20

    var trace = RecordedTrace()
    private let mostEvents: Int
    /// The first events, once their half is full.
    private var head: EventColumns?
    /// The last events: ``current`` is being filled, ``older`` has the ones before it.
    private var older = EventColumns()
    private var current = EventColumns()
    private var leftOut = LeftOut()
    private var console = ConsoleLines<UInt8>()
    private var shapesByHash: [UInt64: UInt16] = [:]
    private var actorsByHash: [UInt64: UInt8] = [:]
    private var actorsByValue: [Actor: UInt8] = [:]
    private var overflowShape: UInt16?
    private var isFinishing = false
    // The event that is being added as a value.
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

    // MARK: events from a file

    /// - Parameter hash: the hash of the actor's name.
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
    /// - Parameter hash: the hash of its name, keys and types. A crafted file can make hashes collide. Because the types are
    ///   compared too, the worst result is a wrong name.
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

    /// Ends the console line of an actor that has another event.
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
        leftOut.add(event, of: older, shape)
    }

    /// The trace of all events so far.
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
        if leftOut.count > 0 { addLeftOut(kept: last.reduce(0) { $0 + $1.1.count }) }
        for (columns, events) in last {
            for event in events {
                current.append(event, of: columns, trace.shapes[Int(columns.shapeOf[event])])
            }
        }
    }

    /// Adds one event for all that were left out, and one for each range of pages that they changed.
    private mutating func addLeftOut(kept: Int) {
        let host = index(of: .monitor)
        let count = leftOut.count
        add(leftOut.firstTime, host) {
            $0.begin(.leftOut)
            $0.number(.events, UInt64(count))
        }
        let (changes, omitted) = leftOut.changes()
        for (range, state) in changes {
            add(leftOut.lastTime, host) {
                $0.begin(.pagesThen)
                $0.number(.gpa, range.start)
                $0.number(.size, range.size)
                $0.text(.state, state.rawValue)
            }
        }
        if let omitted {
            trace.notes.append(
                "After the events that were left out, the states of pages from \(omitted) on are not known and may "
                    + "be drawn wrong.")
        }
        trace.notes.append(
            "\(count) events in the middle are left out: this picture has the first \(mostEvents / 2) and the "
                + "last \(kept). `minivmm report TRACE.jsonl --text` lists all events; `--events N` draws up to N."
        )
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
        // A double cannot represent smaller numbers. TraceReader stores them as text as well.
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
