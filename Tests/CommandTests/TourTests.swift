// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite("minivmm tour", .enabled(if: Command.runsGuests, Command.noGuests))
struct TourTests {
    static let titles = [
        "What private means", "Two aliases", "Explicit and implicit", "In place, or two copies",
        "Who decides what happens to the contents", "In use: EAGAIN", "Races",
        "What TDX, SNP and pKVM do differently",
    ]

    private func soft(_ more: [String], input: String? = nil) throws -> Command.Result {
        try Command.run(["tour", "--backend", "soft"] + more, input: input)
    }

    /// All of it, on the kernel that is always the same.
    @Test func everyChapterGoesAsTold() throws {
        let result = try soft(["--no-interactive"])
        #expect(result.status == 0, "\(result.output)")
        for (index, title) in Self.titles.enumerated() {
            #expect(result.output.contains("\n\(index + 1)  \(title)\n"))
        }
        #expect(result.output.components(separatedBy: "Question: ").count == 9)
        #expect(result.output.components(separatedBy: "Answer: ").count == 9)
        for line in [
            "reads 0x200000: hi, guest", "EFAULT: the page is private", "accesses page",
            "error_offset names page 517",
            "after the conversion to private   64 MiB", "while the contents are copied     128 MiB",
            "allowed    c = EAGAIN at 0, r = 0x41", "Everything behaved as described.", "on SoftKVM",
            "Nothing runs in this chapter, because no such hardware",
            "not available (SoftKVM was chosen with --backend soft)",
            "the histogram of a real kernel, because the backend is SoftKVM",
        ] {
            let isTable = line.contains("  ")
            #expect((isTable ? result.output : result.output.unfolded).contains(line), "\(line)")
        }
        #expect(!result.output.contains("did not behave"))
        // No terminal, no waiting, no colours; and the same again.
        #expect(!result.output.contains("\u{1b}"))
        #expect(try soft([]).output == result.output)
    }

    /// Whatever kernel is there: what it cannot show is said.
    @Test func itGoesOnThisMachinesKernel() throws {
        let result = try Command.run(["tour", "--no-interactive"])
        #expect(result.status == 0, "\(result.output)")
    }

    @Test func oneChapterAndTheList() throws {
        let one = try soft(["--chapter", "7"])
        #expect(one.status == 0)
        #expect(one.output.contains("7  Races") && !one.output.contains("6  In use"))
        let list = try Command.run(["tour", "--list"])
        #expect(list.output.split(separator: "\n").map { String($0.dropFirst(3)) } == Self.titles)
        for number in ["0", "9", "x"] {
            #expect(try Command.run(["tour", "--chapter", number]).status == 64)
        }
    }

    /// Answer, next, back, another chapter, the source, help, the end.
    @Test func aLearnerFindsTheWay() throws {
        let result = try soft(["--interactive"], input: "\n\nn\nb\n3\ns\n?\nwhat\n\nr\nq\n")
        #expect(result.status == 0)
        let told = result.output.split(separator: "\n").compactMap { line in
            Self.titles.firstIndex { line.hasSuffix("  " + $0) }.map { $0 + 1 }
        }
        #expect(told == [1, 2, 1, 3, 3])
        #expect(result.output.components(separatedBy: "Answer: ").count == 2)
        #expect(result.output.contains("guest/explicit.S"))
        #expect(result.output.contains("#define GUEST \"explicit\""))
        // The end of input is an end.
        #expect(try soft(["--interactive"], input: "n\n").status == 0)
        // Where it waits, --chapter is a start and not an end; a test has a source as well.
        let jump = try soft(["--interactive", "--chapter", "3"], input: "7\ns\n8\ns\n\n\n\n")
        #expect(jump.status == 0)
        #expect(jump.output.contains("\n7  Races\n") && jump.output.contains("\n8  What TDX"))
        #expect(jump.output.contains("a litmus test\n   test    \"a conversion and a read\""))
        #expect(jump.output.contains("Nothing runs in this chapter.\n"))
    }

    /// A kernel that promises nothing about contents: said chapter by chapter, and by the status.
    @Test func whatCannotBeShownIsSaid() throws {
        let all = try soft(["--abi", "rfc-v2", "--no-interactive"])
        #expect(all.status == 0)
        #expect(all.output.unfolded.contains("Chapters that this backend cannot show: 1, 2, 3, 6."))
        #expect(
            all.output.unfolded.contains(
                "one copy, because SoftKVM (Unicorn 2.0.1, ABI RFC v2) does not preserve contents in place"))
        let one = try soft(["--abi", "rfc-v2", "--chapter", "1"])
        #expect(one.status == 4)
        #expect(one.output.unfolded.contains("loses the contents of memory that is converted"))
    }

    @Test func aKernelThatBreaksARuleIsNotAsTold() throws {
        let result = try soft(["--chapter", "6", "--plant", "busy-check-missing"])
        #expect(result.status == 1, "\(result.output)\(result.diagnostics)")
        #expect(result.output.contains("Chapters that did not behave as described: 6"))
    }

    /// What a chapter tells to type is accepted.
    @Test func whatThereIsToTryWorks() throws {
        let told = try soft(["--no-interactive"]).output
        let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let scratch = try Scratch()
        var count = 0
        for line in told.split(separator: "\n") where line.hasPrefix("   try  minivmm ") {
            var words = line.split(separator: " ").dropFirst(2).map {
                $0.replacingOccurrences(of: ";", with: "")
            }
            if let shell = words.firstIndex(of: "echo") { words = Array(words[..<shell]) }
            // All of the tests on three versions is for somebody with time.
            if words.last == "litmus" { continue }
            words = words.map { word in
                word.hasPrefix("litmus/")
                    ? repository.appendingPathComponent(word).path
                    : word.hasSuffix(".html") ? scratch.path(word) : word
            }
            let result = try Command.run(words, input: "")
            let expected: [Int32] =
                words.contains("fault-loop") ? [126] : words.contains("creation-flag") ? [1] : [0]
            #expect(expected.contains(result.status), "\(line): \(result.status) \(result.diagnostics)")
            count += 1
        }
        #expect(count >= 14, "\(told)")
    }

    // MARK: in a terminal

    @Test(arguments: [80, 40]) func itWaitsInATerminal(columns: Int) throws {
        let terminal = try PseudoTerminal(columns: columns, rows: 24)
        let status = try terminal.run(
            ["tour", "--backend", "soft", "--chapter", "4"], environment: ["TERM": "xterm"],
            typing: ["", "", "s", "q", "7", "", "q"])
        #expect(status == 0, "\(terminal.text)")
        let text = terminal.text
        for line in [
            "[4/8] Enter: run it", "[4/8] Enter: answer", "Answer: Pinned memory", "Enter: more; q: back",
            "[7/8]",
        ] {
            #expect(text.contains(line), "\(line)")
        }
        #expect(text.contains("\u{1b}[1m"))
        // No line of prose is longer than the terminal, whatever the guest's source may be.
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

    /// Guests run with signals blocked; the question after one still hears of Ctrl-C.
    @Test(arguments: [1, 2], ["Enter: run it", "Enter: answer"])
    func ctrlCEndsIt(chapter: Int, prompt: String) throws {
        let terminal = try PseudoTerminal(columns: 80, rows: 24)
        let status = try terminal.run(
            ["tour", "--backend", "soft", "--chapter", "\(chapter)"], environment: [:],
            typing: prompt.contains("run") ? [] : [""],
            interruptAfter: prompt)
        #expect(status == 130, "\(terminal.text)")
    }

    @Test func withoutUTF8ItIsAllASCII() throws {
        let text = try soft(["--no-interactive"]).output
        #expect(text.utf8.allSatisfy { $0 < 0x80 }, "\(text.filter { !$0.isASCII })")
    }

    @Test func guestsBringTheirText() {
        for payload in Catalogue.all {
            #expect(payload.source.contains("#define GUEST \"\(payload.name)\""), "\(payload.name)")
        }
    }
}

extension String {
    /// Prose on one line, however wide it was printed.
    var unfolded: String { split(whereSeparator: \.isWhitespace).joined(separator: " ") }
}
