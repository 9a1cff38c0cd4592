import Foundation
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Traces")
struct TraceTests {
    private static let range = PageRange(start: 0x5000, size: 0x2000)

    /// One of each kind, with every field set.
    private static func everyEvent() throws -> [TraceEvent] {
        let range = try #require(Self.range)
        let request = ConversionRequest(range: range, to: .private, contents: .zero)
        var result = ConversionResult(means: .zeroedByMonitor)
        result.converted = [range]
        result.calls = 3
        let error = ConversionError(reason: .inUse([range]), request: request, result: result)
        let access = HostAccessError(gpa: 0x5000, direction: .read, errno: .badAddress, state: .private)
        return [
            .booted(image: range, entry: 0x5001, vcpus: 2, ram: 1 << 40, sharedBit: 46),
            .imageLeftShared(end: 0x7000), .guestExited(status: 255),
            .stopped("a \"reason\"\n\twith\u{1} \\"),
            .portOut(port: 0x80, size: 1, value: 65), .portIn(port: 0x3fd, size: 4, value: .max),
            .mmio(gpa: 1 << 51, size: 8, write: true),
            .memoryFault(MemoryFault(gpa: 0x5000, size: 4096, flags: 8), .badAddress, .convert),
            .hypercall(number: 12, .max, 1, 0x10, byInstruction: true, result: -22),
            .steppedOver(rip: 0x10_0010), .resumed(gpa: 0x5000), .halted, .kicked,
            .conversionStarted(request),
            .attributesCall(offset: 0, size: 4096, target: .private, .resourceTemporarilyUnavailable, 8192),
            .attributesCall(offset: 0, size: 4096, target: .shared, nil, 0),
            .holdersAsked(gpa: 0x5000, released: 1, refused: 2),
            .waiting(gpa: 0x5000, nanoseconds: 20_000, attempt: 1), .conversionFinished(request, result),
            .conversionFailed(error), .held(range, yields: false), .released(range), .releasedHolds(3),
            .hostAccess(gpa: 0x5000, .read, access),
        ]
    }

    /// The schema `minivmm.trace/1`: changing a line here is changing what programs read.
    private static let schema = [
        "boot: entry image image_bytes ram_bytes shared_bit vcpus",
        "image-left-shared: end",
        "exit-status: status",
        "stop: why",
        "out: bytes port value",
        "in: bytes port value",
        "mmio: bytes gpa write",
        "memory-fault: bytes errno flags gpa verdict wants",
        "hypercall: a0 a1 a2 by number result",
        "step-over: rip",
        "resume: gpa",
        "halt: ",
        "kick: ",
        "convert: contents gpa size target",
        "set-memory-attributes2: errno error error_offset offset size target",
        "set-memory-attributes2: errno offset size target",
        "ask-holders: gpa refused released",
        "wait: attempt gpa ns",
        "converted: busy calls contents gpa means size target waited_ns",
        "not-converted: calls contents converted_bytes errno gpa size target why",
        "hold: gpa size yields",
        "release: gpa size",
        "release-holds: count",
        "host-access: direction errno gpa",
    ]

    /// What a sink writes for all events, by line.
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
        let kernel = FakeKernel()
        let trace = Trace(kernel: kernel, sinks: [make(file)])
        let told = try events ?? Self.everyEvent().enumerated().map { ($1, $0 % 2 == 0 ? .host : .vcpu(15)) }
        for (event, actor) in told {
            kernel.advance(1_500)
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

    @Test func jsonHasOneObjectALineAndTheHeaderFirst() throws {
        let lines = try lines { JSONLinesTrace($0) }
        let header = try object(try #require(lines.first))
        #expect(header["schema"] as? String == "minivmm.trace/1")
        #expect(header["kernel"] as? String == "FakeKernel" && header["host"] as? String == "a \"test\"")
        #expect(header["t"] as? UInt64 == 1000 && header["clock"] as? String == "monotonic ns")

        var seen: [String] = []
        for (index, line) in lines.dropFirst().enumerated() {
            let event = try object(line)
            #expect(event["t"] as? UInt64 == 1000 + UInt64(index + 1) * 1500)
            #expect(event["actor"] as? String == (index % 2 == 0 ? "host" : "vcpu15"))
            let keys = event.keys.filter { !["t", "actor", "event"].contains($0) }.sorted()
            seen.append("\(event["event"] as? String ?? "?"): \(keys.joined(separator: " "))")
        }
        #expect(seen == Self.schema)
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
        #expect(lines.first == "# trace of FakeKernel (a \"test\"), times in microseconds")
        // A line an event: nothing that is inside an event may break it.
        #expect(lines.count == Self.schema.count + 1)
        for (index, line) in lines.dropFirst().enumerated() {
            // time, actor, event, then key=value
            let words = line.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
            let nanoseconds = (index + 1) * 1500
            #expect(words[0] == "\(nanoseconds / 1000).\(nanoseconds / 100 % 10)")
            #expect(words[1] == (index % 2 == 0 ? "host" : "vcpu15"))
            let expected = Self.schema[index].split(separator: ":")
            #expect(words[2] == expected[0])
            for key in expected[1].split(separator: " ") { #expect(line.contains(" \(key)="), "\(line)") }
        }
        #expect(lines.contains { $0.contains("entry=0x5001") })
        #expect(lines.contains { $0.contains("result=-22") })
        #expect(lines.contains { $0.contains("yields=no") })
    }

    @Test func whatIsPrintedIsOneLineForPeople() throws {
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

    @Test func aGuestDoesNotSteerTheTerminalThroughTheTrace() throws {
        let printed: [(TraceEvent, Actor)] =
            [0x1b, 0x5b, 0x32, 0x4a, 0x7f, 0x0a].map { (.portOut(port: 0x3f8, size: 1, value: $0), .vcpu(0)) }
        let lines = try lines(of: printed) { TextTrace($0) }.dropFirst()
        #expect(lines.count == 1)
        #expect(try #require(lines.first).contains(#"text="\u001b[2J\u007f" exits=6"#))
    }

    @Test func whatCannotBeWrittenIsRemembered() throws {
        let file = try FileDescriptor.open("/dev/null", .readOnly)
        defer { try? file.close() }
        let sink = JSONLinesTrace(file)
        let trace = Trace(kernel: FakeKernel(), sinks: [sink])
        trace.record(.halted, by: .host)
        trace.flush()
        #expect(sink.failure == .badFileDescriptor)
    }
}

@Suite("Numbers and strings on their way out")
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
            (4000, "errno 4000"),
        ]
        for (number, name) in names { #expect(Errno(rawValue: number).name == name) }
    }
}
