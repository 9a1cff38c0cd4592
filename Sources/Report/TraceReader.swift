import MiniVMM
public import SystemPackage

/// Reads JSON lines of the schema `minivmm.trace/1`, piece by piece as they come.
///
/// What a guest printed byte by byte becomes one `console` event a line. Events and keys that nobody knows are kept.
public struct TraceReader: Sendable {
    /// Bytes that a line may have.
    public static let longestLine = 1 << 20
    /// Actors and shapes that are told apart; the rest is one of each.
    static let mostActors = 200
    static let mostShapes = 2000

    public private(set) var trace = RecordedTrace()
    /// Bytes of a line that has not ended yet.
    private var rest: [UInt8] = []
    private var line = 0
    private var scanner = LineScanner()
    private var shapesByHash: [UInt64: UInt16] = [:]
    private var actorsByHash: [UInt64: UInt8] = [:]
    private var stringsByHash: [UInt64: [Int]] = [:]
    private var console: [UInt8: OpenLine] = [:]
    private var consoleShape: UInt16?
    private var overflowShape: UInt16?

    /// What an actor has printed since its last newline.
    /// Events that a picture shows, and a page stays small enough to open.
    public static let defaultEvents = 200_000
    /// Bytes of the lines that are kept until it is known whether they are among the last.
    private static let mostTailBytes = 64 << 20
    private let mostEvents: Int
    /// The last lines so far, with their numbers, once the first half of what is kept is there.
    private var tail: [(line: Int, bytes: [UInt8])] = []
    /// How many of them are gone.
    private var gone = 0
    private var tailBytes = 0
    private var leftOut = LeftOut()
    private var isDraining = false

    private struct OpenLine: Sendable {
        let event: Int
        var bytes: [UInt8] = []
        var exits = 0
    }

    /// - Parameter mostEvents: of a longer trace the first half of so many and the last are kept, and
    ///   ``RecordedTrace/notes`` says so.
    public init(mostEvents: Int = .max) { self.mostEvents = max(2, mostEvents) }

    /// Takes the next bytes of the file.
    public mutating func add(_ bytes: some Collection<UInt8>) throws(ReportError) {
        rest.append(contentsOf: bytes)
        var begin = 0
        var end = 0
        let count = rest.count
        while end < count {
            if rest[end] == 10 {
                try addLine(begin..<end)
                begin = end + 1
            } else if end - begin > Self.longestLine {
                throw ReportError(line: line + 1, "longer than \(Self.longestLine) bytes: not a trace")
            }
            end += 1
        }
        rest.removeSubrange(..<begin)
    }

    /// Ends the file: a last line without its end is complete, or is reported in ``RecordedTrace/notes``.
    public mutating func finish() throws(ReportError) -> RecordedTrace {
        try drain()
        if !rest.isEmpty {
            let whole = 0..<rest.count
            if line == 0 {
                try addLine(whole)
            } else {
                do throws(ReportError) {
                    try addLine(whole)
                } catch {
                    trace.notes.append("line \(line) is cut off: the trace ended in the midst of an event")
                }
            }
        }
        guard line > 0 else { throw ReportError(line: 1, "empty: not a trace") }
        for actor in console.keys.sorted() { endPrinting(actor) }
        return trace
    }

    // MARK: lines

    private mutating func addLine(_ range: Range<Int>) throws(ReportError) {
        line += 1
        if range.isEmpty, line > 1 { return }
        if trace.count >= mostEvents / 2, !isDraining, line > 1 { return try keep(range) }
        do throws(ReportError) {
            try scanner.scan(rest, range)
        } catch {
            throw ReportError(
                line: line,
                line == 1 ? "not a trace of MiniVMM (JSON lines, schema minivmm.trace/1)" : error.message)
        }
        if line == 1 { return try readHeader() }
        try readEvent()
    }

    /// Keeps a line that may be among the last.
    private mutating func keep(_ range: Range<Int>) throws(ReportError) {
        tail.append((line, Array(rest[range])))
        tailBytes += range.count
        while tail.count - gone > mostEvents - mostEvents / 2 || tailBytes > Self.mostTailBytes {
            let (number, old) = tail[gone]
            tail[gone].bytes = []
            gone += 1
            tailBytes -= old.count
            if gone > 4096, gone > tail.count / 2 {
                tail.removeFirst(gone)
                gone = 0
            }
            do throws(ReportError) {
                try scanner.scan(old, 0..<old.count)
            } catch {
                throw ReportError(line: number, error.message)
            }
            leftOut.take(scanner.fields, in: old)
        }
    }

    /// Reads the lines that were kept, behind what was left out.
    private mutating func drain() throws(ReportError) {
        isDraining = true
        guard tail.count > gone else { return }
        if leftOut.count > 0 { tellLeftOut() }
        let (unread, number) = (rest, line)
        for (line, bytes) in tail[gone...] {
            rest = bytes
            self.line = line - 1
            try addLine(0..<bytes.count)
        }
        (rest, line) = (unread, number)
        tail = []
        gone = 0
    }

    /// One event for all that is not there, and one for each range of pages that it changed.
    private mutating func tellLeftOut() {
        for actor in console.keys.sorted() { endPrinting(actor) }
        let host = UInt8(trace.actors.firstIndex(of: "host") ?? 0)
        if trace.actors.isEmpty { trace.actors.append("host") }
        func shape(_ name: String, _ keys: [String], _ types: [RecordedTrace.ValueType]) -> UInt16 {
            trace.shapes.append(RecordedTrace.Shape(name: name, keys: keys, types: types))
            return UInt16(trace.shapes.count - 1)
        }
        begin(leftOut.firstTime, host, shape("left-out", ["events"], [.number]))
        trace.values.append(Int64(leftOut.count))
        let state = shape("pages-then", ["gpa", "size", "state"], [.number, .number, .text])
        let words = PageState.allCases.map { ($0, Int64(intern($0.rawValue))) }
        var told = 0
        var untold: PageRange?
        var changes: [(PageRange, PageState)] = []
        leftOut.forEachRange { range, now in
            told += 1
            if told <= LeftOut.mostRanges { changes.append((range, now)) } else { untold = range }
            return untold == nil
        }
        for (range, now) in changes {
            begin(leftOut.lastTime, host, state)
            trace.values += [Int64(bitPattern: range.start), Int64(bitPattern: range.size)]
            trace.values.append(words.first { $0.0 == now }?.1 ?? 0)
        }
        if let untold {
            trace.notes.append(
                "Behind what was left out, the pages from \(untold) on may be in another state than is drawn."
            )
        }
        trace.notes.append(
            "\(leftOut.count) events in the middle are left out: this shows the first \(mostEvents / 2) and the last "
                + "\(tail.count - gone). `minivmm report TRACE.jsonl --text` lists all; `--events N` draws more of them."
        )
    }

    private mutating func readHeader() throws(ReportError) {
        var schema: String?
        for field in scanner.fields {
            switch string(field.key) {
            case "schema": schema = string(field)
            case "kernel": trace.kernel = string(field)
            case "host": trace.host = string(field)
            case "t": trace.start = UInt64(bitPattern: field.bits)
            default: break
            }
        }
        guard let schema, schema.hasPrefix("minivmm.trace/") else {
            throw ReportError(
                line: 1, "not a trace of MiniVMM: the first line does not say schema minivmm.trace/1")
        }
        guard schema == "minivmm.trace/1" else {
            throw ReportError(line: 1, "schema \(schema): this program reads minivmm.trace/1")
        }
        guard !trace.kernel.isEmpty else {
            throw ReportError(line: 1, "the first line does not name the kernel")
        }
    }

    private mutating func readEvent() throws(ReportError) {
        var time: UInt64?
        var actor: LineScanner.Field?
        var name: LineScanner.Field?
        var hash = LineScanner.seed
        var places: [LineScanner.Field] = []
        places.reserveCapacity(scanner.fields.count)
        for field in scanner.fields {
            if time == nil, field.keyIs("t", in: rest), field.type != .text {
                time = UInt64(bitPattern: field.bits)
            } else if actor == nil, field.keyIs("actor", in: rest), field.type == .text {
                actor = field
            } else if name == nil, field.keyIs("event", in: rest), field.type == .text {
                name = field
            } else if field.keyIs("schema", in: rest) {
                throw ReportError(line: line, "a second trace begins here; give one file a trace")
            } else {
                hash = (hash ^ field.keyHash ^ UInt64(field.type.rawValue)) &* LineScanner.prime
                places.append(field)
            }
        }
        guard let time, let actor, let name else {
            throw ReportError(line: line, "not an event: it has no \"t\", \"actor\" or \"event\"")
        }
        hash = (hash ^ name.textHash) &* LineScanner.prime
        let who = self.actor(actor)
        if let byte = printed(name, places) { return print(byte, by: who, at: time) }
        // A line that is not finished ends with whatever its actor does next.
        endPrinting(who)
        guard let shape = shape(hash, name, places) else {
            let other = otherShape()
            begin(time, who, other)
            trace.values.append(Int64(intern(string(name))))
            return
        }
        begin(time, who, shape)
        for field in places {
            trace.values.append(field.type == .text ? Int64(intern(field)) : field.bits)
        }
    }

    private mutating func begin(_ time: UInt64, _ actor: UInt8, _ shape: UInt16) {
        trace.times.append(time)
        trace.actorOf.append(actor)
        trace.shapeOf.append(shape)
        trace.valuesAt.append(trace.values.count)
    }

    // MARK: what is kept once

    private func string(_ range: Range<Int>) -> String { String(decoding: rest[range], as: UTF8.self) }

    private func string(_ field: LineScanner.Field) -> String {
        field.isEscaped ? LineScanner.unescape(rest[field.text]) : string(field.text)
    }

    private mutating func actor(_ field: LineScanner.Field) -> UInt8 {
        if let known = actorsByHash[field.textHash] { return known }
        let name = string(field)
        let index = trace.actors.count
        if index >= Self.mostActors {
            if index == Self.mostActors { trace.actors.append("others") }
            return UInt8(Self.mostActors)
        }
        trace.actors.append(name)
        actorsByHash[field.textHash] = UInt8(index)
        return UInt8(index)
    }

    private mutating func shape(_ hash: UInt64, _ name: LineScanner.Field, _ fields: [LineScanner.Field])
        -> UInt16?
    {
        // Hashes can be made to collide; with the types right, nothing worse than a wrong name comes of it.
        if let known = shapesByHash[hash],
            trace.shapes[Int(known)].types.elementsEqual(fields.lazy.map(\.type))
        {
            return known
        }
        guard trace.shapes.count < Self.mostShapes else { return nil }
        trace.shapes.append(
            RecordedTrace.Shape(
                name: string(name), keys: fields.map { string($0.key) }, types: fields.map(\.type)))
        let index = UInt16(trace.shapes.count - 1)
        shapesByHash[hash] = index
        return index
    }

    private mutating func otherShape() -> UInt16 {
        if let overflowShape { return overflowShape }
        trace.shapes.append(RecordedTrace.Shape(name: "other", keys: ["event"], types: [.text]))
        overflowShape = UInt16(trace.shapes.count - 1)
        return UInt16(trace.shapes.count - 1)
    }

    private mutating func intern(_ field: LineScanner.Field) -> Int {
        // Most texts are a few words again and again: found without making a string.
        for known in stringsByHash[field.textHash] ?? [] where !field.isEscaped {
            if trace.strings[known].utf8.elementsEqual(rest[field.text]) { return known }
        }
        trace.strings.append(string(field))
        let index = trace.strings.count - 1
        if field.text.count < 64, !field.isEscaped {
            stringsByHash[field.textHash, default: []].append(index)
        }
        return index
    }

    private mutating func intern(_ text: String) -> Int {
        trace.strings.append(text)
        return trace.strings.count - 1
    }

    // MARK: the console

    /// The byte, if the event is one to a console port.
    private func printed(_ name: LineScanner.Field, _ fields: [LineScanner.Field]) -> UInt8? {
        guard name.textIs("out", in: rest), fields.count == 3 else { return nil }
        var port: Int64 = 0
        var size: Int64 = 0
        var value: Int64 = -1
        for field in fields where field.type != .text {
            if field.keyIs("port", in: rest) { port = field.bits }
            if field.keyIs("bytes", in: rest) { size = field.bits }
            if field.keyIs("value", in: rest) { value = field.bits }
        }
        guard port == 0x3f8 || port == 0xe9, size == 1, (0...255).contains(value) else { return nil }
        return UInt8(value)
    }

    private mutating func print(_ byte: UInt8, by actor: UInt8, at time: UInt64) {
        if console[actor] == nil {
            let shape = consoleShape ?? makeConsoleShape()
            begin(time, actor, shape)
            trace.values.append(Int64(intern("")))
            trace.values.append(0)
            console[actor] = OpenLine(event: trace.count - 1)
        }
        console[actor]?.exits += 1
        if byte != 10 { console[actor]?.bytes.append(byte) }
        if byte == 10 || console[actor]?.exits ?? 0 >= 256 { endPrinting(actor) }
    }

    private mutating func makeConsoleShape() -> UInt16 {
        trace.shapes.append(
            RecordedTrace.Shape(name: "console", keys: ["text", "exits"], types: [.text, .number]))
        consoleShape = UInt16(trace.shapes.count - 1)
        return UInt16(trace.shapes.count - 1)
    }

    private mutating func endPrinting(_ actor: UInt8) {
        guard let open = console.removeValue(forKey: actor) else { return }
        let at = trace.valuesAt[open.event]
        trace.strings[Int(trace.values[at])] = String(decoding: open.bytes, as: UTF8.self)
        trace.values[at + 1] = Int64(open.exits)
    }
}

extension TraceReader {
    /// Reads a whole file, a pipe or a terminal.
    ///
    /// - Throws: ``ReportError``, or the descriptor's `Errno`.
    public static func read(_ file: FileDescriptor, mostEvents: Int = .max) throws -> RecordedTrace {
        var reader = TraceReader(mostEvents: mostEvents)
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        while true {
            let count = try unsafe chunk.withUnsafeMutableBytes { try unsafe file.read(into: $0) }
            if count == 0 { return try reader.finish() }
            try reader.add(chunk[..<count])
        }
    }
}
