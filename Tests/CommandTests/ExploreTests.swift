// SPDX-License-Identifier: MIT
import Foundation
import Testing

@Suite(
    "minivmm explore", .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Command.runsGuests, Command.noGuests), .timeLimit(.minutes(120)))
struct ExploreCommandTests {
    private func explore(_ options: [String], in scratch: Scratch? = nil) throws -> Command.Result {
        try Command.run(["explore", "--backend", "soft"] + options, in: scratch?.url)
    }

    private static let few = ["--depth", "1", "--tests", "50", "--parallel", "5", "--timeout", "3000"]
    private static let faulty = [
        "--plant", "busy-check-missing", "--depth", "2", "--parallel", "0", "--timeout", "3000",
    ]

    @Test func theModelHasNoFindings() throws {
        let result = try explore(Self.few + ["--seed", "3"])
        #expect(result.status == 0, "\(result.output)\(result.diagnostics)")
        #expect(result.output.contains("\nNo differences from the model: "))
        #expect(result.output.contains("scope     every step from each of 24 states: "))
        // The model cannot judge one of the 50.
        #expect(
            result.output.contains("random    49 tests, ") && result.output.contains(", all interleavings"))
        #expect(
            result.diagnostics.contains("backend   SoftKVM") && result.diagnostics.contains("seed      3"))
    }

    /// A finding is a file that `litmus` runs, on this backend and on one without the fault, and a picture.
    @Test func aFindingIsATestAndAPicture() throws {
        let scratch = try Scratch()
        let result = try explore(
            Self.faulty + ["--output", "found/", "--report", "f.html", "--svg", "f.svg"], in: scratch)
        #expect(result.status == 1, "\(result.diagnostics)")
        #expect(
            result.output.contains(
                "\nfound     host convert 0 private\nmodel     EAGAIN at 0\nbackend   ok\n"))
        #expect(result.output.contains("\n1 finding: "))
        let file = "found/001-convert-0-private/test.litmus"
        let text = try String(contentsOfFile: scratch.path(file), encoding: .utf8)
        #expect(text.contains("needs     references\n") && text.hasSuffix("=> EAGAIN at 0\n"))
        // Runs the command line that is printed.
        let again = try #require(
            result.output.split(separator: "\n").first { $0.hasPrefix("again     ") }?.split(separator: " ")
                .dropFirst())
        #expect(again.first == "minivmm" && again.last.map(String.init) == file)
        let rerun = try Command.run(again.dropFirst().map(String.init), in: scratch.url)
        #expect(rerun.status == 1 && rerun.output.contains("expected: EAGAIN at 0"))
        #expect(try Command.run(["litmus", "--backend", "soft", file], in: scratch.url).status == 0)
        for (name, ending) in [("f.html", "</html>\n"), ("f.svg", "</svg>\n")] {
            let picture = try String(contentsOfFile: scratch.path(name), encoding: .utf8)
            #expect(picture.hasSuffix(ending) && picture.contains("busy-check-missing"), "\(name)")
            #expect(picture.contains("host convert 0 private"), "\(name)")
        }
    }

    @Test func severalFindingsAreSeveralFiles() throws {
        let scratch = try Scratch()
        let result = try explore(
            [
                "--plant", "flags-ignored", "--plant", "host-reads-private", "--findings", "2", "--output",
                ".",
                "--depth", "2", "--report", "f.html",
            ], in: scratch)
        #expect(result.status == 1)
        let names = try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).sorted()
        #expect(names.count == 4 && names[2...] == ["f-1.html", "f-2.html"])
        #expect(names[0].hasPrefix("001-") && names[1].hasPrefix("002-"))
    }

    /// Without a finding the longest random test is drawn.
    @Test func theLongestTestIsDrawn() throws {
        let scratch = try Scratch()
        #expect(try explore(Self.few + ["--report", "f.html"], in: scratch).status == 0)
        let page = try String(contentsOfFile: scratch.path("f.html"), encoding: .utf8)
        #expect(
            page.hasSuffix("</html>\n") && page.contains("no differences from the model: the longest of "))
    }

    @Test func jsonHasTheSameResults() throws {
        let good = try #require(try explore(Self.few + ["--json"]).json)
        #expect(good["schema"] as? String == "minivmm.explore/1" && good["backend"] as? String == "SoftKVM")
        #expect((good["findings"] as? [Any])?.isEmpty == true && good["states"] as? Int == 24)
        #expect(
            (good["phases"] as? [[String: Any]])?.map { $0["phase"] as? String } == [
                "scope", "random", "parallel",
            ])
        #expect((good["coverage"] as? [String: [String: Int]])?["host convert"]?["ok"] ?? 0 > 0)
        let bad = try #require(try explore(Self.faulty + ["--json"]).json)
        let finding = try #require((bad["findings"] as? [[String: Any]])?.first)
        #expect(finding["model"] as? String == "EAGAIN at 0" && finding["seen"] as? String == "ok")
        #expect(finding["runs"] as? Int == finding["runs_that_show_it"] as? Int)
        #expect((finding["litmus"] as? String)?.hasPrefix("test ") == true && finding["file"] is NSNull)
    }

    @Test(arguments: [
        ["--depth", "9"], ["--tests", "-1"], ["--steps", "0"], ["--runs", "0"], ["--findings", "0"],
        ["--timeout", "0"], ["--depth", "0", "--tests", "0", "--parallel", "0"], ["--seed", "x"],
        ["file.litmus"],
        ["--abi", "rfc-v1", "--abi", "rfc-v2"], ["--plant", "nothing"],
    ])
    func usage(_ options: [String]) throws {
        let result = try explore(options)
        #expect(result.status == 64 && result.output.isEmpty, "\(options)")
        #expect(result.diagnostics.contains("Error: "))
    }

    /// Places are checked before the exploration starts.
    @Test func unwritablePlacesAreErrors() throws {
        let scratch = try Scratch()
        let file = try scratch.file("file", [])
        for place in [file, "/no/such/place/found", "/proc/found"] {
            let result = try explore(["--output", place, "--tests", "1000000000"])
            #expect(
                result.status == 125
                    && result.diagnostics.contains("\(place): the directory for the findings"))
            #expect(result.diagnostics.contains("try:"), "\(result.diagnostics)")
        }
        let early = try explore(["--report", "/no/such/place", "--tests", "1000000000"])
        #expect(early.status == 125 && early.output.isEmpty)
        let full = try explore(Self.few + ["--report", "/dev/full"])
        #expect(full.status == 125 && full.diagnostics.contains("/dev/full"))
    }

    @Test func theTimeLimitEndsIt() throws {
        let result = try explore(["--tests", "1000000000", "--timeout", "0.3"])
        #expect(result.status == 3, "\(result.output)")
        #expect(
            result.output.contains("No differences from the model so far: ")
                && result.output.contains("; ended by --timeout before everything was tried"))
        #expect(result.output.contains("\nnot tried "), "\(result.output)")
        let json = try #require(
            try explore(["--tests", "1000000000", "--timeout", "0.3", "--json"]).json)
        #expect(json["end"] as? String == "time")
        let untried = (json["untried"] as? [[String: Any]])?.map { $0["phase"] as? String }
        #expect(untried?.suffix(2) == ["random", "parallel"])
    }

    /// The status is not that of the signal, because the search is incomplete.
    @Test(arguments: [SIGINT, SIGTERM, SIGHUP]) func interruptedWithNothingFound(_ signal: Int32) throws {
        let scratch = try Scratch()
        let result = try Command.run(
            ["explore", "--backend", "soft", "--tests", "1000000000", "--timeout", "1000", "--depth", "1"],
            in: scratch.url,
            watching: { process, diagnostics in
                // Signals are handled before the seed is printed.
                Command.wait(until:) { diagnostics().contains("seed") }
                kill(process.processIdentifier, signal)
            })
        #expect(result.status == 3, "\(result.status) \(result.output) \(result.diagnostics)")
        #expect(result.output.contains("interrupted before everything was tried"))
    }

    /// Folders of an earlier exploration are kept.
    @Test func noFolderIsOverwritten() throws {
        let scratch = try Scratch()
        try FileManager.default.createDirectory(
            atPath: scratch.path("003-convert-0-private"), withIntermediateDirectories: false)
        _ = try scratch.file("001-mine", Array("mine".utf8))
        let result = try explore(Self.faulty + ["--output", "."], in: scratch)
        #expect(result.status == 1 && result.output.contains("004-convert-0-private/test.litmus"))
        let second = try explore(Self.faulty + ["--output", "."], in: scratch)
        #expect(second.output.contains("005-convert-0-private/test.litmus"))
        #expect(try String(contentsOfFile: scratch.path("001-mine"), encoding: .utf8) == "mine")
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: scratch.path("003-convert-0-private")) == [])
    }

    /// A finding is a folder: what a maintainer needs to see it himself.
    @Test func aFolderHasAllOfAFinding() throws {
        let scratch = try Scratch()
        #expect(try explore(Self.faulty + ["--output", "found"], in: scratch).status == 1)
        let folder = "found/001-convert-0-private/"
        let names = try FileManager.default.contentsOfDirectory(atPath: scratch.path(folder)).sorted()
        #expect(names == ["picture.svg", "report.md", "reproducer.c", "test.litmus", "trace.jsonl"])
        func text(_ name: String) throws -> String {
            try String(contentsOfFile: scratch.path(folder + name), encoding: .utf8)
        }
        #expect(try text("reproducer.c").contains("\"EAGAIN at 0x0\""))
        #expect(try text("trace.jsonl").hasPrefix("{\"schema\":\"minivmm.trace/1\""))
        #expect(try text("picture.svg").hasSuffix("</svg>\n"))
        let report = try text("report.md")
        let words = report.split(whereSeparator: \.isWhitespace).joined(separator: " ").replacing(
            " > ", with: " ")
        #expect(words.contains("\"to private, and an allocated page is in use: EAGAIN\" (section 2, row 11)"))
        #expect(words.contains("FAULTS PLANTED: busy-check-missing"))
        #expect(words.contains("no evidence about a kernel"))
        // A command or a line of the test is not broken.
        for line in report.split(separator: "\n") where !line.hasPrefix("    ") {
            #expect(line.count <= 72, "\(line)")
        }
        let command = try #require(report.split(separator: "\n").first { $0.hasPrefix("    minivmm litmus") })
        let arguments = command.split(separator: " ").dropFirst().map(String.init)
        let directory = URL(fileURLWithPath: scratch.path(folder))
        #expect(try Command.run(arguments, in: directory).status == 1)
    }

    /// Findings made before the signal are reported and kept.
    @Test(arguments: [SIGINT, SIGTERM]) func interrupted(_ signal: Int32) throws {
        let scratch = try Scratch()
        let result = try Command.run(
            [
                "explore", "--backend", "soft", "--plant", "flags-ignored", "--tests", "1000000000",
                "--findings", "9",
                "--timeout", "1000", "--depth", "1", "--output", "found",
            ], in: scratch.url
        ) { process in
            let end = Date(timeIntervalSinceNow: 200)
            func isEmpty() -> Bool {
                (try? FileManager.default.contentsOfDirectory(atPath: scratch.path("found")))?.isEmpty
                    != false
            }
            while isEmpty(), Date() < end {
                usleep(10_000)
            }
            kill(process.processIdentifier, signal)
        }
        #expect(result.status == 1, "\(result.diagnostics)")
        #expect(result.output.contains("; interrupted before everything was tried"))
        #expect(result.output.contains("\nfound     host convert "))
    }

    /// On the backend that auto picks here.
    @Test func theBackendThatAutoPicks() throws {
        let result = try Command.run(["explore"] + Self.few + ["--runs", "20"])
        #expect(result.status == 0, "\(result.output)\(result.diagnostics)")
    }
}
