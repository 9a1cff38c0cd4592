// SPDX-License-Identifier: MIT
import ConversionModel
import Testing

@testable import Exercises

@Suite("Grades of a class")
struct GradeTests {
    private func grade(_ text: String, _ roster: Roster? = nil) -> Grade {
        Grade(file: "a.txt", bytes: Array(text.utf8), roster: roster)
    }

    @Test func aSeedFollowsFromTheName() {
        #expect(Student.seed(of: "Ada Lovelace") == Student.seed(of: " ada   lovelace "))
        #expect(Student.seed(of: "ada") != Student.seed(of: "bob"))
        #expect(Student.seed(of: "ada") == 629_562)
        let seeds = Set((0..<1000).map { Student.seed(of: "s\($0)") })
        #expect(seeds.count > 990 && seeds.allSatisfy { $0 < Problem.seeds })
    }

    @Test func anAnswerCountsWithTheSeedOfItsStudent() {
        let own = Problem(.hostReads, seed: Student.seed(of: "ada"))
        let right = grade(own.solution(student: "ada"))
        #expect(right.verdict == .right && right.points == right.possible && !right.needsAttention)
        let foreign = grade(own.solution(student: "bob"))
        #expect(foreign.verdict == nil && foreign.points == 0 && foreign.needsAttention)
        #expect(foreign.reason.contains("another student's seed: \(own.seed)"))
        let nameless = grade(own.solution())
        #expect(nameless.verdict == nil && nameless.reason == "the line `student` is not filled in")
        let empty = grade(own.form(student: "ada"))
        #expect(empty.verdict == .noAttempt && empty.points == 0 && !empty.needsAttention)
        let garbage = Grade(file: "b", bytes: [0, 1, 2], roster: nil)
        #expect(garbage.verdict == nil && garbage.reason.contains("0x00") && garbage.needsAttention)
    }

    @Test func aRosterStatesSeeds() throws {
        let roster = try Roster(parsing: Array("# class\nAda Lovelace 42\nbob\n\n".utf8))
        #expect(roster.entries.map(\.seed) == [42, Student.seed(of: "bob")])
        let ada = Problem(.contents, seed: 42)
        #expect(grade(ada.solution(student: "ada lovelace"), roster).verdict == .right)
        #expect(grade(ada.solution(student: "bob"), roster).reason.contains("another student's seed"))
        #expect(grade(ada.solution(student: "eve"), roster).reason == "the roster has no such student")
    }

    @Test(arguments: [
        ("ada 1000000\n", "is not a seed"), ("ada\nAda 7\n", "twice"), ("a\u{0}b\n", "not a text"),
        (String(repeating: "x", count: 65), "at most 64 bytes"),
    ])
    func aBadRoster(_ text: String, _ message: String) throws {
        let found = try #require(throws: AnswerFile.Problem.self) { try Roster(parsing: Array(text.utf8)) }
        #expect(found.message.contains(message))
    }
}
