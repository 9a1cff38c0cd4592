// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite("minivmm tour", .enabled(if: Command.runsGuests, Command.noGuests))
struct TourTests {
    static let titles = [
        "What private means", "Two aliases", "Explicit and implicit", "In place, or two copies",
        "Who decides what happens to the contents", "In use: EAGAIN", "Races",
        "SNP: the guest validates", "TDX: the guest accepts", "A hostile host",
    ]

    private func soft(_ more: [String], input: String? = nil) throws -> Command.Result {
        try Command.run(["tour", "--backend", "soft"] + more, input: input)
    }

    /// The whole tour on SoftKVM, where its output is always the same.
    @Test func everyChapterBehavesAsDescribed() throws {
        let result = try soft(["--no-interactive"])
        #expect(result.status == 0, "\(result.output)")
        for (index, title) in Self.titles.enumerated() {
            #expect(result.output.contains("\n\(index + 1)  \(title)\n"))
        }
        #expect(result.output.components(separatedBy: "Question: ").count == 11)
        #expect(result.output.components(separatedBy: "Answer: ").count == 11)
        for line in [
            "reads 0x200000: hi, guest", "EFAULT: the page is private", "accesses page",
            "error_offset names page 517",
            "after the conversion to private   64 MiB", "while the contents are copied     128 MiB",
            "allowed    c = EAGAIN at 0, r = 0x41", "Everything behaved as described.", "on SoftKVM",
            "exception, code 0x404", "model of SNP, from public documents; not hardware",
            "KVM has given up the VM (KVM_RUN: EIO)", "taken: the guest reads 0x0",
            "the host shows the old page", "asked to be terminated",
            "not available (SoftKVM was chosen with --backend soft)",
            "the histogram of a real kernel, because the backend is SoftKVM",
        ] {
            let isTable = line.contains("  ")
            #expect((isTable ? result.output : result.output.unfolded).contains(line), "\(line)")
        }
        #expect(!result.output.contains("did not behave"))
        // Without a terminal it neither waits nor uses colours, and prints the same.
        #expect(!result.output.contains("\u{1b}"))
        #expect(try soft([]).output == result.output)
    }

    /// Runs on any backend, and reports what that backend cannot show.
    @Test func runsOnThisMachinesBackend() throws {
        let result = try Command.run(["tour", "--no-interactive"])
        #expect(result.status == 0, "\(result.output)")
    }

    @Test func chapterAndListOptions() throws {
        let one = try soft(["--chapter", "7"])
        #expect(one.status == 0)
        #expect(one.output.contains("7  Races") && !one.output.contains("6  In use"))
        let list = try Command.run(["tour", "--list"])
        #expect(list.output.split(separator: "\n").map { String($0.dropFirst(4)) } == Self.titles)
        for number in ["0", "11", "x"] {
            #expect(try Command.run(["tour", "--chapter", number]).status == 64)
        }
    }

    /// The keys for answer, next, back, another chapter, source, help and quit.
    @Test func keysNavigate() throws {
        let result = try soft(["--interactive"], input: "\n\nn\nb\n3\ns\n?\nwhat\n\nr\nq\n")
        #expect(result.status == 0)
        let visited = result.output.split(separator: "\n").compactMap { line in
            Self.titles.firstIndex { line.hasSuffix("  " + $0) }.map { $0 + 1 }
        }
        #expect(visited == [1, 2, 1, 3, 3])
        #expect(result.output.components(separatedBy: "Answer: ").count == 2)
        #expect(result.output.contains("guest/explicit.S"))
        #expect(result.output.contains("#define GUEST \"explicit\""))
        // The tour ends at the end of input.
        #expect(try soft(["--interactive"], input: "n\n").status == 0)
        // When interactive, --chapter only selects the first chapter. The source may be a litmus test.
        let jump = try soft(["--interactive", "--chapter", "3"], input: "7\ns\n8\ns\n\n\n\n")
        #expect(jump.status == 0)
        #expect(jump.output.contains("\n7  Races\n") && jump.output.contains("\n8  SNP"))
        #expect(jump.output.contains("a litmus test\n   test    \"a conversion and a read\""))
        #expect(jump.output.contains("guest/first-touch.S"))
    }

    /// On a backend that guarantees nothing about contents, the tour names the chapters that it cannot show.
    @Test func chaptersThatCannotBeShownAreNamed() throws {
        let all = try soft(["--abi", "rfc-v2", "--no-interactive"])
        #expect(all.status == 0)
        #expect(all.output.unfolded.contains("Chapters that this backend cannot show: 1, 2, 3, 6, 8, 9, 10."))
        #expect(
            all.output.unfolded.contains(
                "one copy, because SoftKVM (Unicorn 2.0.1, ABI RFC v2) does not preserve contents in place"))
        let one = try soft(["--abi", "rfc-v2", "--chapter", "1"])
        #expect(one.status == 4)
        #expect(one.output.unfolded.contains("loses the contents of memory that is converted"))
    }

    @Test func plantedFaultIsReported() throws {
        let result = try soft(["--chapter", "6", "--plant", "busy-check-missing"])
        #expect(result.status == 1, "\(result.output)\(result.diagnostics)")
        #expect(result.output.contains("Chapters that did not behave as described: 6"))
    }

    /// The commands that the chapters suggest work.
    @Test func suggestedCommandsWork() throws {
        let text = try soft(["--no-interactive"]).output
        let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let scratch = try Scratch()
        var count = 0
        for line in text.split(separator: "\n") where line.hasPrefix("   try  minivmm ") {
            var words = line.split(separator: " ").dropFirst(2).map {
                $0.replacingOccurrences(of: ";", with: "")
            }
            if let shell = words.firstIndex(of: "echo") { words = Array(words[..<shell]) }
            // Running all tests on three versions takes too long.
            if words.last == "litmus" { continue }
            words = words.map { word in
                word.hasPrefix("litmus/")
                    ? repository.appendingPathComponent(word).path
                    : word.hasSuffix(".html") ? scratch.path(word) : word
            }
            let result = try Command.run(words, input: "")
            let crashes = ["fault-loop", "kexec", "swap-pages"].contains(where: words.contains)
            let expected: Int32 = crashes ? 126 : words.contains("creation-flag") ? 1 : 0
            #expect(result.status == expected, "\(line): \(result.status) \(result.diagnostics)")
            count += 1
        }
        #expect(count >= 14, "\(text)")
    }

    // MARK: in a terminal

    @Test(arguments: [80, 40]) func waitsInATerminal(columns: Int) throws {
        let terminal = try PseudoTerminal(columns: columns, rows: 24)
        let status = try terminal.run(
            ["tour", "--backend", "soft", "--chapter", "4"], environment: ["TERM": "xterm"],
            typing: ["", "", "s", "q", "7", "", "q"])
        #expect(status == 0, "\(terminal.text)")
        let text = terminal.text
        for line in [
            "[4/10] Enter: run it", "[4/10] Enter: answer", "Answer: Pinned memory", "Enter: more; q: back",
            "[7/10]",
        ] {
            #expect(text.contains(line), "\(line)")
        }
        #expect(text.contains("\u{1b}[1m"))
        // Prose fits the width of the terminal; the guest's source may not.
        let prose = terminal.plainText.split(whereSeparator: \.isNewline)
        let long = prose.filter { $0.count > columns && !$0.contains("//") && !$0.hasPrefix("       ") }
        #expect(long.isEmpty, "\(long)")
    }

    @Test func coloursCanBeTurnedOff() throws {
        let terminal = try PseudoTerminal(columns: 80, rows: 24)
        let status = try terminal.run(
            ["tour", "--backend", "soft", "--chapter", "2"], environment: ["TERM": "xterm", "NO_COLOR": "1"],
            typing: ["q"])
        #expect(status == 0)
        #expect(!terminal.text.contains("\u{1b}"))
    }

    /// Guests run with signals blocked, but Ctrl-C works at the prompt after one.
    @Test(arguments: [1, 2], ["Enter: run it", "Enter: answer"])
    func ctrlCEndsTheTour(chapter: Int, prompt: String) throws {
        let terminal = try PseudoTerminal(columns: 80, rows: 24)
        let status = try terminal.run(
            ["tour", "--backend", "soft", "--chapter", "\(chapter)"], environment: [:],
            typing: prompt.contains("run") ? [] : [""],
            interruptAfter: prompt)
        #expect(status == 130, "\(terminal.text)")
    }

    @Test func textIsASCIIWithoutUTF8() throws {
        let text = try soft(["--no-interactive"]).output
        #expect(text.utf8.allSatisfy { $0 < 0x80 }, "\(text.filter { !$0.isASCII })")
    }

    @Test func guestsIncludeTheirSource() {
        for payload in Catalogue.all {
            #expect(payload.source.contains("#define GUEST \"\(payload.name)\""), "\(payload.name)")
        }
    }
}

extension String {
    /// The text on one line, so that it does not depend on the width it was printed with.
    var unfolded: String { split(whereSeparator: \.isWhitespace).joined(separator: " ") }
}
