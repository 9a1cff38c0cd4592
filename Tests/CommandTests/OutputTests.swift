// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// Outputs that cannot be written, and how untrusted file names are printed.
@Suite(
    "The command: output", .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Command.runsGuests, Command.noGuests), .timeLimit(.minutes(120)))
struct OutputTests {
    private static let test = "test \"x\"\nmemory 1 pages shared\nhost read 0 => 0\n"

    /// Runs a shell script, which can redirect outputs and set limits; `$0` is minivmm.
    private func shell(
        _ script: String, _ arguments: [String] = [], in scratch: Scratch? = nil
    ) throws -> Command.Result {
        let executable = try #require(Command.executable, Command.missing)
        return try Command.run(
            ["-c", script, executable.path] + arguments, tool: URL(fileURLWithPath: "/bin/sh"),
            in: scratch?.url)
    }

    @Test(arguments: [
        "run hello --backend soft", "run hello --backend soft --json", "list", "list --planted", "explain",
        "explain errno EAGAIN", "probe --backend soft", "probe --backend soft --json", "demo --act 1",
        "tour --chapter 1 --no-interactive", "litmus --backend soft x.litmus",
        "litmus --backend soft --format ktap x.litmus", "litmus --backend soft --format json x.litmus",
        "explore --backend soft --depth 1 --tests 2 --parallel 0",
        "explore --backend soft --depth 1 --tests 2 --parallel 0 --json", "--help", "help run", "--version",
        "--generate-completion-script fish", "report t.jsonl --text", "report t.jsonl --svg -",
    ])
    func fullDiskIsAnError(_ command: String) throws {
        let scratch = try Scratch()
        _ = try scratch.file("x.litmus", Array(Self.test.utf8))
        if command.hasPrefix("report") {
            _ = try Command.run(["run", "hello", "--backend", "soft", "--trace", "t.jsonl"], in: scratch.url)
        }
        let result = try shell("exec \"$0\" \(command) > /dev/full", in: scratch)
        #expect(result.status == 125, "\(result.diagnostics)")
        #expect(result.diagnostics.contains("standard output"), "\(result.diagnostics)")
        #expect(result.diagnostics.contains("ENOSPC"), "\(result.diagnostics)")
    }

    @Test(arguments: [
        "run hello --backend soft --trace /dev/full --trace-format json",
        "run hello --backend soft --trace /dev/full",
        "run hello --backend soft --trace /dev/full --explain", "run hello --backend soft --report /dev/full",
        "litmus --backend soft x.litmus --save /dev/full", "litmus --backend soft x.litmus --svg /dev/full",
    ])
    func unwritableFileIsAnError(_ command: String) throws {
        let scratch = try Scratch()
        _ = try scratch.file("x.litmus", Array(Self.test.utf8))
        let result = try shell("exec \"$0\" \(command)", in: scratch)
        #expect(result.status == 125, "\(result.diagnostics)")
        let text = result.diagnostics
        #expect(text.contains("/dev/full") || text.contains("the trace"), "\(text)")
    }

    /// The message is lost, but the exit status reports the error.
    @Test func unwritableStandardErrorIsAnError() throws {
        #expect(try shell("exec \"$0\" run hello --backend soft 2> /dev/full").status == 125)
        #expect(try shell("exec \"$0\" run hello --backend soft --trace - 2> /dev/full").status == 125)
    }

    /// If a standard descriptor is closed, no file that the command opens gets its number.
    @Test(arguments: [">&-", ">&- 2>&-", "<&- >&-", "<&- >&- 2>&-", "<&-", "2>&-"])
    func closedStandardDescriptorStaysUnused(_ closed: String) throws {
        let scratch = try Scratch()
        let open = try Command.run(
            ["run", "hello", "--backend", "soft", "--trace", "open.txt"], in: scratch.url)
        let result = try shell(
            "exec \"$0\" run hello --backend soft --trace closed.txt \(closed)", in: scratch)
        #expect(open.status == 0 && result.status == 0, "\(result.diagnostics)")
        let traces = try ["open.txt", "closed.txt"].map {
            try String(contentsOfFile: scratch.path($0), encoding: .utf8)
        }
        #expect(traces[0] == traces[1] && !traces[0].contains("\nHello"))
    }

    // MARK: limits of the host

    /// Running out of descriptors is an error, neither a failed nor a skipped test.
    @Test(arguments: ["soft", "auto"], [5, 6, 7, 8]) func descriptorLimitIsAnError(
        _ backend: String, _ count: Int
    )
        throws
    {
        let scratch = try Scratch()
        let test =
            "test \"x\"\nneeds references\nmemory 1 pages shared\nhost create f 1 pages mmap\n"
            + "host create g 1 pages mmap\nhost create h 1 pages mmap\nhost create i 1 pages mmap\n"
        _ = try scratch.file("x.litmus", Array(test.utf8))
        let result = try shell(
            "ulimit -n \(count); exec \"$0\" litmus --backend \(backend) x.litmus", in: scratch)
        #expect(result.status == 125, "\(result.status) \(result.output)\(result.diagnostics)")
        #expect(!result.output.contains("failed  ") && !result.output.contains("skipped "))
    }

    @Test func descriptorLimitIsNamed() throws {
        let scratch = try Scratch()
        _ = try scratch.file(
            "x.litmus",
            Array((Self.test + (0..<9).map { "host create f\($0) 1 pages mmap\n" }.joined()).utf8))
        let result = try shell("ulimit -n 10; exec \"$0\" litmus --backend soft x.litmus", in: scratch)
        #expect(result.status == 125 && result.diagnostics.contains("EMFILE"), "\(result.diagnostics)")
        #expect(result.diagnostics.contains("ulimit -n"))
        let json = try shell(
            "ulimit -n 10; exec \"$0\" litmus --backend soft --format json x.litmus", in: scratch
        ).json
        #expect((json?["tests"] as? [[String: Any]])?.first?["verdict"] as? String == "error")
        let junit = try shell(
            "ulimit -n 10; exec \"$0\" litmus --backend soft --format junit x.litmus x.litmus", in: scratch)
        #expect(junit.status == 125)
        #expect(junit.output.contains(#" failures="0" errors="1" skipped="1" "#), "\(junit.output)")
        #expect(junit.output.contains(#"<error message="the host ran out of a resource: "#))
        #expect(junit.output.contains(#"<skipped message="not run: the host failed in an earlier test"/>"#))
    }

    // MARK: names

    /// Names with invalid UTF-8, terminal escape sequences, a bidirectional override or a line feed.
    private static let names: [(bytes: [UInt8], shown: String)] = [
        (Array("a".utf8) + [0xff, 0xfe], "a\\xff\\xfe"), (Array("b\u{1b}[31mred".utf8), "b\\x1b[31mred"),
        (Array("c\u{202e}gpj".utf8), "c\\u{202e}gpj"), (Array("d\nnew".utf8), "d\\x0anew"),
        (Array("e\u{9b}31m".utf8), "e\\x9b31m"), (Array("f\u{10ff80}".utf8), "f\\xf4\\x8f\\xbe\\x80"),
    ]

    private func create(_ name: [UInt8], _ text: String, in scratch: Scratch) throws -> String {
        let path = Array(scratch.url.path.utf8) + [0x2f] + name
        let octal = path.map {
            "\\" + String($0 / 64, radix: 8) + String($0 / 8 % 8, radix: 8) + String($0 % 8, radix: 8)
        }
        .joined()
        _ = try scratch.file("content", Array(text.utf8))
        // The shell creates the file, since Foundation accepts only Unicode names.
        let made = try shell("cp content \"$(printf '\(octal)')\"; rm content", in: scratch)
        #expect(made.status == 0, "\(made.diagnostics)")
        return "\"$(printf '\(octal)')\""
    }

    @Test func fileNamesAreBytesAndPrintedEscaped() throws {
        for (name, shown) in Self.names {
            let scratch = try Scratch()
            let ending = Array(".litmus".utf8)
            let path = try create(name + ending, Self.test, in: scratch)
            for arguments in [path, ". --format ktap", "\(path) --format ktap", "."] {
                let result = try shell("exec \"$0\" litmus --backend soft \(arguments)", in: scratch)
                #expect(result.status == 0, "\(shown): \(result.diagnostics)")
                let isKTAP = arguments.contains("ktap")
                #expect(result.output.contains(shown + (isKTAP ? "\n" : ": x\n")), "\(result.output)")
            }
            let json = try shell("exec \"$0\" litmus --backend soft --format json \(path)", in: scratch)
            #expect(json.json != nil && !json.output.contains("\u{202e}") && !json.output.contains("\u{9b}"))
            // Every option that takes a file accepts such names.
            let files = try shell(
                "\"$0\" run hello -q --backend soft --trace \(path).jsonl --report \(path).html "
                    + "&& \"$0\" report \(path).jsonl --svg \(path).svg "
                    + "&& \"$0\" litmus --backend soft --save \(path).json \(path) "
                    + "&& test -s \(path).html && test -s \(path).svg && test -s \(path).json", in: scratch)
            #expect(files.status == 0, "\(shown): \(files.diagnostics)")
            let missing = try shell("exec \"$0\" run \(path)missing", in: scratch)
            #expect(missing.status == 125 && missing.diagnostics.contains("\(shown).litmusmissing: "))
            #expect(missing.diagnostics.utf8.allSatisfy { $0 == 10 || $0 >= 0x20 })
            let usage = try shell("exec \"$0\" run hello \(path)", in: scratch)
            #expect(usage.status == 64 && !usage.diagnostics.contains("\u{1b}"), "\(usage.diagnostics)")
        }
    }

    /// On a terminal the command prints its own escape sequences, but none that come from a name.
    @Test func fileNameIsEscapedOnATerminal() throws {
        let scratch = try Scratch()
        let path = try scratch.file("b\u{1b}[31mred.litmus", Array(Self.test.utf8))
        let terminal = try PseudoTerminal(columns: 200, rows: 50)
        let status = try terminal.run(
            ["litmus", "--backend", "soft", path], environment: ["TERM": "xterm"], typing: [])
        #expect(status == 0 && terminal.text.contains("b\\x1b[31mred"), "\(terminal.text.debugDescription)")
        #expect(terminal.text.contains("\u{1b}[32mpassed"), "\(terminal.text.debugDescription)")
    }

    // MARK: invalid tests

    @Test func invalidTestIsFoundBeforeAnyRuns() throws {
        let scratch = try Scratch()
        for (index, body) in ["host read 0", "host read 7", "hazard A99\nhost read 0", "host jump"]
            .enumerated()
        {
            let memory = "memory 4 pages shared\n"
            let text =
                body.hasPrefix("hazard") ? "test \"x\"\n\(memory)\(body)\n" : "test \"x\"\n\(memory)\(body)\n"
            _ = try scratch.file("\(index).litmus", Array(text.utf8))
        }
        let result = try Command.run(["litmus", "--backend", "soft", "."], in: scratch.url)
        #expect(result.status == 64 && result.output.isEmpty, "\(result.output)")
        #expect(result.diagnostics.contains("./1.litmus:3:1: @0x7000+1 is not inside the view `ram`"))
        #expect(result.diagnostics.contains("./2.litmus:3:1: no hazard is named A99"))
        #expect(result.diagnostics.contains("./3.litmus:3:6: unknown action"))
    }
}
