// SPDX-License-Identifier: MIT
import Synchronization
public import SystemPackage

/// One JSON object per event, schema `minivmm.trace/1`; the first line names the schema and the backend.
///
/// Addresses are numbers, times are nanoseconds on the backend's monotonic clock, as in `CLOCK_MONOTONIC` and the
/// kernel's own `mono` trace clock.
public final class JSONLinesTrace: TraceSink {
    private let line: Mutex<Line>

    /// Writes nothing yet. The caller keeps ownership of the descriptor, which must stay open while this object is
    /// used.
    public init(_ descriptor: FileDescriptor) { line = Mutex(Line(buffer: OutputBuffer(descriptor))) }

    /// The first write error, if any; later output is lost.
    public var failure: Errno? { line.withLock { $0.buffer.failure } }

    /// Writes the header line, with the keys of ``LineKey/header``.
    public func begin(backend: BackendIdentity, time: UInt64) {
        line.withLock { line in
            line.buffer.append("{")
            line.header(.schema, EventSchema.version.description)
            line.header(.clock, "monotonic ns")
            line.beginHeader(.time)
            line.buffer.append(decimal: time)
            line.header(.backend, backend.name)
            line.header(.host, backend.host)
            line.beginHeader(.simulated)
            line.buffer.append(backend.kind == .simulated ? "true" : "false")
            line.buffer.append("}")
            line.buffer.endLine()
        }
    }

    /// Writes one line; `time` in nanoseconds of ``Backend/now()``. Output reaches the descriptor in batches of 64
    /// KiB, or with ``flush()``.
    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        line.withLock { line in
            line.begin(time, actor)
            event.describe(to: &line)
            line.buffer.append(125)
            line.buffer.endLine()
        }
    }

    /// Writes all lines to the descriptor. ``failure`` has the error, if any.
    public func flush() { line.withLock { $0.buffer.flush() } }

    private struct Line: TraceFields, Sendable {
        var buffer: OutputBuffer

        mutating func beginHeader(_ key: LineKey) {
            if buffer.bytes.last != 123 { buffer.append(",") }
            buffer.append("\"")
            buffer.append(key.spelling)
            buffer.append("\":")
        }

        mutating func header(_ key: LineKey, _ value: String) {
            beginHeader(key)
            buffer.append(quoted: value)
        }

        /// A literal alone would be a `String`, which takes twice as long.
        private mutating func literal(_ text: StaticString) { buffer.append(text) }

        mutating func begin(_ time: UInt64, _ actor: Actor) {
            literal("{\"t\":")
            buffer.append(decimal: time)
            switch actor {
            case .monitor: literal(",\"actor\":\"host")
            case .host, .child:
                literal(",\"actor\":\"")
                buffer.append(actor.description)
            case .vcpu(let id):
                literal(",\"actor\":\"vcpu")
                buffer.append(decimal: UInt64(id))
            }
        }

        mutating func begin(_ name: EventName) {
            literal("\",\"event\":\"")
            buffer.append(name.spelling)
            buffer.append(34)
        }
        mutating func number(_ key: EventKey, _ value: UInt64) {
            begin(key)
            buffer.append(decimal: value)
        }
        mutating func signed(_ key: EventKey, _ value: Int64) {
            begin(key)
            if value < 0 { buffer.append(45) }
            buffer.append(decimal: value.magnitude)
        }
        mutating func flag(_ key: EventKey, _ value: Bool) {
            begin(key)
            buffer.append(value ? "true" : "false")
        }
        mutating func text(_ key: EventKey, _ value: String) {
            begin(key)
            buffer.append(quoted: value)
        }

        private mutating func begin(_ key: EventKey) {
            // One or two bytes are appended faster one by one.
            buffer.append(44)
            buffer.append(34)
            buffer.append(key.spelling)
            buffer.append(34)
            buffer.append(58)
        }
    }
}
