// SPDX-License-Identifier: MIT
import Foundation
import Testing

@Suite("minivmm litmus", .enabled(if: Command.isBuilt, Command.missing), .timeLimit(.minutes(120)))
struct LitmusCommandTests {
    private static let good = "test \"good\"\nmemory 1 pages shared\nhost read 0 => 0\n"
    private static let bad = "test \"bad # SKIP\"\nmemory 1 pages shared\nhost read 0 => 1\n"
    private static let skipped = "test \"later\"\nmemory 1 pages shared\nhost unmap ram\n"

    private func run(_ tests: [String], _ options: [String] = []) throws -> Command.Result {
        let scratch = try Scratch()
        for (index, text) in tests.enumerated() {
            _ = try scratch.file("test-\(index + 1)#.litmus", Array(text.utf8))
        }
        return try Command.run(["litmus", "--backend", "soft", scratch.url.path] + options)
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func statuses() throws {
        #expect(try run([Self.good]).status == 0)
        #expect(try run([Self.good, Self.skipped]).status == 0)
        #expect(try run([Self.good, Self.bad, Self.skipped]).status == 1)
        #expect(try run([Self.skipped]).status == 4)
        let unreadable = try run([Self.good, "test \"x\"\nhost jump"])
        #expect(unreadable.status == 64)
        #expect(unreadable.output.isEmpty)
        #expect(unreadable.diagnostics.contains("test-2#.litmus:2:6: unknown action jump"))
        #expect(try run([]).status == 64)
        #expect(try Command.run(["litmus", "/nonexistent"]).status == 64)
        #expect(try Command.run(["litmus"]).status == 64)
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func ktapIsExact() throws {
        let lines = try run([Self.good, Self.bad, Self.skipped], ["--format", "ktap"]).output
            .split(separator: "\n").map(String.init)
        #expect(lines.first == "KTAP version 1")
        #expect(lines[2] == "1..3")
        #expect(
            lines.filter { !$0.hasPrefix("# ") } == [
                "KTAP version 1", "1..3", "ok 1 test-1_", "not ok 2 test-2_",
                "ok 3 test-3_ # SKIP a memslot points into the view `ram`: the next mapping there would become guest memory",
            ])
        #expect(lines.last == "# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0")
    }

    /// Tests that can never complete all their runs report what was seen, in each format.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func aTestThatIsCutShort() throws {
        let scratch = try Scratch()
        let race =
            "test \"race\"\nmemory 1 pages shared\nparallel\nhost convert 0 private => a\nhost1 read 0 => b\nend\n"
        _ = try scratch.file("race.litmus", Array(race.utf8))
        // SoftKVM explores interleavings instead of running the test, so it is not tested here.
        let options = ["litmus", scratch.url.path, "--runs", "100000000", "--timeout", "0.5"]
        let text = try Command.run(options)
        guard !text.diagnostics.contains("SoftKVM") else { return }
        #expect(text.status == 0, "\(text.output)")
        #expect(text.output.contains("timed out after 0.5 s ("))
        #expect(text.output.contains("of 100,000,000 runs done)") && text.output.contains("; 1 cut short"))
        let ktap = try Command.run(options + ["--format", "ktap"]).output
        #expect(ktap.contains("\n# timed out after ") && ktap.contains("\nok 1 race\n"))
        let json = try #require(try Command.run(options + ["--format", "json"]).json)
        let test = try #require((json["tests"] as? [[String: Any]])?.first)
        let cut = try #require(test["cut_short"] as? [String: Any])
        #expect(json["cut_short"] as? Int == 1 && test["verdict"] as? String == "passed")
        #expect(cut["by"] as? String == "time limit" && cut["of"] as? Int == 100_000_000)
        let runs = (test["blocks"] as? [[String: Any]])?.first?["runs"] as? Int
        #expect(runs != nil && cut["runs"] as? Int == runs)
        // Ctrl-C ends the whole command, and further tests are reported as not run.
        _ = try scratch.file("second.litmus", Array(race.utf8))
        let long = ["litmus", scratch.url.path, "--runs", "100000000", "--timeout", "1000"]
        let interrupted = try Command.run(
            long,
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("backend  ") }
                kill(process.processIdentifier, SIGINT)
            })
        #expect(interrupted.status == 130)
        #expect(interrupted.output.contains("not run: interrupted by signal 2"))
    }

    /// The progress line of a terminal.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func progressIsShownOnATerminal() throws {
        let scratch = try Scratch()
        let race =
            "test \"x\"\nmemory 1 pages shared\nparallel\nhost read 0 => a\nhost1 read 0 => b\nend\n"
        let path = try scratch.file("race.litmus", Array(race.utf8))
        let terminal = try PseudoTerminal(columns: 200, rows: 50)
        let status = try terminal.run(
            ["litmus", path, "--runs", "100000000", "--timeout", "0.5"], environment: ["TERM": "xterm"],
            typing: [])
        guard !terminal.plainText.contains("SoftKVM") else { return }
        #expect(status == 0 && terminal.plainText.contains(#/race  [0-9,]+ of 100,000,000 runs/#))
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func jsonHasTheSameResults() throws {
        let json = try #require(try run([Self.good, Self.bad], ["--format", "json"]).json)
        #expect(json["schema"] as? String == "minivmm.litmus/1")
        #expect(json["passed"] as? Int == 1)
        #expect(json["failed"] as? Int == 1)
        let tests = try #require(json["tests"] as? [[String: Any]])
        #expect(tests.map { $0["verdict"] as? String } == ["passed", "failed"])
        #expect(tests[1]["line"] as? Int == 3)
        #expect(tests[1]["seen"] as? String == "0x0")
    }

    // MARK: orders and outcomes

    private static let race = """
        test "race"
        memory 1 page shared
        host fill 0 0x41
        parallel
        host convert 0 private => c
        host1 read 0 => r
        end

        """

    private func runRace(_ options: [String], backend: String = "soft") throws -> (Command.Result, Scratch) {
        let scratch = try Scratch()
        _ = try scratch.file("race.litmus", Array(Self.race.utf8))
        return (
            try Command.run(["litmus", "--backend", backend, "race.litmus"] + options, in: scratch.url),
            scratch
        )
    }

    @Test func eachOutcomeHasAnOrder() throws {
        let output = try runRace([]).0.output
        #expect(
            output.contains(
                """
                          allowed    c = EAGAIN at 0, r = 0x41
                                     order: r begins, c, r ends
                          allowed    c = ok, r = 0x41
                                     order: r, c

                """))
        #expect(output.split(separator: "\n").allSatisfy { $0.count <= 80 })
        let json = try #require(try runRace(["--format", "json"]).0.json)
        let tests = try #require(json["tests"] as? [[String: Any]])
        let block = try #require((tests.first?["blocks"] as? [[String: Any]])?.first)
        #expect(block["orders_from"] as? String == "backend")
        let outcomes = try #require(block["outcomes"] as? [[String: Any]])
        let order = try #require(outcomes.first?["order"] as? [[String: Any]])
        #expect(order.map { $0["part"] as? String } == ["begins", "whole", "ends"])
        #expect(order.map { $0["result"] as? String } == ["r", "c", "r"])
        #expect(order.map { $0["line"] as? Int } == [6, 5, 6])
        #expect(order.last?["outcome"] as? String == "0x41" && outcomes.first?["selected"] == nil)
    }

    @Test func theSelectedOutcomeIsPrintedStepByStepAndDrawn() throws {
        let options = ["--svg", "race.svg", "--witness"]
        let (result, scratch) = try runRace(options + ["c = EAGAIN at 0"])
        #expect(result.status == 0, "\(result.diagnostics)")
        let lines = result.output.split(separator: "\n").map(String.init)
        let start = try #require(
            lines.firstIndex(of: "        This order leads to c = EAGAIN at 0, r = 0x41:"))
        #expect(lines[start + 1].hasPrefix("           1  host1 read 0            begins: "))
        #expect(lines.contains("           2  host convert 0 private  EAGAIN at 0"))
        #expect(lines.contains { $0.hasPrefix("           3  host1 read 0            ends: ") })
        let picture = try String(contentsOfFile: scratch.path("race.svg"), encoding: .utf8)
        #expect(picture.contains("c = EAGAIN at 0") && picture.contains("EAGAIN"))
        let other = try runRace(options + ["c=ok", "--witness", "r = SIGBUS", "--format", "json"]).0
        let json = try #require(other.json)
        let tests = try #require(json["tests"] as? [[String: Any]])
        let block = try #require((tests.first?["blocks"] as? [[String: Any]])?.first)
        let outcomes = try #require(block["outcomes"] as? [[String: Any]])
        #expect(outcomes.map { $0["selected"] as? Bool } == [false, false, true])
    }

    @Test(arguments: [
        ("c = EGAIN at 0", "column 5: unknown outcome EGAIN; did you mean EAGAIN?"),
        ("cc = ok", "column 1: no step has the result cc; did you mean c?"),
        ("c = ok, missing = ok", "column 9: no step has the result missing; the results are c, r"),
        ("c ok", "column 3: expected `=`, found `ok`"), ("", "column 1: expected the name of a result"),
        ("c = ok r = ok", "column 8: expected the end of the line"),
        ("r = ok", "column 5: `read 0` cannot end with `ok`"),
        ("c = EAGAIN at 1", "never occurs in any interleaving; possible: c = EAGAIN at 0, r = 0x41; c = ok"),
    ]) func anOutcomeThatCannotBeSelected(_ text: String, _ message: String) throws {
        let result = try runRace(["--witness", text]).0
        #expect(result.status == 64)
        #expect(result.diagnostics.contains("--witness \"\(text)\""), "\(result.diagnostics)")
        #expect(result.diagnostics.contains(message), "\(result.diagnostics)")
    }

    @Test func anOutcomeIsSelectedForOneTest() throws {
        let two = try run([Self.race, Self.race], ["--witness", "c = ok"])
        #expect(two.status == 64 && two.diagnostics.contains("--witness is for one test, not 2"))
        let none = try run([Self.good], ["--witness", "c = ok"])
        #expect(none.status == 64 && none.diagnostics.contains("no parallel block with named results"))
        #expect(try Command.run(["litmus", ".", "--faults", "--witness", "c = ok"]).status == 64)
    }

    /// On a backend that runs tests, orders come from the model, and a picture only from a run with the outcome.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func ordersOnARealKernelAreTheModels() throws {
        let options = ["--runs", "20", "--svg", "race.svg", "--witness"]
        let (result, scratch) = try runRace(options + ["c = EAGAIN at 0"], backend: "auto")
        guard !result.diagnostics.contains("SoftKVM") else { return }
        #expect(result.output.contains("order in the model: r begins, c, r ends"))
        #expect(
            result.output.contains("In the model of Linux 7.4 this order leads to c = EAGAIN at 0, r = 0x41:")
        )
        let isDrawn = FileManager.default.fileExists(atPath: scratch.path("race.svg"))
        #expect(isDrawn != result.diagnostics.contains("did not occur in 20 runs: no picture was drawn"))
        let (common, place) = try runRace(options + ["c = ok"], backend: "auto")
        #expect(common.status == 0 && FileManager.default.fileExists(atPath: place.path("race.svg")))
    }

    // MARK: failures

    @Test func failuresAreComparedWithTheModel() throws {
        let same = "the model of Linux 7.4 gives the same answer: the expectation is probably wrong"
        #expect(try run([Self.bad]).output.contains("          seen: 0x0\n          \(same)\n"))
        let json = try #require(try run([Self.bad], ["--format", "json"]).json)
        let test = try #require((json["tests"] as? [[String: Any]])?.first)
        #expect(test["model"] as? String == "same" && test["model_text"] as? String == same)
        let busy =
            "test \"x\"\nmemory 1 page shared\nhost hold 0 as h\nhost convert 0 private => EAGAIN at 0\n"
        let planted = try run([busy], ["--plant", "busy-check-missing"])
        #expect(
            planted.output.contains(
                "the model of Linux 7.4 gives EAGAIN at 0, as the test expects: the backend differs from it"))
        let missing = try run([Self.race.replacing("end\n", with: "required c = ok, r = 0x2\nend\n")])
        #expect(missing.status == 1)
        #expect(
            missing.output.contains("required outcome c = ok, r = 0x2 never occurs in any interleaving\n"))
        #expect(
            missing.output.contains(
                "it never occurs in the model of Linux 7.4 either: the test is probably wrong"))
        let forbidden = try run([Self.race.replacing("end\n", with: "forbidden c = ok, r = SIGBUS\nend\n")])
        #expect(forbidden.output.contains("outcome c = ok, r = SIGBUS occurred\n"))
        #expect(
            forbidden.output.contains(
                "the model of Linux 7.4 has this outcome too: the test is probably wrong"))
    }

    @Test(arguments: [
        ("my.elf", "\u{7f}ELF\0\0", "(binary file). To boot it: minivmm run my.elf"),
        ("my.S", ".globl _start\n_start:\n hlt\n", "(assembly source). Assemble it first: "),
        (
            "run.jsonl", "{\"schema\":\"minivmm.trace/1\",\"backend\":\"x\"}\n{}\n",
            "(trace). To draw it: minivmm report run.jsonl --html out.html"
        ),
        (
            "results.json", "{\"schema\":\"minivmm.litmus/1\"}\n",
            "(results in JSON). To print them as a table: minivmm litmus --table results.json"
        ),
        ("notes.txt", "Dear diary,\n", "notes.txt:1:1: a test begins with `test \"what it shows\"`"),
        ("typo.litmus", "tset \"x\"\n", "typo.litmus:1:1: unknown keyword tset; did you mean test?"),
        (
            "typo.litmus", "test \"x\"\nneed references\n",
            "typo.litmus:2:1: unknown keyword need; did you mean needs?"
        ),
    ]) func otherKindsOfFilesAreNamed(_ name: String, _ text: String, _ message: String) throws {
        let scratch = try Scratch()
        _ = try scratch.file(name, Array(text.utf8))
        let result = try Command.run(["litmus", name], in: scratch.url)
        #expect(result.status == 64 && result.output.isEmpty)
        #expect(result.diagnostics.contains(message), "\(result.diagnostics)")
    }

    /// Results that cannot be written are an error before any test runs.
    @Test(arguments: ["--save", "--report", "--svg", "--chrome"]) func placesAreCheckedFirst(_ option: String)
        throws
    {
        let scratch = try Scratch()
        _ = try scratch.file("race.litmus", Array(Self.race.utf8))
        for place in ["/no/such/place", "."] {
            let result = try Command.run(
                ["litmus", "--backend", "soft", "race.litmus", option, place], in: scratch.url)
            #expect(result.status == 125 && result.output.isEmpty, "\(place)")
            #expect(result.diagnostics.contains("\(place): the "), "\(result.diagnostics)")
        }
    }

    /// Without per-VM attributes the command fails once, and runs no test.
    @Test(.enabled(if: Command.lacksAttributes, "needs a /dev/kvm without per-VM attributes"))
    func withoutAttributesAllIsSkipped() throws {
        let scratch = try Scratch()
        let file = try scratch.file("good.litmus", Array(Self.good.utf8))
        for command in [["litmus", file], ["explore"]] {
            let result = try Command.run(command + ["--backend", "per-vm-attributes"])
            #expect(result.status == 4 && result.output.isEmpty, "\(result.diagnostics)")
            #expect(result.diagnostics.contains("no per-VM attributes"))
        }
    }

    /// Schedules are checked before the first test runs.
    @Test func wrongSchedulesAreUsageErrors() throws {
        let race = "litmus/race-convert-and-read.litmus"
        let test = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent(race).path
        for (options, words) in [
            (["--at", "host7@5"], "no actor host7"), (["--at", "now"], "VICTIM@DELAY"),
            (["--at", "host1@5#3"], "no parallel block 3"), (["--sweep", "--at", "host1@5"], "omit --sweep"),
            (["--sweep", "--chrome", "x.json"], "omit --chrome"),
            (["--sweep", "--preemptions", "3"], "give 1 or 2"),
            (["--preemptions", "2"], "belongs to --sweep"),
            (["--sweep", "--backend", "soft"], "real kernel"),
        ] {
            let result = try Command.run(["litmus"] + options + [test])
            #expect(result.status == 64 && result.output == "", "\(options): \(result)")
            #expect(result.diagnostics.contains(words), "\(result.diagnostics)")
        }
    }

    /// Allocations to fail are checked before the first test runs.
    @Test func wrongAllocationsAreUsageErrors() throws {
        let test = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("litmus/held-by-vmsplice.litmus").path
        for (options, words) in [
            (["--fail-at", "7"], "LINE:N"), (["--fail-at", "1:1"], "no step is on line 1"),
            (["--fail", "--fail-at", "7:1"], "omit --fail"), (["--fail", "--sweep"], "omit --sweep"),
            (["--fail", "--svg", "x.svg"], "draw no pictures"),
            (["--fail", "--backend", "soft"], "real kernel"),
            (["--fail", "--witness", "c = ok"], "omit --witness"),
        ] {
            let result = try Command.run(["litmus"] + options + [test])
            #expect(result.status == 64 && result.output == "", "\(options): \(result)")
            #expect(result.diagnostics.contains(words), "\(result.diagnostics)")
        }
    }

    /// A test of an SNP or TDX VM is drawn, and the picture says that a model answered.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func confidentialTestsAreDrawn() throws {
        let scratch = try Scratch()
        let test = scratch.path("x.litmus")
        let steps = "vcpu0 hypercall 0 private => ok\nvcpu0 accept 0 => ok\n"
        try "test \"x\"\nvm tdx\nmemory 4 pages shared\n\(steps)"
            .write(toFile: test, atomically: true, encoding: .utf8)
        let (svg, page) = (scratch.path("x.svg"), scratch.path("x.html"))
        let result = try Command.run(["litmus", "--backend", "soft", "--svg", svg, "--report", page, test])
        #expect(result.status == 0, "\(result.diagnostics)")
        for path in [svg, page] {
            let text = try String(contentsOfFile: path, encoding: .utf8)
            #expect(text.contains("model of TDX, from public documents; not hardware"), "\(path)")
            #expect(text.contains("unassigned"), "\(path)")
        }
    }
}
