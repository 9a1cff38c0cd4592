// SPDX-License-Identifier: MIT
// Prints the event stream of a Swift Testing run as KTAP (Documentation/dev-tools/ktap.rst), the format of the
// kernel's own tests.
//
//     tests --event-stream-output-path /dev/stdout --event-stream-version 0 | ktap [--summary | --title NAME]
//
// A function with several cases is printed as a subtest. `--title` makes the whole run a subtest of that name.
// `--summary` prints only the totals and the reasons for skips. Exit status: 0 all passed or skipped, 1 a test failed or
// the run ended early, 4 everything was skipped, 64 usage error.
import FoundationEssentials
import Glibc

let arguments = Array(CommandLine.arguments.dropFirst())
let onlySummary = arguments == ["--summary"]
let title = arguments.count == 2 && arguments[0] == "--title" ? arguments[1] : nil
guard arguments.isEmpty || onlySummary || title != nil else {
    print("usage: ktap [--summary | --title NAME] < EVENTS")
    exit(64)
}

/// Prints a line of the report, indented by `depth`; nothing with `--summary`.
func printLine(_ line: String, depth: Int = 0) {
    guard !onlySummary else { return }
    print(String(repeating: "  ", count: depth) + line)
    fflush(nil)
}

/// Prints the result line of a test, after its failures. A `#` in a name would start a KTAP directive.
func printResult(_ result: Report.Result, number: Int, depth: Int) {
    for line in result.failures.joined(separator: "\n").split(separator: "\n") {
        printLine("# \(line)", depth: depth)
    }
    let name = result.name.replacing("#", with: "_").replacing("\n", with: " ")
    var line = result.hasFailed ? "not ok \(number) \(name)" : "ok \(number) \(name)"
    if !result.hasFailed, let reason = result.skipped {
        line += " # SKIP \(reason)"
    }
    printLine(line, depth: depth)
}

printLine("KTAP version 1")
if let title { printLine("# Subtest: \(title)") }

var report = Report()
var number = 0
let decoder = JSONDecoder()
while let line = readLine() {
    guard let record = try? decoder.decode(Record.self, from: Data(line.utf8)) else {
        // Not an event: a test printed the line.
        if !line.isEmpty { printLine("# \(line)") }
        continue
    }
    if record.kind == "event", record.payload.kind == "runStarted" {
        printLine("1..\(report.planned)")
    }
    guard let result = report.add(record) else { continue }
    number += 1
    if result.cases.count > 1 {
        printLine("KTAP version 1", depth: 1)
        printLine("# Subtest: \(result.name)", depth: 1)
        printLine("1..\(result.cases.count)", depth: 1)
        for (index, part) in result.cases.enumerated() { printResult(part, number: index + 1, depth: 1) }
        printResult(
            Report.Result(
                name: result.name, failures: result.failures, hasFailed: result.hasFailed,
                skipped: result.skipped),
            number: number, depth: 0)
    } else {
        let only = result.cases.first
        printResult(
            Report.Result(
                name: result.name, failures: result.failures + (only?.failures ?? []),
                hasFailed: result.hasFailed,
                skipped: result.skipped), number: number, depth: 0)
    }
}

let skipped = report.skips.values.reduce(0, +)
if !report.hasEnded { printLine("Bail out! the run ended early") }
print(
    "# Totals: pass:\(report.passed) fail:\(report.failed) skip:\(skipped)\(report.hasEnded ? "" : ", ended early")"
)
for (reason, count) in report.skips.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
    print("# skipped \(count): \(reason)")
}
guard report.hasEnded, report.failed == 0 else { exit(1) }
exit(report.passed == 0 && skipped > 0 ? 4 : 0)
