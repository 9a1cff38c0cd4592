// SPDX-License-Identifier: MIT
/// The text in one blank.
struct Filling: Sendable, Equatable {
    /// The line of the blank, or of `begin answer`.
    let line: Int
    /// The lines of the answer: one for a word, any number for steps.
    var lines: [AnswerFile.Line]
    /// Whether it is still as in the form.
    var isEmpty: Bool

    /// The words of a blank within a line.
    var text: String { lines.first?.text ?? "" }
}

extension Problem {
    /// The largest number of lines between `begin answer` and `end answer`.
    package static let mostAnswerLines = 60

    /// Finds the blanks of the form in an answer.
    ///
    /// - Throws: ``AnswerFile/Problem`` if a line of the form is missing or was changed.
    func fillings(_ file: AnswerFile) throws(AnswerFile.Problem) -> [Filling] {
        var rest = file.body[...]
        var fillings: [Filling] = []
        for line in lines {
            switch line {
            case .comment: continue
            case .fixed(let text):
                let text = AnswerFile.normal(text)
                let next = try Self.next(&rest, text)
                guard next.text == text else { throw Self.changed(next, text) }
            case .blank(let text):
                let text = AnswerFile.normal(text)
                let next = try Self.next(&rest, text)
                guard let answer = next.text.after(text) else {
                    throw Self.changed(next, text + " " + Self.blank)
                }
                let isEmpty = answer.isEmpty || answer == Self.blank
                fillings.append(
                    Filling(
                        line: next.number,
                        lines: isEmpty ? [] : [AnswerFile.Line(number: next.number, text: answer)],
                        isEmpty: isEmpty))
            case .steps(let given): fillings.append(try Self.steps(&rest, given))
            }
        }
        if let line = rest.first {
            throw AnswerFile.Problem(
                line: line.number,
                message: "`\(AnswerFile.shown(line.text))` stands behind the last line of the form: remove it"
            )
        }
        return fillings
    }

    private static func steps(
        _ rest: inout ArraySlice<AnswerFile.Line>, _ given: [String]
    ) throws(AnswerFile.Problem) -> Filling {
        let first = try next(&rest, begin)
        guard first.text == begin else { throw changed(first, begin) }
        var lines: [AnswerFile.Line] = []
        while true {
            let line = try next(&rest, end)
            if line.text == end { break }
            guard line.text != begin else {
                throw AnswerFile.Problem(line: line.number, message: "the answer before it has no `\(end)`")
            }
            lines.append(line)
        }
        guard lines.count <= mostAnswerLines else {
            throw AnswerFile.Problem(
                line: first.number,
                message: "an answer has at most \(mostAnswerLines) lines, and this one has \(lines.count)")
        }
        let texts = lines.map { $0.text }
        let isEmpty = texts.allSatisfy { $0 == blank } || texts == given.map { AnswerFile.normal($0) }
        return Filling(
            line: first.number, lines: isEmpty && given.isEmpty ? [] : lines.filter { $0.text != blank },
            isEmpty: isEmpty)
    }

    private static func next(
        _ rest: inout ArraySlice<AnswerFile.Line>, _ text: String
    ) throws(AnswerFile.Problem) -> AnswerFile.Line {
        guard let line = rest.popFirst() else {
            throw AnswerFile.Problem(
                line: nil, message: "the file ends before the line `\(AnswerFile.shown(text))` of the form")
        }
        return line
    }

    private static func changed(_ line: AnswerFile.Line, _ text: String) -> AnswerFile.Problem {
        AnswerFile.Problem(
            line: line.number,
            message: "`\(AnswerFile.shown(line.text))` is not the form's line `\(AnswerFile.shown(text))`: "
                + "the form of this exercise and seed has that line here")
    }
}
