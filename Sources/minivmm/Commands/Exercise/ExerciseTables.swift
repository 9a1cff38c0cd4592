// SPDX-License-Identifier: MIT
import ConversionModel
import Exercises
import MiniVMM
import SoftKVM

// Tables: the answers of a class, and the planted faults that exercises refuse.
extension ExerciseCommand {
    /// - Throws: status 64 if the roster cannot be read; status 1 after the table if a file needs a look.
    func printGrades() throws {
        let students = try roster.map { path in
            let bytes: [UInt8]
            switch Self.contents(path) {
            case .success(let read): bytes = read
            case .failure(let error): throw stop("\(path): \(error)", Status.usage)
            }
            do throws(AnswerFile.Problem) {
                return try Roster(parsing: bytes)
            } catch {
                throw stop("\(path)\(error.line.map { ":\($0)" } ?? ""): \(error.message)", Status.usage)
            }
        }
        var grades = grade.map { path in
            switch Self.contents(path) {
            case .success(let bytes): Grade(file: path, bytes: bytes, roster: students)
            case .failure(let error): Grade(file: path, unreadable: "\(error)")
            }
        }
        noteDuplicates(&grades)
        let absent = (students?.entries ?? []).filter { entry in
            !grades.contains { $0.student.map(Student.normal) == Student.normal(entry.name) }
        }
        json ? printJSON(grades, absent) : printText(grades, absent)
        if grades.contains(where: \.needsAttention) { throw Status.checkFailed }
    }

    /// A second answer of the same student to the same exercise counts, too, but the lecturer should know.
    private func noteDuplicates(_ grades: inout [Grade]) {
        for index in grades.indices {
            guard let student = grades[index].student, let exercise = grades[index].exercise else { continue }
            let first = grades[..<index].first {
                $0.exercise == exercise && $0.student.map(Student.normal) == Student.normal(student)
            }
            grades[index].earlier = first?.file
        }
    }

    private func printText(_ grades: [Grade], _ absent: [Roster.Entry]) {
        let terminal = Terminal.output
        func label(_ grade: Grade) -> String { ByteText.visible(grade.student ?? grade.file) }
        let names = grades.map(label) + absent.map { ByteText.visible($0.name) }
        let width = min(24, max(7, names.map(\.count).max() ?? 0))
        func row(_ name: String, _ exercise: String, _ seed: String, _ points: String) -> String {
            let name = name.count > width ? String(name.prefix(width - 1)) + "~" : name
            return name + String(repeating: " ", count: width - name.count + 2)
                + String(repeating: " ", count: max(0, 2 - exercise.count)) + exercise + "  "
                + String(repeating: " ", count: max(0, 6 - seed.count)) + seed + "  "
                + String(repeating: " ", count: max(0, 6 - points.count)) + points + "  "
        }
        let head = row("student", "N", "seed", "points") + "result"
        terminal.print(terminal.styled(head, .bold))
        for grade in grades {
            let points = grade.possible > 0 ? "\(grade.points)/\(grade.possible)" : "-"
            let start = row(
                label(grade), grade.exercise.map { "\($0.number)" } ?? "-", grade.seed.map { "\($0)" } ?? "-",
                points)
            var result = grade.verdict?.word ?? "not counted"
            if grade.verdict != .right { result += ": " + ByteText.visible(grade.reason) }
            if let earlier = grade.earlier {
                result += " (\(ByteText.visible(earlier)) is of the same student and exercise)"
            }
            terminal.hanging(start, result, indent: start.count)
        }
        for entry in absent {
            terminal.print(row(ByteText.visible(entry.name), "-", "\(entry.seed)", "-") + "no answer")
        }
        let right = grades.count { $0.verdict == .right }
        let attention = grades.count(where: \.needsAttention)
        terminal.print()
        var summary = "\(grades.count) file\(grades.count == 1 ? "" : "s"): \(right) right"
        if attention > 0 { summary += ", \(attention) to look at" }
        if !absent.isEmpty { summary += "; \(absent.count) without an answer" }
        terminal.print(summary)
    }

    private func printJSON(_ grades: [Grade], _ absent: [Roster.Entry]) {
        let rows = grades.map { grade in
            JSON.object([
                ("file", .string(grade.file)), ("student", grade.student.map { .string($0) } ?? .null),
                ("exercise", grade.exercise.map { .number(UInt64($0.number)) } ?? .null),
                ("seed", grade.seed.map { .number($0) } ?? .null),
                ("verdict", grade.verdict.map { .string($0.word) } ?? .null),
                ("points", .number(UInt64(grade.points))), ("possible", .number(UInt64(grade.possible))),
                ("reason", .string(grade.reason)), ("earlier", grade.earlier.map { .string($0) } ?? .null),
            ])
        }
        let missing = absent.map { entry in
            JSON.object([("student", .string(entry.name)), ("seed", .number(entry.seed))])
        }
        Terminal.output.print(
            JSON.object([
                ("schema", .string("minivmm.grades/1")), ("answers", .array(rows)),
                ("absent", .array(missing)),
            ]).text)
    }

    // MARK: planted faults

    func printFaults(_ table: FaultTable) {
        let terminal = Terminal.output
        if json {
            let rows = table.rows.map { row in
                JSON.object([
                    ("exercise", .number(UInt64(row.exercise.number))),
                    ("refused", .array(row.refused.map { .string($0.name) })),
                ])
            }
            return terminal.print(
                JSON.object([
                    ("schema", .string("minivmm.exercise-faults/1")), ("seeds", .number(table.seeds)),
                    ("rows", .array(rows)), ("missed", .array(table.missed.map { .string($0.name) })),
                ]).text)
        }
        func cells(_ faults: [PlantedFault]) -> String {
            let special = faults.count(where: \.isConfidential)
            return cell(faults.count - special, PlantedFault.allCases.count { !$0.isConfidential })
                + cell(special, PlantedFault.allCases.count(where: \.isConfidential))
        }
        func cell(_ count: Int, _ all: Int) -> String {
            let text = "\(count) of \(all)"
            return String(repeating: " ", count: max(0, 10 - text.count)) + text
        }
        func row(_ number: String, _ title: String) -> String {
            String(repeating: " ", count: max(0, 2 - number.count)) + number + "  " + title
                + String(repeating: " ", count: max(0, 38 - title.count))
        }
        terminal.print(
            terminal.styled(row("", "answers refused for a planted fault") + "   faults  SNP, TDX", .bold))
        for line in table.rows {
            terminal.print(row("\(line.exercise.number)", line.exercise.title) + cells(line.refused))
        }
        terminal.print(row("", "all of them") + cells(table.refused))
        let missed = table.missed
        guard !missed.isEmpty else { return }
        terminal.hanging("    refused by none: ", missed.map(\.name).joined(separator: ", "), indent: 4)
    }
}
