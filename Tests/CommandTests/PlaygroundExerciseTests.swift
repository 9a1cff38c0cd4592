// SPDX-License-Identifier: MIT
import Exercises
import Foundation
import Testing

extension PlaygroundPageTests {
    /// What a check says, from the module of the playground or from this process.
    private struct Checked: Equatable, CustomStringConvertible {
        var verdict = ""
        var points = 0
        var possible = 0
        var line: Int?
        var text: [String] = []

        init(native text: String) {
            do throws(AnswerFile.Problem) {
                let file = try AnswerFile(parsing: Array(text.utf8))
                let found = try Problem(file.exercise, seed: file.seed).assess(file)
                (verdict, points, possible) = (found.verdict.word, found.points, found.possible)
                (line, self.text) = (found.line, found.text)
            } catch {
                (verdict, line, self.text) = ("problem", error.line ?? 1, [error.message])
            }
        }

        init(_ answer: [String: Any]) {
            if let problem = answer["problem"] as? [String: Any] {
                verdict = "problem"
                line = problem["line"] as? Int
                text = [problem["message"] as? String ?? ""]
                return
            }
            verdict = answer["verdict"] as? String ?? "none"
            points = answer["points"] as? Int ?? -1
            possible = answer["possible"] as? Int ?? -1
            line = answer["line"] as? Int
            text = answer["text"] as? [String] ?? []
        }

        var description: String { "\(verdict) \(points)/\(possible) \(line ?? 0): \(text)" }
    }

    private static func quoted(_ texts: [String]) throws -> String {
        try String(decoding: JSONSerialization.data(withJSONObject: texts), as: UTF8.self)
    }

    /// Forms, empty forms, solutions, and forms with the same word in every blank.
    @Test func everyExerciseIsCheckedLikeByTheCommand() throws {
        var requests: [String] = []
        var forms: [String] = []
        var answers: [String] = []
        for exercise in Exercise.allCases {
            for seed: UInt64 in [0, 7, 42, 123_456, 999_999] {
                let problem = Problem(exercise, seed: seed)
                requests.append("exercise\nnumber \(exercise.number)\nseed \(seed)\n\n")
                forms.append(problem.form())
                answers.append(problem.form())
                answers.append(problem.solution(student: "ada"))
                for word in ["SIGBUS", "possible", "host convert 0 private", "zero"] {
                    answers.append(
                        problem.form().components(separatedBy: "\n")
                            .map { $0.hasSuffix("?") ? $0.dropLast() + word : $0 }.joined(separator: "\n"))
                }
                answers.append(problem.solution().replacingOccurrences(of: "seed      ", with: "seed      1"))
            }
            requests.append("exercise\nnumber \(exercise.number)\nstudent Grüße an Ada\n\n")
            forms.append(
                Problem(exercise, seed: Student.seed(of: "Grüße an Ada")).form(student: "Grüße an Ada"))
        }
        let playground = try Playground()
        try playground.evaluate(
            """
            window.all = []; (async () => {
              for (const request of \(Self.quoted(requests + answers.map { "assess\n\n" + $0 }))) {
                const reply = await model.ask(request);
                window.all.push(reply.answer || { verdict: reply.stopped });
              }
              window.done = true;
            })()
            """)
        try playground.wait("window.done", seconds: 600)
        let seen = try #require(
            JSONSerialization.jsonObject(with: Data(playground.text("JSON.stringify(window.all)").utf8))
                as? [[String: Any]])
        try #require(seen.count == forms.count + answers.count)
        for (request, (said, form)) in zip(requests, zip(seen, forms)) where said["form"] as? String != form {
            Issue.record("\(request): \(said["form"] ?? said)")
        }
        var verdicts: Set<String> = []
        for (said, answer) in zip(seen.dropFirst(forms.count), answers) {
            let (here, there) = (Checked(said), Checked(native: answer))
            if here != there { Issue.record("\(answer)\n\(here)\n\(there)") }
            verdicts.insert(there.verdict)
        }
        #expect(verdicts.isSuperset(of: ["right", "wrong", "no attempt", "problem"]))
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    @Test func aRightAnswerCounts() throws {
        let playground = try Playground(atExercise: 1, seed: 42)
        let problem = Problem(.hostReads, seed: 42)
        #expect(try playground.text("formArea.value") == problem.form())
        #expect(
            try playground.text("element('blanks').textContent")
                == "Next blank\(problem.possible) blanks are empty.")
        #expect(
            try playground.text("document.querySelectorAll('#formEditor .blank').length")
                == "\(problem.possible + 1)", "the student's name is a blank that need not be filled in")
        try playground.fillIn(problem.solution(student: "ada"))
        #expect(try playground.text("element('blanks').textContent") == "No blank is empty.")
        #expect(try playground.check() == "right")
        #expect(try playground.text("element('mark').textContent").hasPrefix("✓ Right: "))
        #expect(
            try playground.text("element('points').textContent").hasPrefix(
                "Your exercises: 1 of 1 right, \(problem.possible) of \(problem.possible) points"))
        #expect(try playground.text("element('exerciseNumber').options[0].textContent").hasSuffix(" ✓"))
        try playground.screenshot("exercise-right")
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    /// Each blank is found with the button and filled in by typing; then the wrong one is named, not the right outcome.
    @Test func aWrongAnswerIsRefutedAtItsLine() throws {
        let playground = try Playground(atExercise: 1, seed: 42)
        #expect(try playground.check() == "no attempt")
        #expect(try playground.text("element('evidence').childNodes.length") == "0")
        #expect(try playground.text("element('points').hidden") == "true")
        let problem = Problem(.hostReads, seed: 42)
        for _ in 1..<problem.possible {
            try playground.evaluate("nextBlank()")
            try playground.browser.type("0x11")
        }
        #expect(try playground.check() == "incomplete")
        #expect(try playground.text("element('mark').textContent").hasPrefix("No answer yet: Line "))
        #expect(try playground.text("element('evidence').childNodes.length") == "0")
        try playground.evaluate("nextBlank()")
        try playground.browser.type("0x11")
        #expect(try playground.text("document.querySelector('#exerciseAnswer.stale') !== null") == "true")
        #expect(try playground.check() == "wrong")
        let expected = Checked(native: try playground.text("formArea.value"))
        let line: Int = try #require(expected.line)
        #expect(expected.verdict == "wrong")
        #expect(try playground.text("element('mark').textContent").hasPrefix("✗ Wrong: Line \(line): "))
        #expect(try playground.text("document.querySelector('#formEditor mark').textContent") == "0x11")
        #expect(
            try playground.text(
                "[...document.querySelectorAll('#formEditor .line')].findIndex(e => e.classList.contains('bad')) + 1"
            ) == "\(line)")
        #expect(
            try playground.text("document.querySelector('#evidence .differs').textContent").contains(
                "you: 0x11"))
        try playground.evaluate("document.querySelector('#mark button').click()")
        #expect(
            try playground.text(
                "document.activeElement.id + ' ' + lineCount(formArea.value.slice(0, formArea.selectionStart))"
            )
                == "form \(line)")
    }

    /// A name makes the form; the saved text is what `--grade` counts.
    @Test func aNameMakesAFormThatCanBeGraded() throws {
        let playground = try Playground()
        try playground.evaluate("element('toExercises').click(); element('exerciseNumber').value = 4")
        try playground.evaluate(
            "element('exerciseWho').value = 'bob # x'; element('chooser').requestSubmit()")
        try playground.wait("element('whoNote').textContent.startsWith('A name has 1 to 64 bytes')")
        try playground.evaluate("element('exerciseWho').value = 'Bob'; element('chooser').requestSubmit()")
        try playground.wait("exercise.key.startsWith('4/')")
        let problem = Problem(.contents, seed: Student.seed(of: "Bob"))
        #expect(try playground.text("formArea.value") == problem.form(student: "Bob"))
        // Saves the file, and opens another one.
        try playground.evaluate(
            "window.made = []; URL.createObjectURL = blob => { blob.text().then(t => made.push(t)); return 'blob:none'; }; HTMLAnchorElement.prototype.click = function () { window.download = this.download; }"
        )
        try playground.fillIn(problem.solution(student: "Bob"))
        try playground.evaluate("element('save').click()")
        try playground.wait("made.length === 1 && window.download === 'exercise-4-bob.txt'")
        let directory = try Scratch()
        let path = try directory.file("bob.txt", Array(playground.text("made[0]").utf8))
        let grades = try Command.run(["exercise", "--grade", path])
        #expect(grades.status == 0 && grades.output.contains("1 file: 1 right"), "\(grades.output)")
        // The answer is kept while another form is open.
        try playground.evaluate("element('exerciseNumber').value = 2; element('chooser').requestSubmit()")
        try playground.wait("exercise.key.startsWith('2/')")
        try playground.evaluate("element('exerciseNumber').value = 4; element('chooser').requestSubmit()")
        try playground.wait("exercise.key.startsWith('4/')")
        #expect(try playground.text("formArea.value") == problem.solution(student: "Bob"))
        #expect(try playground.text("element('saved').textContent").contains("has kept"))
        try playground.evaluate("element('again').click()")
        #expect(try playground.text("formArea.value") == problem.form(student: "Bob"))
        let other = Problem(.raceOutcomes, seed: 5).solution(student: "eve")
        try playground.evaluate(
            "takeFile(new File([\(Self.quoted([other]))[0].replaceAll('\\n', '\\r\\n')], 'eve.txt'))")
        try playground.wait("exercise.key === '6/5/eve'")
        #expect(try playground.text("formArea.value") == other)
        #expect(try playground.check() == "right")
        for (content, reason) in [
            ("new Uint8Array([255, 254, 0])", "not a text in UTF-8"), ("'a'.repeat(70000)", "70,000 bytes"),
        ] {
            try playground.evaluate("takeFile(new File([\(content)], '<b>x</b>'))")
            try playground.wait("element('whoNote').textContent.includes('\(reason)')")
            #expect(try playground.text("formArea.value") == other)
        }
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    /// Garbage, another version's form, too many lines, a hostile text: a message, and the form stays usable.
    @Test func whatIsNoAnswerGetsAMessage() throws {
        let playground = try Playground(atExercise: 1, seed: 42)
        let form = Problem(.hostReads, seed: 42).form()
        let changed = form.components(separatedBy: "\n").map {
            $0.hasPrefix("memory") ? "memory 9 pages" : $0
        }
        for (text, message) in [
            ("garbage", "Not checked: Line 1: expected `exercise`"),
            ("</textarea><img src=x onerror=hacked=1>", "Not checked: Line 1: expected `exercise`"),
            (changed.joined(separator: "\n"), "is not the form's line `memory"),
            (form.replacingOccurrences(of: "exercise  1", with: "exercise  99"), "there is no exercise `99`"),
            (form + "host read 0\n", "stands behind the last line of the form"),
            (form + "\u{1}", "the byte 0x01 does not belong in a text"),
            (String(repeating: "host read 0\n", count: 10_000), "it has 10,001 lines"),
            (String(repeating: "é", count: 40_000), "more than 65,536 bytes"), ("", "is missing"),
        ] {
            try playground.fillIn(text)
            #expect(try playground.check() == "none")
            let said = try playground.text("element('mark').textContent")
            #expect(said.contains(message), "\(said)")
            #expect(try playground.text("element('evidence').childNodes.length") == "0")
        }
        #expect(
            try playground.text("window.hacked + ' ' + document.querySelectorAll('img').length")
                == "undefined 0")
        try playground.evaluate("takeAnswer('not a form')")
        try playground.wait("element('mark').textContent.startsWith('Not checked: Line 1')")
        try playground.fillIn(Problem(.hostReads, seed: 42).solution())
        #expect(try playground.check() == "right")
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    @Test(arguments: [
        ("#e1.99", "there is no exercise 99"), ("#e1.1.1000000", "1000000 is not a seed"),
        ("#e2.1.1", "format 2"), ("#e1.1.x", "Was it cut?"),
        ("#e1.\(String(repeating: "9", count: 90_000))", "Was it cut?"),
    ])
    func aBrokenLinkToAnExerciseIsNamed(_ link: String, _ message: String) throws {
        let playground = try Playground()
        try playground.evaluate("location.hash = '\(link)'")
        try playground.wait("element('notes').textContent.includes('was not read')")
        let said = try playground.text("element('notes').textContent")
        #expect(said.contains(message) && said.count < 200, "\(said)")
        try playground.evaluate("element('chooser').requestSubmit()")
        try playground.wait("exercise.key !== ''")
        #expect(try playground.check() == "no attempt")
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    @Test func aLinkBringsTheExercise() throws {
        let playground = try Playground()
        try playground.evaluate("location.hash = '#e1.6'")
        try playground.wait("document.activeElement === element('exerciseWho')")
        #expect(try playground.text("element('exerciseNumber').value + exercise.key") == "6")
        try playground.evaluate("element('exerciseWho').value = 'ada'; element('chooser').requestSubmit()")
        try playground.wait("exercise.key !== ''")
        try playground.fillIn(Problem(.raceOutcomes, seed: Student.seed(of: "ada")).solution())
        try playground.evaluate("element('copyExercise').click()")
        let seed = Student.seed(of: "ada")
        try playground.wait("location.hash === '#e1.6.\(seed)'")
        try playground.evaluate("location.reload()")
        try playground.wait(
            "document.documentElement?.dataset?.ready && typeof exercise === 'object' && exercise.key === '6/\(seed)/'"
        )
        #expect(try playground.text("formArea.value") == Problem(.raceOutcomes, seed: seed).form())
        #expect(try playground.text("element('columns').hidden") == "true")
    }

    @Test func aCheckCanBeStopped() throws {
        let playground = try Playground(atExercise: 8, seed: 3)
        try playground.fillIn(Problem(.monitor, seed: 3).solution())
        try playground.evaluate("element('check').click(); element('stopCheck').click()")
        try playground.wait("element('mark').dataset.verdict")
        #expect(
            try playground.text("element('mark').textContent")
                == "Undecided: The check was stopped. Nothing is decided.")
        #expect(try playground.check() == "right")
    }

    @Test func theExercisesFitTheWindow() throws {
        let playground = try Playground(atExercise: 9, seed: 42)
        for (width, height) in [(360, 740), (768, 1000), (1440, 1000)] {
            try playground.browser.size(width, height)
            for number in Exercise.allCases.map(\.number) {
                try playground.evaluate("location.hash = '#e1.\(number).42'")
                try playground.wait("exercise.key.startsWith('\(number)/')")
                let problem = Problem(try #require(Exercise(rawValue: number)), seed: 42)
                let answer =
                    number == 9
                    ? problem.form(answers: [
                        ["empty-range-accepted"],
                        ["memory 2 pages shared", "host convert 0..1 private", "host read 1"],
                    ])
                    : problem.form().components(separatedBy: "\n")
                        .map { $0.hasSuffix("?") ? $0.dropLast() + "SIGBUS" : $0 }.joined(separator: "\n")
                try playground.fillIn(answer)
                _ = try playground.check()
                #expect(
                    try playground.text("document.documentElement.scrollWidth <= innerWidth") == "true",
                    "\(width) \(number)")
            }
            for theme in ["light", "dark"] {
                try playground.evaluate("setTheme('\(theme)')")
                try playground.screenshot("exercise-\(width)-\(theme)")
            }
        }
    }
}

extension Playground {
    /// Opens the page and follows a link to an exercise.
    init(atExercise number: Int, seed: UInt64) throws {
        try self.init()
        try evaluate("location.hash = '#e1.\(number).\(seed)'")
        try wait("exercise.key === '\(number)/\(seed)/'")
    }

    /// Replaces the form, as typing does.
    func fillIn(_ text: String) throws {
        let quoted = try String(decoding: JSONSerialization.data(withJSONObject: [text]), as: UTF8.self)
        try evaluate("formArea.value = \(quoted)[0]; formArea.dispatchEvent(new Event('input'))")
    }

    /// Clicks on Check, waits, and returns the verdict.
    func check() throws -> String {
        try evaluate("delete element('mark').dataset.verdict; element('check').click()")
        try wait("element('mark').dataset.verdict && !element('check').disabled")
        return try text("element('mark').dataset.verdict")
    }
}
