// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite(
    "The command: pictures of a trace", .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Command.runsGuests, Command.noGuests))
struct ReportCommandTests {
    private static let soft = ["--backend", "soft"]

    private func trace(_ scratch: Scratch, _ payload: String = "implicit") throws -> String {
        let path = scratch.path("\(payload).jsonl")
        #expect(try Command.run(["run", payload, "--trace", path, "--quiet"] + Self.soft).status == 0)
        return path
    }

    private func content(_ path: String) throws -> String {
        try String(contentsOfFile: path, encoding: .utf8)
    }

    @Test func aRunIsDrawnAndKeepsItsStatusHoweverItEnds() throws {
        for (payload, status) in [("hello", 0), ("crash", 126), ("hang", 124), ("fault-loop", 126)]
            as [(String, Int32)]
        {
            let scratch = try Scratch()
            let paths = ["html", "svg", "json"].map { scratch.path("it.\($0)") }
            let result = try Command.run(
                [
                    "run", payload, "--timeout", payload == "hang" ? "1" : "600", "--report", paths[0],
                    "--svg",
                    paths[1], "--chrome", paths[2],
                ]
                    + Self.soft)
            #expect(result.status == status, "\(payload): \(result.diagnostics)")
            for path in paths {
                #expect(try content(path).contains("SoftKVM"), "\(payload) \(path)")
                #expect(try content(path).contains("\"stop\"") || !path.hasSuffix("html"))
            }
        }
    }

    /// The terminal, `run --json`, `report --text`, the page and the drawing have the same counts of conversions.
    @Test(arguments: Catalogue.all.map(\.name).filter { !["hang", "sweep", "ping-pong"].contains($0) })
    func everyFormatCountsTheSameConversions(_ payload: String) throws {
        let scratch = try Scratch()
        let paths = ["html", "svg", "jsonl"].map { scratch.path("it.\($0)") }
        let run = try Command.run(
            [
                "run", payload, "--json", "--timeout", "0", "--report", paths[0], "--svg", paths[1],
                "--trace", paths[2],
            ] + Self.soft)
        let result = try JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [String: Any]
        let statistics = try #require(result?["statistics"] as? [String: Int])
        let (succeeded, failed) = (
            statistics["conversions"] ?? 0, statistics["failed_conversions"] ?? 0
        )
        let text =
            "\(succeeded) conversion\(succeeded == 1 ? "" : "s")"
            + (failed > 0 ? ", \(failed) refused or failed" : "")
        // The terminal folds the line.
        let terminal = try Command.run(["run", payload, "--timeout", "0"] + Self.soft).diagnostics
            .split(whereSeparator: \.isWhitespace).joined(separator: " ")
        #expect(
            terminal.contains(
                try Regex("\\b\(succeeded) conversions?, \(failed) refused or failed")), "\(terminal)")
        let names = try Command.run(["report", paths[2], "--text"]).output.split(separator: "\n").map {
            $0.split(separator: " ", omittingEmptySubsequences: true).dropFirst().prefix(2)
        }
        for (name, count) in [("converted", succeeded), ("not-converted", failed)] {
            let listed = names.count { $0.last == Substring(name) && $0.first?.hasPrefix("vcpu") == true }
            #expect(listed == count, "\(name)")
        }
        #expect(try content(paths[0]).contains("\"conversionText\":\"\(text)\""))
        let drawing = try content(paths[1])
        #expect(drawing.contains(" · \(text) · ") || succeeded + failed == 0)
    }

    @Test(arguments: ["smp", "pinned", "explicit"])
    func aTraceFileHasTheSamePictures(_ payload: String) throws {
        let scratch = try Scratch()
        let paths = ["html", "jsonl", "txt"].map { scratch.path("it.\($0)") }
        _ = try Command.run(
            ["run", payload, "--quiet", "--report", paths[0], "--trace", paths[1]] + Self.soft)
        _ = try Command.run(["run", payload, "--trace", paths[2], "--quiet"] + Self.soft)
        let listing = try Command.run(["report", paths[1], "--text"]).output
        #expect(try listing == content(paths[2]))
        let drawn = try Command.run(["report", paths[1], "--html", "-", "--title", payload]).output
        #expect(try drawn == content(paths[0]))
    }

    @Test func aMachineThatCannotBeCreatedHasItsPageToo() throws {
        let scratch = try Scratch()
        let page = scratch.path("it.html")
        let result = try Command.run(
            [
                "run", "explicit", "--backend", "soft", "--abi", "rfc-v2", "--contents", "preserve",
                "--report", page,
            ])
        #expect(result.status != 0 && FileManager.default.fileExists(atPath: page), "\(result.diagnostics)")
    }

    @Test func anInterruptedRunIsDrawn() throws {
        let scratch = try Scratch()
        let page = scratch.path("it.html")
        let result = try Command.run(["run", "hang", "--timeout", "50", "--report", page] + Self.soft) {
            process in
            DispatchQueue.global().asyncAfter(deadline: .now() + 1) {
                kill(process.processIdentifier, SIGINT)
            }
        }
        #expect(result.status == 130)
        #expect(try content(page).contains("</html>"))
    }

    @Test func aTraceFileIsDrawn() throws {
        let scratch = try Scratch()
        let path = try trace(scratch)
        let plain = try Command.run(["report", path])
        #expect(plain.status == 0 && plain.output == scratch.path("implicit.html") + "\n")
        #expect(try content(scratch.path("implicit.html")).contains("<title>implicit · SoftKVM"))
        // Standard input and output give the same page.
        let piped = try Command.run(
            ["report", "-", "--html", "-", "--title", "implicit"], input: content(path))
        #expect(try piped.status == 0 && piped.output == content(scratch.path("implicit.html")))
        #expect(try Command.run(["report", "-"], input: content(path)).status == 64)
        let text = try Command.run(["report", path, "--text"])
        #expect(text.output.hasPrefix("# trace of SoftKVM") && text.output.contains("memory-fault"))
        for (option, start) in [("--svg", "<svg "), ("--chrome", "{\"displayTimeUnit\"")] {
            #expect(try Command.run(["report", path, option, "-"]).output.hasPrefix(start))
        }
    }

    @Test func theTextEqualsTheTextTraceOfARun() throws {
        let scratch = try Scratch()
        let path = try trace(scratch, "explicit")
        let live = scratch.path("live.txt")
        _ = try Command.run(["run", "explicit", "--quiet", "--trace", live] + Self.soft)
        #expect(try Command.run(["report", path, "--text"]).output == content(live))
    }

    @Test func anInvalidTraceIsAUsageErrorWithItsLine() throws {
        let scratch = try Scratch()
        let header = #"{"schema":"minivmm.trace/1","t":0,"backend":"SoftKVM","host":"x"}"#
        for (text, place) in [
            ("", ":1:"), ("<html>\n", ":1:"), (header + "\n{}\n", ":2:"),
            (header + "\n\n\nwhat\n{}\n", ":4:"),
        ] {
            let path = try scratch.file("bad.jsonl", Array(text.utf8))
            let result = try Command.run(["report", path])
            #expect(
                result.status == 64 && result.diagnostics.contains("bad.jsonl\(place)"),
                "\(result.diagnostics)")
            #expect(!FileManager.default.fileExists(atPath: scratch.path("bad.html")))
        }
        for path in [scratch.path("missing.jsonl"), scratch.url.path] {
            let result = try Command.run(["report", path])
            #expect(result.status == 64 && result.diagnostics.contains("cannot be read"))
        }
    }

    @Test func aTraceThatWasCutOffIsShownWithANote() throws {
        let scratch = try Scratch()
        let whole = try content(try trace(scratch))
        let cut = try scratch.file("cut.jsonl", Array(whole.utf8.prefix(whole.utf8.count / 2)))
        let result = try Command.run(["report", cut, "--text"])
        #expect(result.status == 0 && result.diagnostics.contains("is cut off"))
        #expect(result.output.contains("memory-fault") && result.output.contains("is cut off"))
    }

    @Test func aPictureThatCannotBeWrittenIs125() throws {
        let scratch = try Scratch()
        let path = try trace(scratch)
        for place in ["/dev/full", scratch.path("missing/it.html"), scratch.url.path] {
            for option in ["--html", "--svg", "--chrome"] {
                let result = try Command.run(["report", path, option, place])
                #expect(result.status == 125 && result.diagnostics.contains("\(place): cannot be written"))
            }
            #expect(try Command.run(["run", "hello", "--report", place] + Self.soft).status == 125)
        }
        // A closed pipe is an error with a message, not a death by SIGPIPE.
        let executable = try #require(Command.executable?.path)
        let result = try Command.run(
            [
                "-c",
                "'\(executable)' report '\(path)' --html - | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}",
            ],
            tool: URL(fileURLWithPath: "/bin/bash"))
        #expect(result.status == 125 && result.diagnostics.contains("Broken pipe"), "\(result)")
    }

    @Test func theTourHasAPageForEachMachine() throws {
        let scratch = try Scratch()
        let one = try Command.run(["demo", "--act", "5", "--report", scratch.path("act.html")] + Self.soft)
        #expect(one.status == 0 && FileManager.default.fileExists(atPath: scratch.path("act.html")))
        let two = try Command.run(["demo", "--act", "6", "--report", scratch.path("act.html")] + Self.soft)
        #expect(two.status == 0)
        for number in [1, 2] {
            #expect(FileManager.default.fileExists(atPath: scratch.path("act-\(number).html")))
        }
    }
}

/// The programs in docs/trace-examples write traces that `report` draws.
@Suite("The command: traces of other VMMs", .enabled(if: Command.isBuilt, Command.missing))
struct TraceExampleTests {
    private static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("docs/trace-examples")

    /// The first of some programs that is on the PATH.
    private static func program(_ names: [String]) -> URL? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        return names.lazy.flatMap { name in
            path.split(separator: ":").map { URL(fileURLWithPath: "\($0)/\(name)") }
        }
        .first { FileManager.default.isExecutableFile(atPath: $0.path) }
    }

    private static let cCompiler = program(["cc", "clang", "gcc"])
    private static let rustCompiler = program(["rustc"])

    private func draw(_ example: String, _ compiler: URL?, _ options: [String]) throws {
        let scratch = try Scratch()
        let program = scratch.path("trace")
        let source = Self.directory.appendingPathComponent(example).path
        let compiler: URL = try #require(compiler)
        let compiled = try Command.run(options + ["-o", program, source], tool: compiler)
        try #require(compiled.status == 0, "\(compiled)")
        let written = try Command.run([], tool: URL(fileURLWithPath: program))
        let trace = try scratch.file("my.jsonl", Array(written.output.utf8))
        let result = try Command.run(["report", trace, "--html", scratch.path("my.html"), "--text"])
        #expect(result.status == 0 && result.diagnostics.isEmpty, "\(result)")
        let names = result.output.split(separator: "\n").dropFirst().map {
            $0.split(separator: " ", omittingEmptySubsequences: true)[2]
        }
        #expect(
            names == [
                "boot", "memory-fault", "convert", "set-memory-attributes2", "converted", "resume", "stop",
            ])
        let page = try String(contentsOfFile: scratch.path("my.html"), encoding: .utf8)
        for text in [
            "\"backend\":\"MyVMM\"", "\"simulated\":false", "\"conversionText\":\"1 conversion\"",
            "\"endedWell\":true", "Drawn: all 8 pages, all 7 events.",
        ] {
            #expect(page.contains(text), "\(text)")
        }
    }

    @Test(.enabled(if: cCompiler != nil, "needs a C compiler: cc, clang or gcc"))
    func theProgramInCWritesATrace() throws {
        try draw("trace.c", Self.cCompiler, ["-Wall", "-Wextra", "-Werror"])
    }

    @Test(.enabled(if: rustCompiler != nil, "needs rustc"))
    func theProgramInRustWritesATrace() throws {
        try draw("trace.rs", Self.rustCompiler, ["-D", "warnings"])
    }
}
