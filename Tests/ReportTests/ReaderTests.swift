// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM
@testable import Report

@Suite("Reading a trace")
struct ReaderTests {
    @Test func printedCharactersBecomeALine() throws {
        let printed = "hi <b>\n".utf8.enumerated().map {
            Lines.event("out", #""port":1016,"bytes":1,"value":\#($1)"#, t: 2000 + $0)
        }
        // An event of another actor does not end the line; an event of the same actor does.
        let trace = try trace(
            printed.prefix(3) + [Lines.event("halt", by: "vcpu1")] + printed.dropFirst(3)
                + [Lines.event("out", #""port":233,"bytes":1,"value":33"#), Lines.event("halt")])
        #expect((0..<trace.count).map(trace.name) == ["halt", "console", "console", "halt"])
        let text = try writtenText { TextListing(trace).write(to: &$0) }
        #expect(text.contains(#"vcpu0  console                text="hi <b>" exits=7"#))
        #expect(text.contains("text=! exits=1"))
    }

    @Test func unknownEventsAndKeysAreKept() throws {
        let trace = try trace([
            Lines.event(
                "quantum-leap",
                #""gpa":4096,"depth":-3,"deep":{"a":[1,"}"]},"half":0.5,"none":null,"yes":true"#)
        ])
        let text = try writtenText { TextListing(trace).write(to: &$0) }
        #expect(
            text.contains(
                #"quantum-leap           gpa=0x1000 depth=-3 deep="{\"a\":[1,\"}\"]}" half=0.5 none=null yes=yes"#
            ))
        #expect(trace.kind(0) == .other && trace.count == 1)
        #expect(Timeline(trace).rows.map(\.page) == [1])
    }

    @Test func everyNumberIsKept() throws {
        for value in ["0", "-1", "9007199254740992", "9007199254740993", "18446744073709551615"] {
            let trace = try trace([Lines.event("x", #""plain":\#(value)"#)])
            #expect(try writtenText { TextListing(trace).write(to: &$0) }.contains(" plain=\(value)\n"))
        }
        let big = try trace([Lines.event("x", #""gpa":18446744073709551615"#)])
        #expect(try writtenText { TextListing(big).write(to: &$0) }.contains("gpa=0xffffffffffffffff"))
    }

    @Test(arguments: [
        ("SoftKVM", nil, true), ("LinuxKVM", nil, false), ("SoftKVM", false, false),
        ("Another", true, true), ("SoftKVM of another project", nil, false),
    ])
    func theHeaderDeterminesWhetherTheBackendIsSimulated(_ backend: String, _ key: Bool?, _ expected: Bool)
        throws
    {
        let header =
            #"{"schema":"minivmm.trace/1","t":0,"backend":"\#(backend)"\#(key.map { ",\"simulated\":\($0)" } ?? "")}"#
        #expect(try trace([Lines.boot()], header: header).isSimulated == expected)
    }

    @Test func escapeSequencesAreReplaced() throws {
        let trace = try trace([
            Lines.event(
                "stop", #""why":"a\"\\\/\n\t\u00e9\ud83d\ude00\ud83d\u001b[2J\u+041""#, by: "h\\u006fst")
        ])
        #expect(trace.ending == "a\"\\/\n\té😀\u{fffd}\u{1b}[2Ju+041")
        #expect(trace.actors == ["host"])
        // No control character reaches the terminal.
        let text = try writtenText { TextListing(trace).write(to: &$0) }
        #expect(
            !text.unicodeScalars.contains { $0.value < 32 && $0 != "\n" || (127..<160).contains($0.value) })
    }

    private static let noTraces: [(String, Int)] = {
        let begun = Lines.header + "\n"
        let booted = begun + Lines.boot()
        var list: [(String, Int)] = [("", 1), ("\n", 1), ("hello\n", 1), ("{}\n", 1)]
        list.append((#"{"schema":"minivmm.run/1"}"# + "\n", 1))
        list.append((#"{"schema":"minivmm.trace/2","backend":"x"}"# + "\n", 1))
        list.append((#"{"schema":"minivmm.trace/1"}"# + "\n", 1))
        list.append((#"[{"schema":"minivmm.trace/1"}]"# + "\n", 1))
        list.append(("\u{7f}ELF\u{2}\u{1}\u{0}\n", 1))
        list.append((begun + "nonsense\n", 2))
        list.append((begun + "{}\n", 2))
        list.append((booted + "\n{\"t\":1,\n", 3))
        list.append((begun + begun, 2))
        list.append((booted + Lines.boot() + "\n", 2))
        list.append((begun + Lines.event("x", "\"a\":" + String(repeating: "[", count: 100_000)) + "\n", 2))
        list.append((begun + String(repeating: "a", count: 3 << 20), 2))
        list.append((begun + Lines.event("x", #""a":[1}"#) + "\n", 2))
        list.append((begun + Lines.event("x", #""a":[{"b":{]}}"#) + "\n", 2))
        list.append((begun + #"{"t":"now","actor":"host","event":"halt"}"# + "\n", 2))
        return list
    }()

    @Test(arguments: noTraces)
    func anInvalidFileIsReportedWithItsLine(_ text: String, _ line: Int) throws {
        var error: ReportError?
        do throws(ReportError) {
            var reader = TraceReader()
            try reader.add(Array(text.utf8))
            _ = try reader.finish()
        } catch let caught {
            error = caught
        }
        #expect(error?.line == line, "\(String(describing: error))")
        #expect(!(error?.message.isEmpty ?? true))
    }

    @Test func aTraceCutAnywhereIsReadUpToTheCut() throws {
        let whole = Array(([Lines.header] + Lines.fault()).joined(separator: "\n").utf8) + [10]
        for count in Lines.header.utf8.count..<whole.count {
            var reader = TraceReader()
            try reader.add(whole[..<count])
            let trace = try reader.finish()
            let ends = whole[..<count].split(separator: 10).count - 1
            let isCut = whole[count - 1] != 10 && whole[count] != 10
            #expect(trace.notes.count == (isCut ? 1 : 0), "\(count)")
            #expect(trace.count == ends - (isCut ? 1 : 0), "\(count)")
        }
    }

    @Test func manyShapesAndActorsAreStillATrace() throws {
        let lines =
            (0..<5000).map { Lines.event("kind\($0)", #""key\#($0)":1"#, by: "actor\($0)") } + Lines.fault()
        let trace = try trace(lines)
        #expect(trace.count == lines.count && trace.shapes.count < 2100 && trace.actors.count <= 201)
        _ = try writtenText { HTMLReport(trace, Timeline(trace), title: "many").write(to: &$0) }
        _ = try writtenText { SVGPicture(trace, Timeline(trace), title: "many").write(to: &$0) }
        _ = try writtenText { ChromeTrace(trace, Timeline(trace), title: "many").write(to: &$0) }
    }

    /// Each event without any field, without each single field, and with invalid values.
    @Test func eventsWithMissingFieldsAreDrawn() throws {
        let some: [EventKey: String] = [.gpa: "12288", .size: "4096", .ramBytes: "65536"]
        for schema in EventSchema.all where schema.section != .readers {
            let keys = schema.fields.map(\.key)
            for missing in [Set(keys)] + keys.map({ [$0] }) {
                for number in ["0", "18446744073709551615", "-1", "[]"] {
                    let fields = keys.filter { !missing.contains($0) }.map {
                        "\"\($0.spelling.description)\":\(some[$0] ?? number)"
                    }
                    let name = schema.name.spelling.description
                    let event = Lines.event(name, fields.joined(separator: ","))
                    for others in [[], Lines.fault()] {
                        var out = OutputBuffers()
                        let trace = try trace([event] + others + [event])
                        out.draw(trace, Timeline(trace))
                    }
                }
            }
        }
    }

    @Test func randomBytesDoNotCrashTheReader() throws {
        var numbers = Numbers(state: 7)
        let whole = Array(([Lines.header] + Lines.fault()).joined(separator: "\n").utf8) + [10]
        for _ in 0..<3000 {
            var bytes = whole
            for _ in 0...numbers.next(6) {
                let at = numbers.next(bytes.count)
                switch numbers.next(3) {
                case 0: bytes[at] = UInt8(numbers.next(256))
                case 1: bytes.remove(at: at)
                default:
                    bytes.insert(
                        contentsOf: bytes[at..<min(bytes.count, at + numbers.next(40))],
                        at: numbers.next(bytes.count))
                }
            }
            var reader = TraceReader()
            guard (try? reader.add(bytes)) != nil, let trace = try? reader.finish() else { continue }
            let timeline = Timeline(trace)
            var out = OutputBuffers()
            out.draw(trace, timeline)
        }
    }
}
