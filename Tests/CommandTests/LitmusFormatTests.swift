// SPDX-License-Identifier: MIT
import Foundation
import Testing

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// `litmus --format junit` and `litmus --verbose`.
@Suite("Formats of minivmm litmus", .enabled(if: Command.isBuilt, Command.missing), .timeLimit(.minutes(60)))
struct LitmusFormatTests {
    private static let good = "test \"good\"\nmemory 1 pages shared\nhost read 0 => 0\n"
    private static let bad =
        "test \"bad ]]> & <b>\"\nmemory 1 pages shared\nhost write 0 2\nhost read 0 => 1\nhost read 0\n"
    private static let skipped = "test \"later\"\nmemory 1 pages shared\nhost unmap ram\n"
    private static let race =
        "test \"race\"\nmemory 1 page shared\nhost fill 0 0x41\nparallel\nhost convert 0 private => c\nhost1 read 0 => r\nend\nhost convert 0 shared\n"

    /// Runs tests in a directory named `tests`.
    private func run(
        _ tests: [(name: String, text: String)], _ options: [String], backend: String = "soft"
    ) throws -> (Command.Result, Scratch) {
        let scratch = try Scratch()
        let directory = scratch.url.appendingPathComponent("tests")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        for (name, text) in tests { _ = try scratch.file("tests/\(name).litmus", Array(text.utf8)) }
        return (
            try Command.run(["litmus", "--backend", backend, "tests"] + options, in: scratch.url), scratch
        )
    }

    /// The XML without the times and the version of the Unicorn engine.
    private func stable(_ xml: String) -> String {
        xml.replacing(#/time="[0-9]+\.[0-9]{3}"/#, with: #"time="T""#)
            .replacing(#/Unicorn [0-9.]+/#, with: "Unicorn V")
    }

    /// The elements and their attributes as a parser sees them.
    private final class Reader: NSObject, XMLParserDelegate {
        var elements: [(name: String, attributes: [String: String])] = []
        var text: [String: String] = [:]
        private var open: [String] = []

        func parser(
            _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
            qualifiedName: String?, attributes: [String: String] = [:]
        ) {
            elements.append((name, attributes))
            open.append(name)
        }
        func parser(
            _ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?
        ) { open.removeLast() }
        func parser(_ parser: XMLParser, foundCharacters string: String) {
            if let name = open.last { text[name, default: ""] += string }
        }
    }

    private func parse(_ xml: String) throws -> Reader {
        let reader = Reader()
        let parser = XMLParser(data: Data(xml.utf8))
        parser.delegate = reader
        let isWellFormed = parser.parse()
        try #require(isWellFormed, "\(String(describing: parser.parserError))\n\(xml)")
        return reader
    }

    // MARK: JUnit

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func junitIsExact() throws {
        let tests = [("a", Self.good), ("b", Self.bad), ("c", Self.skipped), ("d", Self.race)]
        let (result, _) = try run(tests, ["--format", "junit"])
        #expect(result.status == 1)
        let totals = #"name="minivmm litmus" tests="4" failures="1" errors="0" skipped="1" time="T""#
        #expect(
            stable(result.output) == """
                <?xml version="1.0" encoding="UTF-8"?>
                <testsuites \(totals)>
                  <testsuite \(totals)>
                    <properties>
                      <property name="backend" value="SoftKVM"/>
                      <property name="host" value="Unicorn V"/>
                      <property name="reason" value="chosen with --backend soft"/>
                      <property name="version" value="0.1.0"/>
                    </properties>
                    <testcase name="a" classname="tests" time="T" file="tests/a.litmus"/>
                    <testcase name="b" classname="tests" time="T" file="tests/b.litmus" line="4">
                      <failure message="line 4: host read 0: expected 0x1, seen 0x2" type="step">tests/b.litmus: bad ]]&gt; &amp; &lt;b&gt;
                line 4: host read 0
                expected: 0x1
                seen: 0x2
                the model of Linux 7.4 gives the same answer: the expectation is probably wrong
                page 0 of ram: shared, the host reads 0x2</failure>
                    </testcase>
                    <testcase name="c" classname="tests" time="T" file="tests/c.litmus">
                      <skipped message="a memslot points into the view `ram`: the next mapping there would become guest memory"/>
                    </testcase>
                    <testcase name="d" classname="tests" time="T" file="tests/d.litmus">
                      <system-out>line 5: all interleavings explored, 7 states
                  allowed    c = EAGAIN at 0, r = 0x41
                  allowed    c = ok, r = 0x41
                  allowed    c = ok, r = SIGBUS</system-out>
                    </testcase>
                  </testsuite>
                </testsuites>

                """, "\(result.output)")
        _ = try parse(result.output)
    }

    /// Statuses and `--save` are those of the other formats.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func junitChangesNothingElse() throws {
        #expect(try run([("a", Self.good)], ["--format", "junit"]).0.status == 0)
        #expect(try run([("a", Self.skipped)], ["--format", "junit"]).0.status == 4)
        let wrong = try run([("a", "test \"x\"\nhost jump\n")], ["--format", "junit"]).0
        #expect(wrong.status == 64 && wrong.output.isEmpty)
        let (_, scratch) = try run([("a", Self.good)], ["--format", "junit", "--save", "out.json"])
        let saved = try Data(contentsOf: URL(fileURLWithPath: scratch.path("out.json")))
        let json = try #require(try JSONSerialization.jsonObject(with: saved) as? [String: Any])
        #expect(json["schema"] as? String == "minivmm.litmus/1" && json["passed"] as? Int == 1)
        // A comparison of versions is a table in every format but JSON.
        let versions = ["--abi", "rfc-v2", "--abi", "7.4"]
        #expect(
            try run([("a", Self.good)], versions + ["--format", "junit"]).0.output
                == run([("a", Self.good)], versions + ["--format", "ktap"]).0.output)
    }

    /// Names with markup, control characters, and bytes that are not UTF-8.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func namesAreEscaped() throws {
        let scratch = try Scratch()
        let text = "test \"<&>'\"\nmemory 1 pages shared\nhost read 0 => 1\n"
        let names: [[UInt8]] = [
            Array("a<b>&\"c'".utf8), Array("b\u{1b}[31m\u{7}\u{fffe}".utf8), Array("c\n\t".utf8),
            Array("d\u{202e}é𐍈".utf8), [0x65, 0xff, 0xfe],
        ]
        for name in names {
            let path = Array((scratch.url.path + "/").utf8) + name + Array(".litmus".utf8)
            let file = path.map { CChar(bitPattern: $0) } + [0]
            let handle = try #require(fopen(file, "w"))
            fputs(text, handle)
            fclose(handle)
        }
        let result = try Command.run(
            ["litmus", "--backend", "soft", ".", "--format", "junit"], in: scratch.url)
        let reader = try parse(result.output)
        let cases = reader.elements.filter { $0.name == "testcase" }
        #expect(
            cases.map { $0.attributes["name"] } == [
                "a<b>&\"c'", #"b\x1b[31m\x07\u{fffe}"#, #"c\x0a\x09"#, #"d\u{202e}é𐍈"#, #"e\xff\xfe"#,
            ])
        #expect(cases.map { $0.attributes["classname"] } == Array(repeating: "litmus", count: 5))
        #expect(cases[0].attributes["file"] == "./a<b>&\"c'.litmus")
        #expect(reader.text["failure"]?.contains("./a<b>&\"c'.litmus: <&>'\nline 3: host read 0\n") == true)
        #expect(result.output.unicodeScalars.allSatisfy { $0 == "\n" || $0.value >= 0x20 })
    }

    /// A run that ends early is a whole document.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func junitOfAnInterruptedRun() throws {
        let long = ["--runs", "100000000", "--timeout", "0.5", "--format", "junit"]
        let (result, scratch) = try run([("a", Self.race)], long, backend: "auto")
        guard !result.diagnostics.contains("SoftKVM") else { return }
        let output = try parse(result.output).text["system-out"]
        #expect(result.status == 0 && output?.hasPrefix("timed out after 0.5 s (") == true, "\(result)")
        _ = try scratch.file("tests/b.litmus", Array(Self.race.utf8))
        let interrupted = try Command.run(
            [
                "litmus", "tests", "--runs", "100000000", "--timeout", "1000", "--format", "junit",
                "--verbose",
            ],
            in: scratch.url,
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("runs 2 to") }
                kill(process.processIdentifier, SIGINT)
            })
        #expect(interrupted.status == 130)
        let elements = try parse(interrupted.output).elements
        #expect(elements.filter { $0.name == "testcase" }.count == 2)
        let skipped = elements.filter { $0.name == "skipped" }.map { $0.attributes["message"] }
        #expect(skipped == ["not run: interrupted by signal 2"])
    }

    // MARK: steps

    private static let badSteps = [
        "running b: bad ]]> & <b>", "line 3  host write 0 0x2 ...", "line 3  host write 0 0x2 => ok",
        "line 4  host read 0 ...", "line 4  host read 0 => 0x2  UNEXPECTED: the test expects 0x1",
    ]

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func stepsArePrintedBeforeTheVerdict() throws {
        let result = try run([("a", Self.good), ("b", Self.bad), ("c", Self.skipped)], ["--verbose"]).0
        let lines = result.output.split(separator: "\n").map(String.init)
        #expect(
            lines.filter { !$0.hasPrefix("  ") } == [
                "running a: good", "line 3  host read 0 ...", "line 3  host read 0 => 0x0", "passed  a: good",
            ] + Self.badSteps + [
                "failed  b: bad ]]> & <b>", "running c: later", "line 3  host unmap ram ...",
                "skipped c: later", "1 passed, 1 failed, 1 skipped",
            ])
        #expect(result.status == 1)
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func stepsAreCommentsInKTAP() throws {
        let result = try run([("b", Self.bad)], ["--verbose", "--format", "ktap"]).0
        let lines = result.output.split(separator: "\n").map(String.init)
        #expect(lines[2] == "1..1" && Array(lines[3...7]) == Self.badSteps.map { "# " + $0 })
        let quiet = try run([("b", Self.bad)], ["--format", "ktap"]).0.output
        #expect(result.output.replacing(lines[3...7].map { $0 + "\n" }.joined(), with: "") == quiet)
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests), arguments: ["json", "junit"])
    func stepsGoToStandardErrorBesideADocument(_ format: String) throws {
        let result = try run([("b", Self.bad)], ["--verbose", "--format", format]).0
        #expect(result.diagnostics.contains(Self.badSteps.joined(separator: "\n") + "\n"))
        #expect(!result.output.contains("running") && result.status == 1)
        #expect(format == "json" ? result.json != nil : (try? parse(result.output)) != nil)
    }

    @Test func stepsAroundABlock() throws {
        let soft = try run([("d", Self.race)], ["--verbose"]).0.output
        let block = "line 5  parallel, explored exhaustively (every interleaving, to the test's end)"
        #expect(
            soft.hasPrefix(
                """
                running d: race
                line 3  host fill 0 0x41 ...
                line 3  host fill 0 0x41 => ok
                \(block) ...
                \(block) => 7 states
                passed  d: race

                """), "\(soft)")
        let real = try run([("d", Self.race)], ["--verbose", "--runs", "20"], backend: "auto").0
        guard Command.runsGuests, !real.diagnostics.contains("SoftKVM") else { return }
        let lines = real.output.split(separator: "\n").map(String.init)
        #expect(lines[3] == "line 5  parallel, run 1 of 20 ...")
        #expect(lines[4].hasPrefix("line 5  parallel, run 1 of 20 => c = "))
        #expect(
            lines[5...8] == [
                "line 8  host convert 0 shared ...", "line 8  host convert 0 shared => ok",
                "runs 2 to 20 ...",
                "runs 2 to 20 => 20 runs done",
            ])
    }

    @Test(arguments: [["--faults"], ["--table"], ["--races"], ["--abi", "rfc-v2", "--abi", "7.4"]])
    func tablesHaveNoSteps(_ options: [String]) throws {
        let result = try run([("a", Self.good)], ["--verbose"] + options).0
        #expect(result.status == 64 && result.output.isEmpty)
    }
}
