// SPDX-License-Identifier: MIT
import Exercises
import Foundation
import Testing

@Suite("The command exercise", .enabled(if: Command.isBuilt, Command.missing))
struct ExerciseTests {
    private func file(_ text: String, _ directory: Scratch, _ name: String = "a.txt") throws -> String {
        let path = directory.path(name)
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    private func own(_ exercise: Exercise, _ student: String) -> Problem {
        Problem(exercise, seed: Student.seed(of: student))
    }

    @Test func theListNamesEveryExercise() throws {
        let text = try Command.run(["exercise"])
        #expect(text.status == 0 && text.output.split(separator: "\n").allSatisfy { $0.count <= 80 })
        for exercise in Exercise.allCases { #expect(text.output.contains(exercise.title)) }
        let list = try Command.run(["exercise", "--json"]).json?["exercises"] as? [[String: Any]]
        #expect(list?.count == Exercise.allCases.count)
    }

    @Test func aFormHasItsSeed() throws {
        let directory = try Scratch()
        let text = try Command.run(["exercise", "3", "--seed", "42"])
        #expect(text.status == 0 && text.output == Problem(.refusedRequests, seed: 42).form())
        let random = try Command.run(["exercise", "3"])
        #expect(random.status == 0 && random.output.contains("\nseed      "))
        let path = directory.path("form.txt")
        let written = try Command.run(["exercise", "1", "--student", "ada", "--out", path])
        #expect(written.status == 0 && written.output == "")
        #expect(
            try String(contentsOfFile: path, encoding: .utf8) == own(.hostReads, "ada").form(student: "ada"))
        // An answer is never overwritten.
        let again = try Command.run(["exercise", "1", "--student", "ada", "--out", path])
        #expect(again.status == 64 && again.diagnostics.contains("the file exists"))
    }

    @Test func theStatusSaysWhetherAnAnswerIsRight() throws {
        let directory = try Scratch()
        let problem = own(.contents, "ada")
        let right = try Command.run([
            "exercise", "--check", file(problem.solution(student: "ada"), directory),
        ])
        #expect(right.status == 0 && right.output.hasPrefix("Right: "))
        let form = try Command.run(["exercise", "--check", file(problem.form(student: "ada"), directory)])
        #expect(form.status == 1 && form.output.hasPrefix("No answer yet: "))
        var answers = problem.sample
        answers[0] = [answers[0] == ["zero"] ? "refused" : "zero"]
        let path = try file(problem.form(student: "ada", answers: answers), directory)
        let wrong = try Command.run(["exercise", "--check", path])
        #expect(wrong.status == 1 && wrong.output.hasPrefix("Wrong: line "))
        #expect(wrong.output.contains("What every actor sees then:"))
        let json = try #require(try Command.run(["exercise", "--check", path, "--json"]).json)
        #expect(json["verdict"] as? String == "wrong" && json["points"] as? Int == problem.possible - 1)
        let garbage = try Command.run(["exercise", "--check", file("\u{0}\u{1}", directory)])
        #expect(garbage.status == 64 && garbage.output == "" && garbage.diagnostics.contains(":1: "))
        #expect(try Command.run(["exercise", "--check", directory.path("none")]).status == 64)
    }

    @Test func aClassIsGraded() throws {
        let directory = try Scratch()
        let files = [
            try file(own(.hostReads, "ada").solution(student: "ada"), directory, "ada.txt"),
            try file(own(.hostReads, "ada").solution(student: "bob"), directory, "bob.txt"),
            try file(own(.hostReads, "eve").form(student: "eve"), directory, "eve.txt"),
            try file("not an answer", directory, "x.txt"), directory.path("missing.txt"),
        ]
        let text = try Command.run(["exercise", "--grade"] + files)
        #expect(text.status == 1, "\(text.diagnostics)")
        for part in [
            "another student's seed", "no attempt", "right", "not counted", "5 files: 1 right, 3 to look at",
        ] {
            let flat = text.output.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            #expect(flat.contains(part), "\(part): \(text.output)")
        }
        let roster = try file("ada\nbob\ncyd 7\n", directory, "class")
        let json = try #require(
            try Command.run(["exercise", "--grade", files[0], "--roster", roster, "--json"]).json)
        #expect((json["answers"] as? [[String: Any]])?.first?["verdict"] as? String == "right")
        #expect((json["absent"] as? [[String: Any]])?.map { $0["student"] as? String } == ["bob", "cyd"])
        #expect(try Command.run(["exercise", "--grade", files[0]]).status == 0)
        let bad = try file("ada\nada\n", directory, "twice")
        #expect(try Command.run(["exercise", "--grade", files[0], "--roster", bad]).status == 64)
    }

    @Test(arguments: [
        ["11"], ["0"], ["x"], ["1", "--seed", "1000000"], ["1", "--seed", "-1"], ["1", "--student", ""],
        ["1", "--student", "a#b"], ["1", "--seed", "1", "--student", "ada"], ["--seed", "1"],
        ["1", "--json"],
        ["--check", "a", "--faults", "1"], ["--roster", "a"], ["--faults", "0"], ["1", "--student", "?"],
    ])
    func misuseIsRefused(_ words: [String]) throws {
        let result = try Command.run(["exercise"] + words)
        #expect(result.status == 64 && result.output == "" && !result.diagnostics.isEmpty, "\(result)")
    }
}
