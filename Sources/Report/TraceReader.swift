// SPDX-License-Identifier: MIT
import MiniVMM
public import SystemPackage

/// Reads JSON lines of the schema `minivmm.trace/1` (docs/trace.md) in pieces of any size.
///
/// Bytes that a guest prints one by one are joined into one `console` event per line. Unknown events and keys
/// are kept.
public struct TraceReader: Sendable {
    /// The limit for the bytes of a line.
    public static let longestLine = 1 << 20
    /// The default number of events in a picture. Browsers can open an HTML page with that many.
    public static let defaultEvents = 200_000

    private var builder: TraceBuilder
    /// The bytes of an incomplete line.
    private var rest: [UInt8] = []
    private var line = 0
    private var scanner = LineScanner()
    /// The fields of an event without time, actor and name.
    private var fields: [LineScanner.Field] = []

    /// - Parameter mostEvents: number of events to keep, at least 2; all by default. Of a longer trace, the first
    ///   `mostEvents / 2` events and about as many of the last ones are kept, and ``RecordedTrace/notes`` has
    ///   a sentence about it.
    public init(mostEvents: Int = .max) { builder = TraceBuilder(mostEvents: mostEvents) }

    /// Reads the next bytes of the file.
    ///
    /// - Throws: ``ReportError`` with the line: it is longer than ``longestLine``; it is not one JSON object,
    ///   or has more than 1000 keys; the first line does not name this schema and a backend; an event has no
    ///   time, actor or name; or a second trace begins.
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
                throw ReportError(
                    line: line + 1, "not a trace: the line is longer than \(Self.longestLine) bytes")
            }
            end += 1
        }
        rest.removeSubrange(..<begin)
    }

    /// Ends the file. A last line without its newline is read if it is complete, and reported in
    /// ``RecordedTrace/notes`` if not.
    ///
    /// - Throws: ``ReportError`` if the file is empty, or its only line is not the header of a trace.
    public mutating func finish() throws(ReportError) -> RecordedTrace {
        if !rest.isEmpty {
            let whole = 0..<rest.count
            if line == 0 {
                try addLine(whole)
            } else {
                do throws(ReportError) {
                    try addLine(whole)
                } catch {
                    builder.trace.notes.append(
                        "line \(line) is cut off: the trace ends in the middle of an event")
                }
            }
        }
        guard line > 0 else { throw ReportError(line: 1, "not a trace: the file is empty") }
        return builder.finished()
    }

    // MARK: lines

    private mutating func addLine(_ range: Range<Int>) throws(ReportError) {
        line += 1
        if range.isEmpty, line > 1 { return }
        do throws(ReportError) {
            try scanner.scan(rest, range)
        } catch {
            throw ReportError(
                line: line,
                line == 1
                    ? "not a trace: the first line is not a header with \"schema\":\"\(EventSchema.version)\""
                    : error.message)
        }
        if line == 1 { return try readHeader() }
        try readEvent()
    }

    private mutating func readHeader() throws(ReportError) {
        let version = EventSchema.version.description
        var schema: String?
        var isSimulated: Bool?
        for field in scanner.fields {
            func isKey(_ key: LineKey) -> Bool { field.keyIs(key.spelling, in: rest) }
            if isKey(.schema) { schema = string(field) }
            // Older traces have the key `kernel`.
            if isKey(.backend) || field.keyIs("kernel", in: rest) { builder.trace.backend = string(field) }
            if isKey(.host) { builder.trace.host = string(field) }
            if isKey(.simulated), field.type == .flag { isSimulated = field.bits != 0 }
            if isKey(.time) { builder.trace.start = UInt64(bitPattern: field.bits) }
        }
        guard let schema, schema.hasPrefix("minivmm.trace/") else {
            throw ReportError(
                line: 1, "not a trace: the first line has no \"schema\":\"\(version)\"")
        }
        guard schema == version else {
            throw ReportError(line: 1, "schema \(schema) is not supported; this program reads \(version)")
        }
        guard !builder.trace.backend.isEmpty else {
            throw ReportError(line: 1, "the first line has no \"backend\"")
        }
        // Older traces have no `simulated` key.
        builder.trace.isSimulated = isSimulated ?? (builder.trace.backend == "SoftKVM")
    }

    private mutating func readEvent() throws(ReportError) {
        var time: UInt64?
        var actor: LineScanner.Field?
        var name: LineScanner.Field?
        var hash = LineScanner.seed
        fields.removeAll(keepingCapacity: true)
        for field in scanner.fields {
            if time == nil, field.keyIs(LineKey.time.spelling, in: rest), field.type != .text {
                time = UInt64(bitPattern: field.bits)
            } else if actor == nil, field.keyIs(LineKey.actor.spelling, in: rest), field.type == .text {
                actor = field
            } else if name == nil, field.keyIs(LineKey.event.spelling, in: rest), field.type == .text {
                name = field
            } else if field.keyIs(LineKey.schema.spelling, in: rest) {
                throw ReportError(line: line, "a second trace begins here; put each trace into its own file")
            } else {
                hash = (hash ^ field.keyHash ^ UInt64(field.type.rawValue)) &* LineScanner.prime
                fields.append(field)
            }
        }
        guard let time, let actor, let name else {
            throw ReportError(
                line: line, "not an event: \"t\", \"actor\" or \"event\" is missing or has the wrong type")
        }
        hash = (hash ^ name.textHash) &* LineScanner.prime
        let (rest, fields) = (rest, fields)
        let who = builder.index(ofActor: actor.textHash) { Self.string(actor, in: rest) }
        if let letter = Self.letter(name, fields, in: rest) {
            return builder.print(letter, by: who, at: time)
        }
        // Any other event of the actor ends its console line.
        builder.endPrinting(who)
        builder.begin(time, who)
        for field in fields {
            if field.type == .text { append(field) } else { builder.append(field.bits) }
        }
        builder.end(hash, fields.lazy.map(\.type)) {
            RecordedTrace.Shape(
                name: Self.string(name, in: rest),
                keys: fields.map { String(decoding: rest[$0.key], as: UTF8.self) },
                types: fields.map(\.type))
        }
    }

    private mutating func append(_ field: LineScanner.Field) {
        guard !field.isEscaped else { return builder.append(string(field)) }
        let text = rest[field.text]
        builder.append(utf8: text, hash: field.textHash) { String(decoding: text, as: UTF8.self) }
    }

    private func string(_ field: LineScanner.Field) -> String { Self.string(field, in: rest) }

    private static func string(_ field: LineScanner.Field, in rest: [UInt8]) -> String {
        let text = rest[field.text]
        return field.isEscaped ? LineScanner.unescape(text) : String(decoding: text, as: UTF8.self)
    }

    /// The character that the event prints, or nil if it prints none.
    private static func letter(
        _ name: LineScanner.Field, _ fields: [LineScanner.Field], in rest: [UInt8]
    ) -> UInt8? {
        guard name.textIs(EventName.out.spelling, in: rest), fields.count == 3 else { return nil }
        func number(_ key: EventKey) -> UInt64? {
            fields.first { $0.type != .text && $0.keyIs(key.spelling, in: rest) }.map {
                UInt64(bitPattern: $0.bits)
            }
        }
        guard let port = number(.port), let size = number(.bytes),
            ConsoleLines<UInt8>.isLetter(port: port, size: size)
        else { return nil }
        return number(.value).flatMap { UInt8(exactly: $0) }
    }
}

extension TraceReader {
    /// Reads a file, a pipe or a terminal to its end.
    ///
    /// - Parameter mostEvents: as in ``init(mostEvents:)``.
    /// - Throws: ``ReportError`` from ``add(_:)`` and ``finish()``, or the `Errno` of `read(2)`.
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
