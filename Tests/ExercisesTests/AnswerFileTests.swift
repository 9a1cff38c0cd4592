// SPDX-License-Identifier: MIT
import Testing

@testable import Exercises

@Suite("Files that are not answers")
struct AnswerFileTests {
    private func problem(_ text: String) -> AnswerFile.Problem? {
        do throws(AnswerFile.Problem) {
            let file = try AnswerFile(parsing: Array(text.utf8))
            _ = try Problem(file.exercise, seed: file.seed).assess(file)
            return nil
        } catch {
            return error
        }
    }

    @Test(
        arguments: [
            ("", nil, "`exercise` is missing"),
            ("\n\n# only a comment\n", nil, "`exercise` is missing"),
            ("test \"x\"\nmemory 1 page shared\n", 1, "expected `exercise`"),
            ("exercise 1\u{0}\n", 1, "0x00"),
            ("exercise 1\nseed 4\u{1b}[31m\n", 2, "0x1b"),
            ("exercise 99\nseed 1\nstudent ?\n", 1, "there is no exercise `99`"),
            ("exercise one\n", 1, "there is no exercise `one`"),
            ("exercise 18446744073709551617\n", 1, "there is no exercise"),
            ("exercise 1\nseed 1000000\n", 2, "is not a seed"),
            ("exercise 1\nseed -1\n", 2, "is not a seed"),
            ("exercise 1\n", nil, "`seed` is missing"),
            ("exercise 1\nseed 1\n", nil, "`student` is missing"),
            ("exercise 1\nseed 1\nstudent ?\n", nil, "the file ends before the line"),
            ("exercise 1\nseed 1\nstudent \(String(repeating: "a", count: 65))\n", 3, "at most 64 bytes"),
        ] as [(String, Int?, String)])
    func aText(_ text: String, _ line: Int?, _ message: String) throws {
        let found = try #require(problem(text))
        #expect(found.line == line && found.message.contains(message), "\(found)")
    }

    @Test func garbage() throws {
        var chance = Chance(seed: 5)
        for size in [1, 100, 5000] {
            let bytes = (0..<size).map { _ in UInt8(truncatingIfNeeded: chance.next()) }
            #expect(throws: AnswerFile.Problem.self) { try AnswerFile(parsing: bytes) }
        }
    }

    @Test func manyLines() throws {
        let form = Problem(.monitor, seed: 1).form()
        let many = form.replacing(
            "begin answer\n", with: "begin answer\n" + String(repeating: "host read 0\n", count: 10_000))
        #expect(problem(many)?.message == "an answer has at most 65536 bytes, and this file has more")
        let some = form.replacing(
            "begin answer\n", with: "begin answer\n" + String(repeating: "host read 0\n", count: 61))
        #expect(problem(some)?.message.contains("at most 60 lines") == true)
        let steps = Problem(.monitor, seed: 1).form(
            answers: [
                Array(repeating: "host read 0", count: 13), ["host read 0"], ["host read 0"], ["preserve"],
            ])
        #expect(problem(steps)?.message.contains("13 steps") == false)
        #expect(problem(steps)?.message.contains("at most 12") == true)
    }

    @Test func aChangedForm() throws {
        let form = Problem(.hostReads, seed: 3).form()
        let lines = form.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let memory = try #require(lines.firstIndex { $0.hasPrefix("memory") })
        var changed = lines
        changed[memory] = "memory 9 pages shared"
        let found = try #require(problem(changed.joined(separator: "\n")))
        #expect(found.line == memory + 1 && found.message.contains("is not the form's line `memory"))
        changed = lines
        changed.remove(at: memory)
        #expect(problem(changed.joined(separator: "\n"))?.line == memory + 1)
        #expect(problem(form + "host read 0\n")?.message.contains("behind the last line") == true)
        // The seed of somebody else has other lines.
        #expect(problem(form.replacing("seed      3", with: "seed      4")) != nil)
        // Spaces, comments and carriage returns are not changes.
        let spaced = form.replacing("\n", with: "   # note\r\n").replacing("memory    ", with: "memory \t ")
        #expect(problem(spaced) == nil)
    }

    @Test func aPredictionIsOneOutcome() throws {
        let made = Problem(.hostReads, seed: 3)
        for (answer, message) in [
            ("0x41 or SIGBUS", "without `or`"), ("ok", "cannot end"), ("maybe", "maybe"),
            ("0x41 => 0x42", "=>"),
            ("\u{e9}", "byte"),
        ] {
            var answers = made.sample
            answers[1] = [answer]
            let found = try #require(problem(made.form(answers: answers)), "\(answer)")
            #expect(found.line != nil && found.message.contains(message), "\(found)")
        }
    }

    @Test func someBlanksAreEmpty() throws {
        let made = Problem(.hostReads, seed: 3)
        var answers = made.sample
        answers[2] = ["?"]
        let found = try ProblemTests.check(made, answers)
        #expect(found.verdict == .incomplete && found.run == nil && found.line != nil)
    }

    @Test(arguments: [
        "host release dma0", "host fill 0..3 0x41", "vcpu0 write 0 0x41", "host punch 0", "parallel",
        "memory 3 pages shared",
        "host convert 0..99999999999999999999 private", "nonsense", "host hold 0 as h",
    ])
    func aStepThatAMonitorCannotMake(_ step: String) throws {
        let made = Problem(.pageInUse, seed: 3)
        let found = try #require(problem(made.form(answers: [[step], ["host read 0"]])), "\(step)")
        #expect(!found.message.isEmpty)
    }

    @Test func aRaceWhoseStepsWereChanged() throws {
        let made = Problem(.raceRepair, seed: 2)
        guard case .repair(let task) = made.task else { return }
        let block = task.givenLines
        let cases: [([String], String)] = [
            (Array(block.dropFirst()), "is missing or stands elsewhere"),
            (block.filter { $0 != "parallel" && $0 != "end" }, "outcome"),
            (block + ["parallel", "host read 0 => z", "end"], "the one parallel block"),
            (block + Array(repeating: "host present 0", count: 5), "adds 5 steps"),
            (block.flatMap { $0 == "end" ? ["forbidden zz = ok", "end"] : [$0] }, "zz"),
        ]
        for (lines, message) in cases {
            let found = try #require(problem(made.form(answers: [lines])), "\(lines)")
            #expect(found.message.contains(message), "\(found)")
        }
    }

    /// An answer with more orders than the check explores is not a pass.
    @Test func aRaceWithTooManyOrders() throws {
        for seed in 0..<60 as Range<UInt64> {
            let made = Problem(.raceRepair, seed: seed)
            guard case .repair(let task) = made.task, task.header[1].contains("4 pages") else { continue }
            let lines = task.givenLines.flatMap { line in
                line == "end" ? (2...5).map { "host\($0) read 0" } + (["end"]) : [line]
            }
            let wide = lines.map { $0.replacing(" read 0", with: " fill 0..3 0x1") }
            guard let found = try? ProblemTests.check(made, [wide.count == lines.count ? wide : lines]) else {
                continue
            }
            #expect(found.verdict != .right)
            if found.verdict == .undecided { return }
        }
        Issue.record("no answer was undecided")
    }
}
