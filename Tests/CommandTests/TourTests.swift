import Foundation
import GuestPayloads
import Testing

@Suite("minivmm tour", .enabled(if: Command.runsGuests, Command.noGuests))
struct TourTests {
    static let titles = [
        "What private means", "Two doors", "Explicit and implicit", "In place, or two copies",
        "Contents: who decides", "In use: EAGAIN", "Races", "What TDX, SNP and pKVM do differently",
    ]

    private func soft(_ more: [String], input: String? = nil) throws -> Command.Result {
        try Command.run(["tour", "--kernel", "soft"] + more, input: input)
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
            "reads 0x200000: hi, guest", "EFAULT, it is private", "touches page",
            "error_offset names page 517",
            "after the conversion to private   64 MiB", "while the bytes are carried over  128 MiB",
            "allowed    c = EAGAIN at 0, r = 0x41", "All as told.", "on SoftKVM",
        ] { #expect(result.output.contains(line), "\(line)") }
        #expect(!result.output.contains("otherwise than told"))
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
        let result = try soft(["--interactive"], input: "\nn\nb\n3\ns\n?\nwhat\nr\nq\n")
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
    }

    @Test func guestsBringTheirText() {
        for payload in Catalogue.all {
            #expect(payload.source.contains("#define GUEST \"\(payload.name)\""), "\(payload.name)")
        }
    }
}
