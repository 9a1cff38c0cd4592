// SPDX-License-Identifier: MIT
import Foundation
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

    @Test func aRunDrawsAndKeepsItsStatusHoweverItEnds() throws {
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

    /// Terminal, page and drawing count alike, and so do the lines of both texts.
    @Test(arguments: ["smp", "pinned", "explicit"])
    func everyFormatOfARunSaysTheSame(_ payload: String) throws {
        let scratch = try Scratch()
        let paths = ["html", "svg", "jsonl", "txt"].map { scratch.path("it.\($0)") }
        let run = try Command.run(
            [
                "run", payload, "--json", "--report", paths[0], "--svg", paths[1], "--trace", paths[2],
            ] + Self.soft)
        let result = try JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [String: Any]
        let statistics = try #require(result?["statistics"] as? [String: Int])
        let failed = statistics["failed_conversions"] ?? 0
        let text =
            "\(statistics["conversions"] ?? 0) conversions"
            + (failed > 0 ? ", \(failed) refused or failed" : "")
        #expect(try content(paths[0]).contains("\"conversionText\":\"\(text)\""))
        #expect(try content(paths[1]).contains(" · \(text) · "))

        _ = try Command.run(["run", payload, "--trace", paths[3], "--quiet"] + Self.soft)
        let listing = try Command.run(["report", paths[2], "--text"]).output
        #expect(try listing == content(paths[3]))
        // The page is the same, whether it is drawn from memory or from the file.
        let drawn = try Command.run(["report", paths[2], "--html", "-", "--title", payload]).output
        #expect(try drawn == content(paths[0]))
    }

    @Test func aMachineThatCannotBeHasItsPageToo() throws {
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

    @Test func aTraceIsDrawnLater() throws {
        let scratch = try Scratch()
        let path = try trace(scratch)
        let plain = try Command.run(["report", path])
        #expect(plain.status == 0 && plain.output == scratch.path("implicit.html") + "\n")
        #expect(try content(scratch.path("implicit.html")).contains("<title>implicit · SoftKVM"))
        // Standard input and output do as well, and say the same.
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

    @Test func theTextIsTheOneThatARunPrints() throws {
        let scratch = try Scratch()
        let path = try trace(scratch, "explicit")
        let live = scratch.path("live.txt")
        _ = try Command.run(["run", "explicit", "--quiet", "--trace", live] + Self.soft)
        #expect(try Command.run(["report", path, "--text"]).output == content(live))
    }

    @Test func whatIsNoTraceIsAUsageErrorWithItsPlace() throws {
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

    @Test func aTraceThatWasCutOffIsShownWithAWord() throws {
        let scratch = try Scratch()
        let whole = try content(try trace(scratch))
        let cut = try scratch.file("cut.jsonl", Array(whole.utf8.prefix(whole.utf8.count / 2)))
        let result = try Command.run(["report", cut, "--text"])
        #expect(result.status == 0 && result.diagnostics.contains("is cut off"))
        #expect(result.output.contains("memory-fault") && result.output.contains("is cut off"))
    }

    @Test func whatCannotBeWrittenIs125() throws {
        let scratch = try Scratch()
        let path = try trace(scratch)
        for place in ["/dev/full", scratch.path("missing/it.html"), scratch.url.path] {
            for option in ["--html", "--svg", "--chrome"] {
                let result = try Command.run(["report", path, option, place])
                #expect(result.status == 125 && result.diagnostics.contains("\(place): cannot be written"))
            }
            #expect(try Command.run(["run", "hello", "--report", place] + Self.soft).status == 125)
        }
        // A reader that goes away ends it, with a word and not with a signal.
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
