// SPDX-License-Identifier: MIT
/// A line of the form that a student fills in.
enum FormLine: Sendable, Equatable {
    /// Text without meaning for the check.
    case comment(String)
    /// A line that must stay as it is.
    case fixed(String)
    /// A line whose end is to be filled in. The text before the blank.
    case blank(String)
    /// Steps between `begin answer` and `end answer`, by default those given.
    case steps([String])
}

/// A problem: an exercise made from a seed.
package struct Problem: Sendable {
    /// The exercise.
    package let exercise: Exercise
    /// The seed from which it was made.
    package let seed: UInt64
    let lines: [FormLine]
    let task: Task
    /// An answer that is right: for each blank its lines.
    package let sample: [[String]]

    /// How the answer is checked.
    enum Task: Sendable {
        case prediction(Prediction)
        case contents(ContentTable)
        case possibilities(Possibilities)
        case repair(RaceRepair)
        case cases(CaseSuite)
        case hiddenFault(HiddenFault)
    }

    /// The seeds from 0 up to this one make problems.
    package static let seeds: UInt64 = 1_000_000

    /// The problem of an exercise and a seed below ``seeds``. It always exists.
    package init(_ exercise: Exercise, seed: UInt64) {
        let draft: Draft
        switch exercise {
        case .hostReads: draft = Prediction.hostReads(seed)
        case .guestSees: draft = Prediction.guestSees(seed)
        case .refusedRequests: draft = Prediction.refusedRequests(seed)
        case .contents: draft = ContentTable.draft(seed)
        case .pageInUse: draft = CaseSuite.pageInUse(seed)
        case .raceOutcomes: draft = Possibilities.draft(seed)
        case .raceRepair: draft = RaceRepair.draft(seed)
        case .monitor: draft = CaseSuite.monitor(seed)
        case .brokenKernel: draft = HiddenFault.draft(seed)
        case .confidential: draft = Prediction.confidential(seed)
        }
        self.exercise = exercise
        self.seed = seed
        lines = draft.lines
        task = draft.task
        sample = draft.sample
    }

    /// A problem before it has a number and a seed.
    struct Draft {
        var lines: [FormLine]
        var task: Task
        var sample: [[String]]
    }

    // MARK: the form

    /// The word that marks a blank.
    static let blank = "?"
    static let begin = "begin answer"
    static let end = "end answer"

    /// The form with its blanks, ready to be filled in.
    ///
    /// - Parameter student: the student's name; nil leaves a blank.
    package func form(student: String? = nil) -> String { text(student: student, answers: nil) }

    /// The form with the sample answer.
    package func solution(student: String? = nil) -> String { text(student: student, answers: sample) }

    /// The form with these answers, for each blank its lines.
    package func form(student: String? = nil, answers: [[String]]) -> String {
        text(student: student, answers: answers)
    }

    private func text(student: String?, answers: [[String]]?) -> String {
        var out = """
            # MiniVMM exercise \(exercise.number): \(exercise.title)
            # Replace each ? and leave the other lines as they are.
            # To check the answer: minivmm exercise --check FILE

            \("exercise".padded(to: 10))\(exercise.number)
            \("seed".padded(to: 10))\(seed)
            \("student".padded(to: 10))\(student ?? Self.blank)


            """
        var place = 0
        for line in lines {
            switch line {
            case .comment(let text): out += text.isEmpty ? "\n" : "# " + text + "\n"
            case .fixed(let text): out += text + "\n"
            case .blank(let text):
                let answer = answers.flatMap { place < $0.count ? $0[place].first : nil }
                out += text.padded(to: 46) + (answer ?? Self.blank) + "\n"
                place += 1
            case .steps(let given):
                let answer = answers.flatMap { place < $0.count ? $0[place] : nil }
                out += Self.begin + "\n"
                for line in answer ?? (given.isEmpty ? [Self.blank] : given) { out += line + "\n" }
                out += Self.end + "\n"
                place += 1
            }
        }
        return out
    }
}

extension [FormLine] {
    /// A paragraph as comments, folded at 78 columns.
    mutating func explain(_ text: String, width: Int = 76) {
        var line = ""
        for word in text.utf8.split(separator: UInt8(ascii: " ")).map({ String(decoding: $0, as: UTF8.self) })
        {
            if !line.isEmpty, line.utf8.count + 1 + word.utf8.count > width {
                append(.comment(line))
                line = ""
            }
            line += (line.isEmpty ? "" : " ") + word
        }
        if !line.isEmpty { append(.comment(line)) }
    }

    /// An empty line.
    mutating func gap() { append(.comment("")) }
}
