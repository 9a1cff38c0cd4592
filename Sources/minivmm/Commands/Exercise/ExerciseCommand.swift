// SPDX-License-Identifier: MIT
import ArgumentParser
import Exercises
import MiniVMM
import SystemPackage

struct ExerciseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exercise",
        abstract: "Writes exercises about memory conversion, and checks answers to them.",
        discussion: """
            Without arguments it lists the exercises. N writes the form of an exercise to standard output. Each seed is another \
            problem; a student's seed follows from the name. Fill in the form and check it with --check. The model of Linux 7.4 \
            is the judge: a wrong answer gets the shortest run that refutes it, and nothing is revealed before an attempt.

            --grade prints a table for a class. An answer counts if its seed is that of its student.

            Exit status of --check: 0 right, 1 wrong or not filled in, 3 undecided at a limit of the model, 64 not an answer. Of \
            --grade: 0, or 1 if a file needs a look (it cannot be read, or has another student's seed).
            """)

    @Argument(help: ArgumentHelp("The number of an exercise, 1 to 10.", valueName: "n"))
    var number: Int?
    @Option(
        help: ArgumentHelp("The seed of the problem, 0 to 999999. Default: a random one.", valueName: "seed"))
    var seed: UInt64?
    @Option(
        help: ArgumentHelp(
            "The student's name, up to 64 bytes. The seed follows from it, and the form has it.",
            valueName: "name"))
    var student: String?
    @Option(
        name: [.customLong("out"), .customShort("o")],
        help: ArgumentHelp("Write the form to a new file.", valueName: "file"), completion: .file())
    var out: String?
    @Option(
        help: ArgumentHelp("Check the answer in a file; - is standard input.", valueName: "file"),
        completion: .file())
    var check: String?
    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Print a table of the answers in these files.", valueName: "file ..."),
        completion: .file())
    var grade: [String] = []
    @Option(
        help: ArgumentHelp(
            "With --grade: the students, one name on a line, each with a seed if it is not that of the name.",
            valueName: "file"), completion: .file())
    var roster: String?
    @Option(
        help: ArgumentHelp(
            "Print which planted faults the exercises refuse, tried with this many seeds of each (up to 1000), or until ten in a row refuse nothing new.",
            valueName: "seeds"))
    var faults: UInt64?
    @Flag(help: "Print one JSON object. Not for a form.")
    var json = false

    func validate() throws {
        let modes = [number != nil, check != nil, !grade.isEmpty, faults != nil].filter { $0 }
        guard modes.count <= 1 else {
            throw ValidationError("Give only one of N, --check, --grade and --faults.")
        }
        if let number, Exercise(rawValue: number) == nil {
            throw ValidationError(
                "There is no exercise \(number): they are 1 to \(Exercise.allCases.count). `minivmm exercise` lists them."
            )
        }
        if number == nil, seed != nil || student != nil || out != nil {
            throw ValidationError("--seed, --student and --out need the number of an exercise.")
        }
        if seed != nil, student != nil {
            throw ValidationError("Give --seed or --student: a student's seed follows from the name.")
        }
        if let seed, seed >= Problem.seeds {
            throw ValidationError("--seed \(seed): seeds are 0 to \(Problem.seeds - 1).")
        }
        if let student {
            guard Student.isName(student) else {
                throw ValidationError(
                    "--student: a name has 1 to \(AnswerFile.longestStudent) bytes, without # and control characters."
                )
            }
        }
        if roster != nil, grade.isEmpty { throw ValidationError("--roster needs --grade.") }
        if json, number != nil { throw ValidationError("--json is not for a form, which is text.") }
        if let faults, !(1...1000).contains(faults) {
            throw ValidationError("--faults takes 1 to 1000 seeds.")
        }
    }

    func run() throws {
        if let number, let exercise = Exercise(rawValue: number) {
            try write(exercise)
        } else if let check {
            try printCheck(check)
        } else if !grade.isEmpty {
            try printGrades()
        } else if let faults {
            printFaults(FaultTable(seeds: faults))
        } else {
            printList()
        }
    }

    // MARK: forms

    private func write(_ exercise: Exercise) throws {
        let own = student.map(Student.seed)
        let seed = seed ?? own ?? UInt64.random(in: 0..<Problem.seeds)
        let form = Problem(exercise, seed: seed).form(student: student)
        guard let out else { return Terminal.output.put(Array(form.utf8)) }
        guard try TextFile.write(form, to: out, what: "the form", isNew: true) else {
            throw stop(
                "\(out): the file exists, and is kept in case it has an answer. Choose another name.",
                Status.usage)
        }
    }

    private func printList() {
        let terminal = Terminal.output
        if json {
            let list = Exercise.allCases.map { exercise in
                JSON.object([
                    ("number", .number(UInt64(exercise.number))), ("title", .string(exercise.title)),
                    ("summary", .string(exercise.summary)),
                ])
            }
            return terminal.print(
                JSON.object([("schema", .string("minivmm.exercises/1")), ("exercises", .array(list))]).text)
        }
        for exercise in Exercise.allCases {
            let number = exercise.number < 10 ? " \(exercise.number)" : "\(exercise.number)"
            terminal.print("\(number)  " + terminal.styled(exercise.title, .bold))
            terminal.paragraph(exercise.summary, indent: 4)
        }
        terminal.print()
        terminal.paragraph(
            "\(Arguments.program) exercise 1 --student NAME --out answer.txt writes a form, and "
                + "\(Arguments.program) exercise --check answer.txt checks it.")
    }

    // MARK: checking

    /// The contents of a file, or of standard input.
    ///
    /// - Throws: status 64 after a message.
    private func read(_ path: String) throws -> [UInt8] {
        switch Self.contents(path) {
        case .success(let bytes): return bytes
        case .failure(let error): throw stop("\(path): \(error)", Status.usage)
        }
    }

    static func contents(_ path: String) -> Result<[UInt8], Errno> {
        do throws(Errno) {
            let place = path == "-" ? "/dev/stdin" : path
            return .success(
                try InputFile.read(FilePath(argument: place), most: UInt64(Roster.mostBytes)) ?? [])
        } catch {
            return .failure(error)
        }
    }

    private func printCheck(_ path: String) throws {
        let terminal = Terminal.output
        let bytes = try read(path)
        var status = ExitCode.success
        do throws(AnswerFile.Problem) {
            let answer = try AnswerFile(parsing: bytes)
            let found = try Problem(answer.exercise, seed: answer.seed).assess(answer)
            if json {
                terminal.print(found.json(answer).text)
            } else {
                found.print(on: terminal)
            }
            switch found.verdict {
            case .right: return
            case .undecided: status = Status.endedEarly
            case .wrong, .noAttempt, .incomplete: status = Status.checkFailed
            }
        } catch {
            let place = error.line.map { ":\($0)" } ?? ""
            throw stop("\(path)\(place): \(error.message)", Status.usage)
        }
        if status.rawValue != 0 { throw status }
    }
}

extension Assessment {
    fileprivate func print(on terminal: Terminal) {
        let style: Terminal.Style = verdict == .right ? .good : .bad
        for (index, line) in text.enumerated() {
            if index == 0 {
                terminal.paragraph(line, style: style)
                if verdict == .wrong, possible > 1 { terminal.print("Points: \(points) of \(possible)") }
            } else {
                terminal.print(line)
            }
        }
    }

    fileprivate func json(_ answer: AnswerFile) -> JSON {
        .object([
            ("schema", .string("minivmm.exercise/1")),
            ("exercise", .number(UInt64(answer.exercise.number))), ("seed", .number(answer.seed)),
            ("student", answer.student.map { .string($0) } ?? .null), ("verdict", .string(verdict.word)),
            ("points", .number(UInt64(points))), ("possible", .number(UInt64(possible))),
            ("line", line.map { .number(UInt64($0)) } ?? .null), ("reason", .string(reason)),
            ("run", .array((run?.text ?? []).filter { !$0.isEmpty }.map { .string($0) })),
        ])
    }
}
