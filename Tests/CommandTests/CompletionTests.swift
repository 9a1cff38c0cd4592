// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite("Shell completions", .enabled(if: Command.isBuilt, Command.missing))
struct CompletionTests {
    @Test(arguments: ["bash", "zsh", "fish"]) func everyShellHasAScript(_ shell: String) throws {
        let result = try Command.run(["--generate-completion-script", shell])
        #expect(result.status == 0)
        for word in [
            "probe", "litmus", "explain", "report", "bench", "tour", "memslot-trap", "--plant",
        ] {
            #expect(result.output.contains(word), "\(word)")
        }
        #expect(!result.output.contains("generate-manual"))
    }

    /// Each shell that is installed parses its script.
    @Test(arguments: ["bash", "zsh", "fish"]) func scriptIsWellFormed(_ shell: String) throws {
        let program = "/usr/bin/\(shell)"
        guard FileManager.default.isExecutableFile(atPath: program) else { return }
        let directory = try Scratch()
        let script = try Command.run(["--generate-completion-script", shell]).output
        let file = try directory.file("minivmm.\(shell)", Array(script.utf8))
        let result = try Command.run(["-n", file], tool: URL(fileURLWithPath: program))
        #expect(result.status == 0 && result.diagnostics == "", "\(result.diagnostics)")
    }

    /// The words that bash offers when Tab is pressed at the end of the last word.
    private func complete(_ words: [String]) throws -> [String] {
        let directory = try Scratch()
        let script = try Command.run(["--generate-completion-script", "bash"]).output
        let completion = try directory.file("minivmm.bash", Array(script.utf8))
        for name in ["mine.elf", "mine.litmus", "mine.jsonl", "hello-too"] {
            _ = try directory.file(name, [0])
        }
        try FileManager.default.createDirectory(
            atPath: directory.path("tests"), withIntermediateDirectories: false)
        _ = try directory.file("tests/inside", [0])
        let command = try #require(Command.executable).deletingLastPathComponent().path
        let program = """
            PATH='\(command)':$PATH
            source '\(completion)'
            COMP_WORDS=(\(words.map { "'\($0)'" }.joined(separator: " ")))
            COMP_CWORD=\(words.count - 1)
            COMP_LINE='\(words.joined(separator: " "))'
            COMP_POINT=${#COMP_LINE}
            _minivmm minivmm '\(words.last ?? "")' '\(words.dropLast().last ?? "")' 2>/dev/null
            printf '%s\\n' "${COMPREPLY[@]}"
            """
        let result = try Command.run(
            ["-c", program], tool: URL(fileURLWithPath: "/bin/bash"), in: directory.url)
        return result.output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
    }

    @Test func subcommandsAreCompleted() throws {
        let offered = try complete(["minivmm", ""])
        for word in [
            "probe", "list", "run", "demo", "tour", "report", "litmus", "explore", "explain", "bench",
        ] {
            #expect(offered.contains(word), "\(offered)")
        }
        #expect(!offered.contains("generate-manual"))
        #expect(try complete(["minivmm", "li"]) == ["list", "litmus"])
    }

    @Test func optionValuesAreCompleted() throws {
        #expect(try complete(["minivmm", "run", "hello", "--backend", "mem"]) == ["memslot-trap"])
        #expect(
            Set(try complete(["minivmm", "run", "hello", "--backend", ""]))
                == ["auto", "linux", "per-vm-attributes", "memslot-trap", "soft"])
        #expect(
            try complete(["minivmm", "run", "hello", "--plant", "busy-names-h"]) == ["busy-names-highest"])
        let faults = try complete(["minivmm", "litmus", "--plant", "busy-"])
        #expect(faults.contains("busy-names-highest") && faults.contains("busy-check-missing"), "\(faults)")
        #expect(try complete(["minivmm", "litmus", "--abi", "rfc-v"]).contains("rfc-v2"))
        #expect(try complete(["minivmm", "run", "hello", "--contents", "z"]) == ["zero"])
    }

    @Test func guestsCompleteToNamesAndFiles() throws {
        let all = try complete(["minivmm", "run", ""])
        for payload in Catalogue.all { #expect(all.contains(payload.name), "\(payload.name)") }
        #expect(all.contains("mine.elf") && all.contains("tests/"))
        #expect(try complete(["minivmm", "run", "hel"]) == ["hello", "hello-too"])
        #expect(try complete(["minivmm", "run", "tests/"]) == ["tests/inside"])
        #expect(try complete(["minivmm", "run", "no/such/"]) == [])
    }

    @Test func filesAreFilteredByExtension() throws {
        let tests = try complete(["minivmm", "litmus", "mine"])
        #expect(tests.contains("mine.litmus") && !tests.contains("mine.elf"), "\(tests)")
        let traces = try complete(["minivmm", "report", "mine"])
        #expect(traces == ["mine.jsonl"])
    }

    @Test func explainTopicsAreCompleted() throws {
        let first = try complete(["minivmm", "explain", ""])
        for word in ["errno", "hazard", "A6", "private"] { #expect(first.contains(word), "\(first)") }
        let second = try complete(["minivmm", "explain", "errno", "EA"])
        #expect(second == ["EAGAIN"])
        #expect(try complete(["minivmm", "explain", "MEMORY_F"]).contains("MEMORY_FAULT"))
    }
}
