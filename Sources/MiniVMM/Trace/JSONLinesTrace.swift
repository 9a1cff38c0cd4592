import Synchronization
public import SystemPackage

/// One JSON object an event, schema `minivmm.trace/1`; the first line names the schema and the kernel.
///
/// Addresses are numbers, times are nanoseconds of the kernel's monotonic clock, as in `CLOCK_MONOTONIC` and the
/// kernel's own `mono` trace clock.
public final class JSONLinesTrace: TraceSink {
    private let line: Mutex<Line>

    public init(_ descriptor: FileDescriptor) { line = Mutex(Line(buffer: OutputBuffer(descriptor))) }

    /// The first error in writing, if there was one; what came after it is lost.
    public var failure: Errno? { line.withLock { $0.buffer.failure } }

    public func begin(kernel: KernelIdentity, time: UInt64) {
        line.withLock { line in
            line.buffer.append("{\"schema\":\"minivmm.trace/1\",\"clock\":\"monotonic ns\",\"t\":")
            line.buffer.append(decimal: time)
            line.text("kernel", kernel.name)
            line.text("host", kernel.host)
            line.buffer.append("}")
            line.buffer.endLine()
        }
    }

    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        line.withLock { line in
            line.begin(time, actor)
            event.describe(to: &line)
            line.buffer.append("}")
            line.buffer.endLine()
        }
    }

    public func flush() { line.withLock { $0.buffer.flush() } }

    private struct Line: TraceFields, Sendable {
        var buffer: OutputBuffer

        mutating func begin(_ time: UInt64, _ actor: Actor) {
            buffer.append("{\"t\":")
            buffer.append(decimal: time)
            switch actor {
            case .host: buffer.append(",\"actor\":\"host\"")
            case .hostThread, .child:
                buffer.append(",\"actor\":\"")
                buffer.append(actor.name)
                buffer.append("\"")
            case .vcpu(let id):
                buffer.append(",\"actor\":\"vcpu")
                buffer.append(decimal: UInt64(id))
                buffer.append("\"")
            }
        }

        mutating func name(_ name: StaticString) {
            buffer.append(",\"event\":\"")
            buffer.append(name)
            buffer.append("\"")
        }
        mutating func number(_ key: StaticString, _ value: UInt64) {
            begin(key)
            buffer.append(decimal: value)
        }
        mutating func address(_ key: StaticString, _ value: UInt64) { number(key, value) }
        mutating func signed(_ key: StaticString, _ value: Int64) {
            begin(key)
            if value < 0 { buffer.append(45) }
            buffer.append(decimal: value.magnitude)
        }
        mutating func flag(_ key: StaticString, _ value: Bool) {
            begin(key)
            buffer.append(value ? "true" : "false")
        }
        mutating func text(_ key: StaticString, _ value: String) {
            begin(key)
            buffer.append(quoted: value)
        }

        private mutating func begin(_ key: StaticString) {
            buffer.append(",\"")
            buffer.append(key)
            buffer.append("\":")
        }
    }
}
