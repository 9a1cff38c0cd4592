// SPDX-License-Identifier: MIT
import Foundation
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Traces")
struct TraceTests {
    /// The output of a sink for all events, by line.
    private func lines(
        of events: [(TraceEvent, Actor)]? = nil, _ make: (FileDescriptor) -> any TraceSink
    ) throws -> [String] {
        let path = FilePath("/tmp/minivmm-trace-\(UUID().uuidString)")
        let file = try FileDescriptor.open(
            path, .readWrite, options: [.create, .truncate], permissions: .ownerReadWrite)
        defer {
            try? file.close()
            unlink(path.string)
        }
        let backend = FakeBackend()
        let trace = Trace(backend: backend, sinks: [make(file)])
        let told =
            try events ?? EveryEvent.list().enumerated().map { ($1, $0 % 2 == 0 ? .monitor : .vcpu(15)) }
        for (event, actor) in told {
            backend.advance(1_500)
            trace.record(event, by: actor)
        }
        trace.flush()
        let text = try String(contentsOfFile: path.string, encoding: .utf8)
        #expect(text.hasSuffix("\n"))
        return text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
    }

    private func object(_ line: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(line)")
    }

    @Test func jsonHasOneObjectPerLineAndTheHeaderFirst() throws {
        let lines = try lines { JSONLinesTrace($0) }
        let header = try object(try #require(lines.first))
        #expect(header["schema"] as? String == "minivmm.trace/1")
        #expect(header["backend"] as? String == "FakeBackend" && header["host"] as? String == "a \"test\"")
        #expect(header["t"] as? UInt64 == 1000 && header["clock"] as? String == "monotonic ns")

        for (key, value) in zip(LineKey.header, Self.keys(try #require(lines.first))) {
            #expect(key.spelling.description == value)
        }

        let events = try EveryEvent.list()
        #expect(lines.count == events.count + 1)
        for (index, line) in lines.dropFirst().enumerated() {
            let event = try object(line)
            let written = EveryEvent.Written(events[index])
            #expect(event["t"] as? UInt64 == 1000 + UInt64(index + 1) * 1500)
            #expect(event["actor"] as? String == (index % 2 == 0 ? "host" : "vcpu15"))
            #expect(event["event"] as? String == written.name?.spelling.description)
            #expect(
                Self.keys(line)
                    == LineKey.everyEvent.map(\.spelling.description)
                    + written.fields.map(\.key.spelling.description))
        }
    }

    /// The keys of a line, in order.
    private static func keys(_ line: String) -> [String] {
        line.matches(of: /[{,]"([a-z0-9_]+)":/).map { String($0.1) }
    }

    @Test func jsonKeepsEveryValue() throws {
        let lines = try lines { JSONLinesTrace($0) }.dropFirst()
        func field(_ event: String, _ key: String) throws -> Any? {
            let line = try #require(lines.first { $0.contains("\"event\":\"\(event)\"") })
            return try object(line)[key]
        }
        #expect(try field("stop", "why") as? String == "a \"reason\"\n\twith\u{1} \\")
        #expect(try field("boot", "ram_bytes") as? UInt64 == 1 << 40)
        #expect(try field("in", "value") as? UInt64 == .max)
        #expect(try field("hypercall", "result") as? Int == -22)
        #expect(try field("hypercall", "a0") as? UInt64 == .max)
        #expect(try field("mmio", "write") as? Bool == true)
        #expect(try field("set-memory-attributes2", "error") as? String == "EAGAIN")
        #expect(try field("memory-fault", "wants") as? String == "private")
        #expect(try field("not-converted", "converted_bytes") as? Int == 0x2000)
    }

    @Test func textHasTheSameFieldsForPeople() throws {
        let lines = try lines { TextTrace($0) }
        #expect(lines.first == "# trace of FakeBackend (a \"test\"), times in microseconds")
        // One line per event: nothing in an event may break its line.
        let events = try EveryEvent.list()
        #expect(lines.count == events.count + 1)
        for (index, line) in lines.dropFirst().enumerated() {
            // time, actor, event, then key=value
            let words = line.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
            let nanoseconds = (index + 1) * 1500
            #expect(words[0] == "\(nanoseconds / 1000).\(nanoseconds / 100 % 10)")
            #expect(words[1] == (index % 2 == 0 ? "host" : "vcpu15"))
            let written = EveryEvent.Written(events[index])
            #expect(words[2] == written.name?.spelling.description)
            for (key, _) in written.fields { #expect(line.contains(" \(key.spelling)="), "\(line)") }
        }
        #expect(lines.contains { $0.contains("entry=0x5001") })
        #expect(lines.contains { $0.contains("result=-22") })
        #expect(lines.contains { $0.contains("yields=no") })
    }

    @Test func printedLettersAreJoinedIntoLines() throws {
        let printed: [(TraceEvent, Actor)] =
            Array("hi, you\n".utf8).map { (.portOut(port: 0x3f8, size: 1, value: UInt64($0)), .vcpu(0)) }
            + [(.portOut(port: 0xe9, size: 1, value: 33), .vcpu(1)), (.halted, .vcpu(1))]
            + [(.portOut(port: 0xe9, size: 2, value: 34), .vcpu(1))]
        let lines = try lines(of: printed) { TextTrace($0) }.dropFirst()
        let words = lines.map { $0.split(separator: " ").dropFirst().joined(separator: " ") }
        #expect(
            words == [
                "vcpu0 console text=\"hi, you\" exits=8", "vcpu1 console text=! exits=1", "vcpu1 halt",
                "vcpu1 out port=0xe9 bytes=2 value=0x22",
            ])
    }

    /// Events of other actors do not split a line; an event of its own actor does.
    @Test func aLineBelongsToOneActor() throws {
        func letter(_ letter: Character, _ vcpu: Int) -> (TraceEvent, Actor) {
            (.portOut(port: 0x3f8, size: 1, value: UInt64(letter.asciiValue ?? 0)), .vcpu(vcpu))
        }
        let printed: [(TraceEvent, Actor)] = [
            letter("a", 0), letter("x", 1), (.resumed(gpa: 0), .vcpu(2)), letter("b", 0), letter("y", 1),
            letter("\n", 0), (.halted, .vcpu(1)), letter("z", 1),
        ]
        let lines = try lines(of: printed) { TextTrace($0) }.dropFirst()
        let words = lines.map { $0.split(separator: " ").joined(separator: " ") }
        #expect(
            words == [
                "4.5 vcpu2 resume gpa=0x0", "9.0 vcpu0 console text=ab exits=3",
                "7.5 vcpu1 console text=xy exits=2",
                "10.5 vcpu1 halt", "12.0 vcpu1 console text=z exits=1",
            ])
    }

    @Test func aGuestCannotControlTheTerminalThroughTheTrace() throws {
        let printed: [(TraceEvent, Actor)] =
            [0x1b, 0x5b, 0x32, 0x4a, 0x7f, 0x0a].map { (.portOut(port: 0x3f8, size: 1, value: $0), .vcpu(0)) }
        let lines = try lines(of: printed) { TextTrace($0) }.dropFirst()
        #expect(lines.count == 1)
        #expect(try #require(lines.first).contains(#"text="\u001b[2J\u007f" exits=6"#))
    }

    @Test func writeErrorsAreKept() throws {
        let file = try FileDescriptor.open("/dev/null", .readOnly)
        defer { try? file.close() }
        let sink = JSONLinesTrace(file)
        let trace = Trace(backend: FakeBackend(), sinks: [sink])
        trace.record(.halted, by: .monitor)
        trace.flush()
        #expect(sink.failure == .badFileDescriptor)
    }
}

@Suite("Output of numbers and strings")
struct OutputBufferTests {
    private static let corners: [UInt64] = [0, 1, 9, 10, 99, 100, 15, 16, 255, 256, 1 << 63, .max - 1, .max]

    @Test func numbersReadBack() {
        for value in Self.corners {
            var decimal = OutputBuffer(.standardOutput)
            decimal.append(decimal: value)
            #expect(String(decoding: decimal.bytes, as: UTF8.self) == String(value))
            var hex = OutputBuffer(.standardOutput)
            hex.append(hex: value)
            #expect(String(decoding: hex.bytes, as: UTF8.self) == String(value, radix: 16))
        }
    }

    @Test func everyCharacterReadsBackFromJSON() throws {
        for scalar in (0..<0x300).compactMap({ Unicode.Scalar($0) }) + ["\u{2028}", "\u{1f600}"] {
            var buffer = OutputBuffer(.standardOutput)
            buffer.append("[")
            buffer.append(quoted: "a\(scalar)b")
            buffer.append("]")
            let read = try JSONSerialization.jsonObject(with: Data(buffer.bytes)) as? [String]
            #expect(read == ["a\(scalar)b"], "\(scalar.value)")
        }
    }

    @Test func errnosHaveTheirSymbols() {
        let names: [(Int32, String)] = [
            (1, "EPERM"), (4, "EINTR"), (5, "EIO"), (7, "E2BIG"), (9, "EBADF"), (11, "EAGAIN"),
            (12, "ENOMEM"),
            (13, "EACCES"), (14, "EFAULT"), (16, "EBUSY"), (17, "EEXIST"), (19, "ENODEV"), (22, "EINVAL"),
            (25, "ENOTTY"), (28, "ENOSPC"), (38, "ENOSYS"), (95, "EOPNOTSUPP"), (133, "EHWPOISON"),
            (6, "ENXIO"), (26, "ETXTBSY"), (27, "EFBIG"), (75, "EOVERFLOW"), (0, "errno 0"),
            (-11, "errno -11"), (4000, "errno 4000"), (.max, "errno 2147483647"),
        ]
        for (number, name) in names { #expect(Errno(rawValue: number).name == name) }
        #expect(Errno.named.count > 100)
        for errno in Errno.named { #expect(Errno(symbol: errno.name) == errno) }
        #expect(Errno(symbol: "errno 11") == nil && Errno(symbol: "eagain") == nil)
    }
}
