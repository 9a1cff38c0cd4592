// SPDX-License-Identifier: MIT
import Foundation
import Testing

@Suite("The command explain", .enabled(if: Command.isBuilt, Command.missing))
struct ExplainTests {
    @Test func aTopicIsPrintedAsTextOrJSON() throws {
        let words = [
            "explain", "errno", "EAGAIN", "offset=0x2000", "size=0x4000", "error_offset=0x3000", "to=private",
        ]
        let text = try Command.run(words)
        #expect(text.status == 0 && text.diagnostics == "" && !text.output.contains("\u{1b}"))
        for word in ["attempted:", "answer:", "means:", "try:", "row 11", "offset=0x4000 size=0x2000"] {
            #expect(text.output.contains(word), "\(text.output)")
        }
        #expect(text.output.split(separator: "\n").allSatisfy { $0.count <= 80 })
        let json = try #require(try Command.run(words + ["--json"]).json)
        #expect(json["schema"] as? String == "minivmm.explain/1")
        let topics = try #require(json["topics"] as? [[String: Any]])
        #expect(
            topics.count == 1 && topics[0]["kind"] as? String == "errno"
                && topics[0]["rows"] as? [Int] == [11])
        #expect((topics[0]["try"] as? [String])?.isEmpty == false)
    }

    @Test func withoutWordsTheTopicsAreListed() throws {
        let text = try Command.run(["explain"])
        #expect(text.status == 0)
        for word in ["MEMORY_FAULT", "A34", "private", "rfc-v2", "EAGAIN", "converted"] {
            #expect(text.output.contains(word))
        }
        let kinds = try Command.run(["explain", "--json"]).json?["kinds"] as? [[String: Any]]
        #expect(kinds?.count == 12)
    }

    @Test func unknownWordsAreUsageErrors() throws {
        let near = try Command.run(["explain", "EGAIN"])
        #expect(near.status == 64 && near.output == "")
        #expect(near.diagnostics.contains("\"EGAIN\". Did you mean EAGAIN? (minivmm explain EAGAIN)"))
        let unknown = try Command.run(["explain", "nonsensical"])
        #expect(
            unknown.status == 64 && unknown.diagnostics.contains("\"nonsensical\". Run `minivmm explain`"))
        let line = try Command.run(["explain", "one two three four five six"])
        #expect(line.status == 64 && line.diagnostics.contains("\"one two three four five six\""))
        #expect(try Command.run(["explain", "errno", "EAGAIN", "size=x"]).status == 64)
        #expect(try Command.run(["explain", "EAGAIN", "--abi", "rfc-v9"]).status == 64)
        // The repeated word is escaped and cut.
        let hostile = try Command.run(["explain", "\u{1b}[31mred\u{7}\u{202e}"])
        #expect(
            hostile.status == 64 && !hostile.diagnostics.contains("\u{1b}")
                && !hostile.diagnostics.contains("\u{202e}"))
        for long in [String(repeating: "x", count: 100_000), String(repeating: "x ", count: 50_000)] {
            let result = try Command.run(["explain", long])
            #expect(result.status == 64 && result.diagnostics.count < 600)
        }
    }

    @Test func linesOfOtherProgramsAreExplained() throws {
        let fault = try Command.run(["explain", "Err(MemoryFault { flags: 8, gpa: 4096, size: 4096 })"])
        #expect(
            fault.status == 0 && fault.output.contains("needed a private page")
                && fault.output.contains("0x1000"))
        let words = ["explain", "error:", "kvm", "run", "failed", "Bad", "address"]
        #expect(try Command.run(words).output.contains("EFAULT (14) from KVM_RUN"))
    }

    @Test func standardInputIsExplainedLineByLine() throws {
        let log = """
            starting
            [pid 1] ioctl(13, KVM_RUN, 0) = -1 EFAULT (Bad address)
            MemoryFault { flags: 8, gpa: 4096, size: 4096 }
            MemoryFault { flags: 8, gpa: 8192, size: 4096 }
            \u{1b}[31mMemoryFault\u{1b}[0m { flags: 0, gpa: 8192, size: 4096 }

            """
        let text = try Command.run(["explain", "-"], input: log)
        #expect(text.status == 0 && text.diagnostics == "", "\(text)")
        for word in [
            "line 2: [pid 1]", "EFAULT (14) from KVM_RUN", "line 3: MemoryFault", "line 5: ",
            "1 more line has",
        ] {
            #expect(text.output.contains(word), "\(word) in \(text.output)")
        }
        #expect(
            !text.output.contains("line 1:") && !text.output.contains("line 4:")
                && !text.output.contains("\u{1b}"))
        let json = try #require(try Command.run(["explain", "-", "--json"], input: log).json)
        let topics = try #require(json["topics"] as? [[String: Any]])
        #expect(topics.map { $0["line"] as? Int } == [2, 3, 5])
        let nothing = try Command.run(["explain", "-"], input: "one\ntwo\n")
        #expect(nothing.status == 64 && nothing.diagnostics.contains("2 read"))
        let long = String(repeating: "=(", count: 1 << 19) + "\nKVM internal error. Suberror: 2"
        #expect(try Command.run(["explain", "-"], input: long).output.contains("SIMUL_EX"))
    }

    private static let labels = ["attempted: ", "answer: ", "means: ", "try: "]

    @Test func errorsHaveADiagnosis() throws {
        for arguments in [
            ["run", "nonsense"], ["run", "hello", "--trace", "/nonexistent/place"],
            ["run", "explicit", "--backend", "soft", "--abi", "rfc-v2"],
        ] {
            let result = try Command.run(arguments)
            let lines = result.diagnostics.split(separator: "\n")
            let places = Self.labels.map { label in
                lines.firstIndex { $0.trimmingCharacters(in: .whitespaces).hasPrefix(label) } ?? -1
            }
            #expect(places == places.sorted() && (places.first ?? -1) > 0, "\(result.diagnostics)")
        }
        // Usage errors have no diagnosis.
        #expect(!(try Command.run(["run", "hello", "--ram", "1"]).diagnostics.contains("means: ")))
    }

    @Test func theDiagnosisIsInJSON() throws {
        let failed = try Command.run(["run", "explicit", "--backend", "soft", "--abi", "rfc-v2", "--json"])
        for key in ["attempted", "answer", "means", "try"] {
            #expect((failed.json?[key] as? String)?.isEmpty == false, "\(failed)")
        }
        // A run that could not start prints exactly one object, too.
        for arguments in [["nonsense"], ["/dev/null"], ["hello", "--trace", "/nonexistent/place"]] {
            let result = try Command.run(["run"] + arguments + ["--json"])
            #expect(result.status == 125 && result.diagnostics.contains("means: "), "\(result)")
            let json = try #require(result.json)
            #expect(json["schema"] as? String == "minivmm.run/1" && json["backend"] is NSNull)
            #expect(json["outcome"] as? String == "failed" && json["status"] as? Int == 125)
            #expect((json["means"] as? String)?.isEmpty == false && json["statistics"] != nil)
        }
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func crashesAreExplained() throws {
        for (arguments, words) in [
            (["crash"], "exception 6"), (["fault-loop"], "A34"),
            (["hang", "--timeout", "0.2"], "--timeout"),
        ] {
            let result = try Command.run(["run"] + arguments + ["--quiet"])
            for label in Self.labels { #expect(result.diagnostics.contains(label), "\(result.diagnostics)") }
            #expect(result.diagnostics.contains(words), "\(result.diagnostics)")
        }
        let json = try #require(try Command.run(["run", "crash", "--json"]).json)
        #expect((json["means"] as? String)?.contains("no instruction") == true)
        #expect(try Command.run(["run", "hello", "--json"]).json?["means"] is NSNull)
    }

    /// `--explain` prints the same lines as without it, and a sentence below each.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func aTraceIsExplained() throws {
        let scratch = try Scratch()
        func trace(_ options: [String]) throws -> [String] {
            let path = scratch.path("trace.txt")
            #expect(try Command.run(["run", "hello", "--quiet", "--trace", path] + options).status == 0)
            return try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map(String.init)
        }
        func words(_ line: String) -> [Substring] { Array(line.split(separator: " ").dropFirst().prefix(2)) }
        let plain = try trace([])
        let explained = try trace(["--explain"])
        let isWhy = { (line: String) in line.hasPrefix(String(repeating: " ", count: 20)) }
        #expect(explained.filter { !isWhy($0) }.map(words) == plain.map(words))
        #expect(explained.count { isWhy($0) } == plain.count - 1)
        #expect(!explained.joined().contains("\u{1b}"))
        #expect(try Command.run(["run", "hello", "--explain"]).status == 64)
        #expect(
            try Command.run(["run", "hello", "--explain", "--trace", scratch.path("a.json")]).status == 64)
    }

    /// Lines are wrapped at the width of the terminal, and colours follow NO_COLOR.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests), arguments: [40, 80, 200], [true, false])
    func textsFitATerminal(_ columns: Int, _ colour: Bool) throws {
        let environment = colour ? ["TERM": "xterm"] : ["TERM": "xterm", "NO_COLOR": "1"]
        for (arguments, status) in [
            (["explain"], 0), (["explain", "errno", "EINVAL"], 0),
            (["explain", "KVM_SET_MEMORY_ATTRIBUTES2"], 0),
            (["explain", "EGAIN"], 64), (["run", "nonsense"], 125),
            (["run", "crash", "--backend", "soft"], 126),
            (["run", "pinned", "--backend", "soft", "--json", "--trace", "-", "--explain"], 0),
        ] as [([String], Int32)] {
            let terminal = try PseudoTerminal(columns: columns, rows: 50)
            #expect(try terminal.run(arguments, environment: environment, typing: []) == status)
            #expect(terminal.text.contains("\u{1b}[") == colour, "\(arguments)")
            // JSON is not wrapped.
            let lines = terminal.plainText.split(separator: "\n").filter { !$0.hasPrefix("{") }
            let long = lines.filter { $0.count > columns }
            #expect(!lines.isEmpty && long.isEmpty, "\(arguments): \(long)")
        }
    }
}
