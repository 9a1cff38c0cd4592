// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

/// Prints what the steps of a test do when allocations of the kernel fail.
struct FailurePrinter {
    let out: Terminal
    let item: LitmusCommand.Item

    func print() {
        for line in lines {
            let first = line.isFine ? line.text : out.styled(line.text, .bad)
            out.hanging("        ", first, indent: 12, used: 8)
        }
        if case .failed(let failure) = item.verdict, let injected = failure.injected {
            out.hanging("        ", "replay: \(Self.replay(injected, item.path))", indent: 16, used: 8)
        }
    }

    /// One line for each step: the number of its allocations, and the answers by allocation.
    var lines: [(text: String, isFine: Bool)] {
        item.report.failures.filter { $0.allocations > 0 || !$0.answers.isEmpty }.map { step in
            let count = step.allocations == 1 ? "1 allocation" : "\(grouped(step.allocations)) allocations"
            let tried = step.tried < step.allocations ? ", \(grouped(step.tried)) tried" : ""
            let answers = step.answers.map { "\(Self.numbers($0)) \($0.text)\(Self.deviation($0))" }
            return (
                "line \(step.line): \(item.source.test.steps[step.step].text): \(count)\(tried)"
                    + (answers.isEmpty ? "" : ": " + answers.joined(separator: "; ")),
                step.answers.allSatisfy { $0.failure == nil }
            )
        }
    }

    private static func numbers(_ answer: StepFailures.Answer) -> String {
        let (first, last) = (answer.numbers.lowerBound, answer.numbers.upperBound)
        return first == last ? grouped(first) : "\(grouped(first))-\(grouped(last))"
    }

    private static func deviation(_ answer: StepFailures.Answer) -> String {
        guard let failure = answer.failure else { return "" }
        let isAfterwards = failure.step == nil && failure.line == nil
        let step = (isAfterwards ? "after the test: " : "") + failure.text
        return " (WRONG: \(step): \(failure.seen) instead of \(failure.expected))"
    }

    /// `; 1,234 allocations failed, 300 of them reported`: by the errno of the system call. Empty if none was made to fail.
    static func summary(_ reports: [Report]) -> String {
        let answers = reports.flatMap(\.failures).flatMap(\.answers)
        let tried = answers.reduce(0) { $0 + $1.tried }
        let reported = answers.filter(\.isReportedByCall).reduce(0) { $0 + $1.tried }
        guard tried > 0 else { return "" }
        return
            "; \(grouped(tried)) \(tried == 1 ? "allocation" : "allocations") failed, \(grouped(reported)) of them reported"
    }

    /// The command that repeats a failure.
    static func replay(_ injected: InjectedFailure, _ path: String) -> String {
        "minivmm litmus --fail-at \(injected.point) \(ByteText.visible(path))"
    }

    /// A step as a JSON object.
    static func json(_ step: StepFailures, _ source: Source) -> JSON {
        .object([
            ("line", .number(UInt64(step.line))), ("step", .string(source.test.steps[step.step].text)),
            ("allocations", .number(UInt64(step.allocations))), ("tried", .number(UInt64(step.tried))),
            (
                "answers",
                .array(
                    step.answers.map { answer in
                        .object([
                            ("from", .number(UInt64(answer.numbers.lowerBound))),
                            ("to", .number(UInt64(answer.numbers.upperBound))),
                            ("tried", .number(UInt64(answer.tried))), ("call", .string(answer.call)),
                            ("errno", answer.errno.map { .string(Errno(rawValue: $0).name) } ?? .null),
                            ("outcome", answer.outcome.map { .string("\($0)") } ?? .null),
                            ("reported", .bool(answer.isReported)),
                            ("failure", answer.failure.map { .array($0.lines.map(JSON.string)) } ?? .null),
                        ])
                    })
            ),
        ])
    }
}
