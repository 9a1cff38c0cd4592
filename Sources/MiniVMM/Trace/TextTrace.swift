// SPDX-License-Identifier: MIT
import Synchronization
public import SystemPackage

/// One line per event, for people: microseconds since the start, actor, event, fields.
///
/// The exits by which a guest prints a line become one line here: ``ConsoleLines``.
public final class TextTrace: TraceSink {
    private let line: Mutex<Line>

    /// Writes nothing yet. The caller keeps ownership of the descriptor, which must stay open while this object is
    /// used.
    public init(_ descriptor: FileDescriptor) { line = Mutex(Line(buffer: OutputBuffer(descriptor))) }

    /// The first write error, if any; later output is lost.
    public var failure: Errno? { line.withLock { $0.buffer.failure } }

    /// Writes a line that names the backend. Later times are microseconds since `time`, which is in
    /// nanoseconds.
    public func begin(backend: BackendIdentity, time: UInt64) {
        line.withLock { line in
            line.origin = time
            line.buffer.append("# trace of ")
            line.buffer.append(backend.description)
            line.buffer.append(", times in microseconds")
            line.buffer.endLine()
            line.buffer.flush()
        }
    }

    /// Writes one line immediately; `time` in nanoseconds of ``Backend/now()``. A printed letter waits until
    /// its line ends.
    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        line.withLock { line in
            if let letter = event.printedLetter {
                if let ended = line.console.print(letter, by: actor, time: time) { line.write(ended) }
                return
            }
            if let ended = line.console.end(of: actor) { line.write(ended) }
            line.begin(time, actor)
            event.describe(to: &line)
            line.end()
        }
    }

    /// Writes the unfinished printed lines. ``failure`` has the error, if any.
    public func flush() {
        line.withLock { line in
            for ended in line.console.endAll() { line.write(ended) }
            line.buffer.flush()
        }
    }

    private struct Line: TraceFields, Sendable {
        var buffer: OutputBuffer
        var origin: UInt64 = 0
        var console = ConsoleLines<Actor>()

        mutating func write(_ printed: ConsoleLines<Actor>.Line) {
            begin(printed.time, printed.actor)
            begin(.console)
            text(.text, printed.text)
            number(.exits, UInt64(printed.exits))
            end()
        }

        mutating func begin(_ time: UInt64, _ actor: Actor) {
            buffer.beginTextLine(time &- origin)
            buffer.appendTextActor(actor.description)
        }

        mutating func end() {
            buffer.endLine()
            // People watch this output live, so write each line immediately.
            buffer.flush()
        }

        mutating func begin(_ name: EventName) { buffer.appendTextName(name) }
        mutating func number(_ key: EventKey, _ value: UInt64) {
            begin(key)
            buffer.appendText(value, isAddress: key.type == .address)
        }
        mutating func signed(_ key: EventKey, _ value: Int64) {
            begin(key)
            buffer.appendText(value)
        }
        mutating func flag(_ key: EventKey, _ value: Bool) {
            begin(key)
            buffer.appendText(value)
        }
        mutating func text(_ key: EventKey, _ value: String) {
            begin(key)
            buffer.appendText(value)
        }

        private mutating func begin(_ key: EventKey) {
            buffer.append(32)
            buffer.append(key.spelling)
            buffer.append(61)
        }
    }
}
