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
        #expect(unreadable.diagnostics.contains("test-2#.litmus:2:6: expected an action"))
        #expect(try run([]).status == 64)
        #expect(try Command.run(["litmus", "/nonexistent"]).status == 64)
        #expect(try Command.run(["litmus"]).status == 64)
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func ktapToTheLetter() throws {
        let lines = try run([Self.good, Self.bad, Self.skipped], ["--format", "ktap"]).output
            .split(separator: "\n").map(String.init)
        #expect(lines.first == "KTAP version 1")
        #expect(lines[2] == "1..3")
        #expect(
            lines.filter { !$0.hasPrefix("# ") } == [
                "KTAP version 1", "1..3", "ok 1 test-1_", "not ok 2 test-2_",
                "ok 3 test-3_ # SKIP a memslot leads into the view `ram`: what is mapped there next would become the guest's",
            ])
        #expect(lines.last == "# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0")
    }

    /// Runs that could never all be done: what was seen counts, in each format.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func aTestThatIsCutShort() throws {
        let scratch = try Scratch()
        let race =
            "test \"race\"\nmemory 1 pages shared\nparallel\nhost convert 0 private => a\nhost1 read 0 => b\nend\n"
        _ = try scratch.file("race.litmus", Array(race.utf8))
        // Its interleavings are explored on the software kernel, so this is for what else there is.
        let options = ["litmus", scratch.url.path, "--runs", "100000000", "--timeout", "0.5"]
        let text = try Command.run(options)
        guard !text.diagnostics.contains("SoftKVM") else { return }
        #expect(text.status == 0, "\(text.output)")
        #expect(text.output.contains("cut short by the time limit of 0.5 s: "))
        #expect(text.output.contains("of 100000000 runs") && text.output.contains("; 1 cut short"))
        let ktap = try Command.run(options + ["--format", "ktap"]).output
        #expect(ktap.contains("\n# cut short by ") && ktap.contains("\nok 1 race\n"))
        let json = try #require(try Command.run(options + ["--format", "json"]).json)
        let test = try #require((json["tests"] as? [[String: Any]])?.first)
        let cut = try #require(test["cut_short"] as? [String: Any])
        #expect(json["cut_short"] as? Int == 1 && test["verdict"] as? String == "passed")
        #expect(cut["by"] as? String == "time limit" && cut["of"] as? Int == 100_000_000)
        let runs = (test["blocks"] as? [[String: Any]])?.first?["runs"] as? Int
        #expect(runs != nil && cut["runs"] as? Int == runs)
        // Ctrl-C ends all of it; what was not run is not run.
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

    /// A line that is written over, where somebody looks.
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
        #expect(status == 0 && terminal.plainText.contains(#/race  [0-9]+ of 100000000 runs/#))
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

    /// A kernel without per-VM attributes says so once, and no test is run.
    @Test(.enabled(if: Command.lacksAttributes, "needs a /dev/kvm without per-VM attributes"))
    func withoutTheAttributesAllIsSkipped() throws {
        let scratch = try Scratch()
        let file = try scratch.file("good.litmus", Array(Self.good.utf8))
        for command in [["litmus", file], ["explore"]] {
            let result = try Command.run(command + ["--backend", "per-vm-attributes"])
            #expect(result.status == 4 && result.output.isEmpty, "\(result.diagnostics)")
            #expect(result.diagnostics.contains("no per-VM attributes"))
        }
    }
}
