// SPDX-License-Identifier: MIT
import Exercises
import LitmusModel

// The answers to `exercises`, `exercise` and `assess`.

extension JSONText {
    mutating func exercises() {
        members("exercises", Exercise.allCases) { json, exercise in
            json.member("number", exercise.number)
            json.member("title", exercise.title)
            json.member("summary", exercise.summary)
        }
        name("seeds")
        value(Problem.seeds)
    }

    /// A form to fill in.
    mutating func exercise(_ request: PlaygroundRequest) throws(PlaygroundRequest.Problem) {
        guard let exercise = request.exercise else { throw .init(text: "the request names no exercise") }
        guard let seed = request.seed ?? request.student.map(Student.seed) else {
            throw .init(text: "the request names neither a seed nor a student")
        }
        let form = Problem(exercise, seed: seed).form(student: request.student)
        object { json in
            json.member("number", exercise.number)
            json.name("seed")
            json.value(seed)
            json.member("title", exercise.title)
            json.member("form", form)
        }
    }

    /// Checks a form that was filled in.
    mutating func assess(_ text: String) {
        do throws(AnswerFile.Problem) {
            let answer = try AnswerFile(parsing: Array(text.utf8))
            let found = try Problem(answer.exercise, seed: answer.seed).assess(answer)
            member("verdict", found.verdict.word)
            member("points", found.points)
            member("possible", found.possible)
            if let line = found.line { member("line", line) }
            strings("text", found.text)
        } catch {
            let problem = error
            member("problem") { json in
                json.member("line", problem.line ?? 1)
                json.member("column", 1)
                json.member("message", problem.message)
            }
        }
    }
}
