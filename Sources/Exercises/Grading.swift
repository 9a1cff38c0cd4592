// SPDX-License-Identifier: MIT
/// The students of a class and their seeds.
package struct Roster: Sendable {
    /// A student and the seed of the student's problems.
    package struct Entry: Sendable {
        /// The name as written.
        package let name: String
        /// The seed; by default that of the name (``Student/seed(of:)``).
        package let seed: UInt64
    }
    /// In the order of the text.
    package private(set) var entries: [Entry] = []

    /// The largest text, bytes.
    package static let mostBytes = 1 << 20

    /// Reads a roster: a name on each line, and behind it a seed if it is not that of the name. `#` begins a comment.
    ///
    /// - Throws: ``AnswerFile/Problem`` if the text is too large, or a name is too long or occurs twice.
    package init(parsing bytes: [UInt8]) throws(AnswerFile.Problem) {
        guard bytes.count <= Self.mostBytes else {
            throw AnswerFile.Problem(line: nil, message: "a roster has at most \(Self.mostBytes) bytes")
        }
        var number = 0
        var seen: Set<String> = []
        for raw in bytes.split(separator: 10, omittingEmptySubsequences: false) {
            number += 1
            guard !raw.contains(where: { $0 < 0x20 && $0 != 9 && $0 != 13 }) else {
                throw AnswerFile.Problem(line: number, message: "this is not a text")
            }
            let line = AnswerFile.normal(String(decoding: raw, as: UTF8.self))
            guard !line.isEmpty else { continue }
            var name = line
            var seed: UInt64?
            if let space = line.utf8.lastIndex(of: 0x20),
                let last = AnswerFile.number(String(line[space...].dropFirst()))
            {
                guard last < Problem.seeds else {
                    throw AnswerFile.Problem(
                        line: number, message: "\(last) is not a seed: seeds are 0 to \(Problem.seeds - 1)")
                }
                name = String(line[..<space])
                seed = last
            }
            guard name.utf8.count <= AnswerFile.longestStudent else {
                throw AnswerFile.Problem(
                    line: number, message: "a name has at most \(AnswerFile.longestStudent) bytes")
            }
            guard seen.insert(Student.normal(name)).inserted else {
                throw AnswerFile.Problem(line: number, message: "`\(name)` is in the roster twice")
            }
            entries.append(Entry(name: name, seed: seed ?? Student.seed(of: name)))
        }
    }

    /// The entry of a student; nil if there is none.
    package func entry(of name: String) -> Entry? {
        let name = Student.normal(name)
        return entries.first { Student.normal($0.name) == name }
    }
}

/// A row of the table of a class.
package struct Grade: Sendable {
    /// The name of the file.
    package let file: String
    /// The student; nil if the file names none.
    package var student: String?
    /// The exercise; nil if the file cannot be read.
    package var exercise: Exercise?
    /// The seed of the file.
    package var seed: UInt64?
    /// Points; 0 if the answer does not count.
    package var points = 0
    /// Points of a right answer.
    package var possible = 0
    /// The result of the check; nil if the answer does not count.
    package var verdict: Assessment.Verdict?
    /// The reason in one sentence without its period.
    package var reason = ""
    /// An earlier file of the same student with the same exercise; nil if there is none.
    package var earlier: String?

    /// Whether the lecturer should look at the file: it cannot be read or checked, or it does not belong to the student.
    package var needsAttention: Bool { verdict == nil || verdict == .undecided }

    /// Grades a file.
    ///
    /// - Parameters:
    ///   - file: the name of the file.
    ///   - bytes: its contents.
    ///   - roster: the class; nil accepts every name with the seed of the name.
    package init(file: String, bytes: [UInt8], roster: Roster?) {
        self.file = file
        do throws(AnswerFile.Problem) {
            let answer = try AnswerFile(parsing: bytes)
            exercise = answer.exercise
            seed = answer.seed
            student = answer.student
            guard let name = answer.student else {
                reason = "the line `student` is not filled in"
                return
            }
            if let roster {
                guard let entry = roster.entry(of: name) else {
                    reason = "the roster has no such student"
                    return
                }
                student = entry.name
                guard answer.seed == entry.seed else {
                    reason = "another student's seed: \(answer.seed) and not \(entry.seed)"
                    return
                }
            } else if answer.seed != Student.seed(of: name) {
                reason = "another student's seed: \(answer.seed) and not \(Student.seed(of: name))"
                return
            }
            let problem = Problem(answer.exercise, seed: answer.seed)
            possible = problem.possible
            let found = try problem.assess(answer)
            points = found.points
            verdict = found.verdict
            reason = (found.line.map { "line \($0): " } ?? "") + found.reason
        } catch {
            reason = (error.line.map { "line \($0): " } ?? "") + error.message
        }
    }

    /// A file that cannot be read.
    package init(file: String, unreadable reason: String) {
        self.file = file
        self.reason = reason
    }
}
