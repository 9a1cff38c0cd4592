// SPDX-License-Identifier: MIT
/// A filled-in form as text: the exercise, the seed and the student, and the lines behind them.
package struct AnswerFile: Sendable {
    /// Why a text is not an answer.
    package struct Problem: Error, Sendable, Equatable {
        /// The line, from 1; nil if the problem is not in a line.
        package let line: Int?
        /// The problem, and how to mend it.
        package let message: String
    }

    /// A line without its comment and with single spaces.
    struct Line: Sendable, Equatable {
        let number: Int
        let text: String
    }

    /// The exercise.
    package let exercise: Exercise
    /// The seed.
    package let seed: UInt64
    /// The student; nil if the line is not filled in.
    package let student: String?
    let body: [Line]

    /// The largest file, bytes.
    package static let mostBytes = 65_536
    /// The longest name of a student, bytes.
    package static let longestStudent = 64

    /// Reads an answer.
    ///
    /// - Throws: ``Problem`` if the text is too large, has control characters, or has no header.
    package init(parsing bytes: [UInt8]) throws(Problem) {
        guard bytes.count <= Self.mostBytes else {
            throw Problem(
                line: nil, message: "an answer has at most \(Self.mostBytes) bytes, and this file has more")
        }
        var lines: [Line] = []
        var number = 0
        for raw in bytes.split(separator: 10, omittingEmptySubsequences: false) {
            number += 1
            if let byte = raw.first(where: { $0 < 0x20 && $0 != 9 && $0 != 13 || $0 == 0x7f }) {
                throw Problem(
                    line: number,
                    message: "the byte \(hexByte(byte)) does not belong in a text: this is not an answer")
            }
            let text = Self.normal(raw)
            if !text.isEmpty { lines.append(Line(number: number, text: text)) }
        }
        var rest = lines[...]
        let exercise = try Self.value(of: "exercise", &rest)
        guard let number = Self.number(exercise.value), let known = Exercise(rawValue: Int(clamping: number))
        else {
            throw Problem(
                line: exercise.line,
                message:
                    "there is no exercise `\(Self.shown(exercise.value))`: they are 1 to \(Exercise.allCases.count)"
            )
        }
        let seed = try Self.value(of: "seed", &rest)
        guard let number = Self.number(seed.value), number < Exercises.Problem.seeds else {
            throw Problem(
                line: seed.line,
                message:
                    "`\(Self.shown(seed.value))` is not a seed: seeds are 0 to \(Exercises.Problem.seeds - 1)"
            )
        }
        let student = try Self.value(of: "student", &rest)
        guard student.value.utf8.count <= Self.longestStudent else {
            throw Problem(
                line: student.line, message: "the name of a student has at most \(Self.longestStudent) bytes")
        }
        self.exercise = known
        self.seed = number
        self.student =
            student.value.isEmpty || student.value == Exercises.Problem.blank ? nil : student.value
        body = Array(rest)
    }

    /// A header line `KEY VALUE`.
    private static func value(
        of key: String, _ rest: inout ArraySlice<Line>
    ) throws(Problem) -> (value: String, line: Int) {
        guard let line = rest.first else {
            throw Problem(
                line: nil, message: "the line `\(key)` is missing: minivmm exercise N writes a form with it")
        }
        guard let value = line.text.after(key) else {
            throw Problem(
                line: line.number,
                message: "expected `\(key)` and not `\(shown(line.text))`: minivmm exercise N writes a form")
        }
        rest.removeFirst()
        return (value, line.number)
    }

    /// A decimal number; nil if it is none, or has more than 18 digits.
    package static func number(_ text: String) -> UInt64? {
        guard !text.isEmpty, text.utf8.count <= 18 else { return nil }
        var number: UInt64 = 0
        for byte in text.utf8 {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            number = number * 10 + UInt64(byte - UInt8(ascii: "0"))
        }
        return number
    }

    /// A line without its comment and with single spaces between words.
    private static func normal(_ line: ArraySlice<UInt8>) -> String {
        var out: [UInt8] = []
        for byte in line {
            if byte == UInt8(ascii: "#") { break }
            if byte == 0x20 || byte == 9 || byte == 13 {
                if let last = out.last, last != 0x20 { out.append(0x20) }
            } else {
                out.append(byte)
            }
        }
        if out.last == 0x20 { out.removeLast() }
        return String(decoding: out, as: UTF8.self)
    }

    /// The same for a line of a form.
    static func normal(_ line: String) -> String { normal(Array(line.utf8)[...]) }

    /// The beginning of a text, for messages.
    static func shown(_ text: String) -> String {
        text.utf8.count <= 60 ? text : String(decoding: Array(text.utf8.prefix(60)), as: UTF8.self) + "..."
    }
}

extension String {
    /// The words behind the words of `prefix`; nil if the text does not begin with them.
    func after(_ prefix: String) -> String? {
        let (all, start) = (Array(utf8), Array(prefix.utf8))
        guard all.starts(with: start) else { return nil }
        let rest = all[start.count...]
        guard let first = rest.first else { return "" }
        guard first == 0x20 else { return nil }
        return String(decoding: rest.dropFirst(), as: UTF8.self)
    }
}
