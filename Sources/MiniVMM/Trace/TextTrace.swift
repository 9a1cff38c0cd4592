import Synchronization
public import SystemPackage

/// One line an event, for people: microseconds since the start, actor, event, fields.
///
/// The exits by which a guest prints a line, one for each letter, are one line here: `console`, with the text and
/// their number.
public final class TextTrace: TraceSink {
    private let line: Mutex<Line>

    public init(_ descriptor: FileDescriptor) { line = Mutex(Line(buffer: OutputBuffer(descriptor))) }

    /// The first error in writing, if there was one; what came after it is lost.
    public var failure: Errno? { line.withLock { $0.buffer.failure } }

    public func begin(kernel: KernelIdentity, time: UInt64) {
        line.withLock { line in
            line.origin = time
            line.buffer.append("# trace of ")
            line.buffer.append(kernel.description)
            line.buffer.append(", times in microseconds")
            line.buffer.endLine()
            line.buffer.flush()
        }
    }

    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        line.withLock { line in
            let (isPrinting, ended) = line.printed.take(event, by: actor, time: time)
            for text in ended { line.write(text) }
            if isPrinting { return }
            line.begin(time, actor)
            event.describe(to: &line)
            line.buffer.endLine()
            // People watch this one: a line is there when its event is.
            line.buffer.flush()
        }
    }

    public func flush() {
        line.withLock { line in
            for text in line.printed.end() { line.write(text) }
            line.buffer.flush()
        }
    }

    private struct Line: TraceFields, Sendable {
        var buffer: OutputBuffer
        var origin: UInt64 = 0
        var printed = PrintedText()

        mutating func write(_ printed: PrintedText.Line) {
            begin(printed.time, printed.actor)
            name("console")
            text("text", printed.text)
            number("exits", UInt64(printed.exits))
            buffer.endLine()
            buffer.flush()
        }

        mutating func begin(_ time: UInt64, _ actor: Actor) {
            let nanoseconds = time &- origin
            let start = buffer.bytes.count
            let microseconds = nanoseconds / 1000
            var width = 1
            var power: UInt64 = 10
            while width < 9, microseconds >= power {
                width += 1
                power *= 10
            }
            for _ in width..<9 { buffer.append(32) }
            buffer.append(decimal: microseconds)
            buffer.append(46)
            buffer.append(decimal: nanoseconds / 100 % 10)
            buffer.append("  ")
            switch actor {
            case .host: buffer.append("host")
            case .hostThread, .child: buffer.append(actor.name)
            case .vcpu(let id):
                buffer.append("vcpu")
                buffer.append(decimal: UInt64(id))
            }
            while buffer.bytes.count - start < 20 { buffer.append(32) }
        }

        mutating func name(_ name: StaticString) {
            buffer.append(name)
            for _ in min(name.utf8CodeUnitCount, 22)..<22 { buffer.append(32) }
        }
        mutating func number(_ key: StaticString, _ value: UInt64) {
            begin(key)
            buffer.append(decimal: value)
        }
        mutating func address(_ key: StaticString, _ value: UInt64) {
            begin(key)
            buffer.append("0x")
            buffer.append(hex: value)
        }
        mutating func signed(_ key: StaticString, _ value: Int64) {
            begin(key)
            if value < 0 { buffer.append(45) }
            buffer.append(decimal: value.magnitude)
        }
        mutating func flag(_ key: StaticString, _ value: Bool) {
            begin(key)
            buffer.append(value ? "yes" : "no")
        }
        mutating func text(_ key: StaticString, _ value: String) {
            begin(key)
            // Quoted, control characters are escaped: what a guest prints does not steer the terminal from here.
            let isPlain = value.utf8.allSatisfy {
                $0 > 32 && $0 != 34 && !VisibleText.isSuspicious($0)
            }
            if isPlain { buffer.append(value) } else { buffer.append(quoted: value) }
        }

        private mutating func begin(_ key: StaticString) {
            buffer.append(32)
            buffer.append(key)
            buffer.append(61)
        }
    }
}
