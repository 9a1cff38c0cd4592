// SPDX-License-Identifier: MIT
// Prints the event stream of a Swift Testing run as KTAP (Documentation/dev-tools/ktap.rst), the format of the
// kernel's own tests.
//
//     tests --event-stream-output-path /dev/stdout --event-stream-version 0 | ktap [--summary | --title NAME]
//
// A function with cases is a subtest; the title is that of the whole, where it is one itself. With `--summary` only the numbers are printed, with the reasons of what was
// skipped. Exit status: 0 passed, 1 something failed or the run did not come to its end, 4 everything was skipped.
import FoundationEssentials
import Glibc

let words = Array(CommandLine.arguments.dropFirst())
let onlySummary = words == ["--summary"]
let title = words.count == 2 && words[0] == "--title" ? words[1] : nil
guard words.isEmpty || onlySummary || title != nil else {
    print("usage: ktap [--summary | --title NAME] < EVENTS")
    exit(64)
}

/// A line of the report; what names and reasons contain must not look like a directive.
func say(_ line: String, depth: Int = 0) {
    guard !onlySummary else { return }
    print(String(repeating: "  ", count: depth) + line)
    fflush(nil)
}

func say(_ result: Report.Result, number: Int, depth: Int) {
    for line in result.failures.joined(separator: "\n").split(separator: "\n") {
        say("# \(line)", depth: depth)
    }
    let name = result.name.replacing("#", with: "_").replacing("\n", with: " ")
    var line = result.hasFailed ? "not ok \(number) \(name)" : "ok \(number) \(name)"
    if !result.hasFailed, let reason = result.skipped {
        line += " # SKIP \(reason)"
    }
    say(line, depth: depth)
}

say("KTAP version 1")
if let title { say("# Subtest: \(title)") }

var report = Report()
var number = 0
let decoder = JSONDecoder()
while let line = readLine() {
    guard let record = try? decoder.decode(Record.self, from: Data(line.utf8)) else {
        // Not an event: somebody printed.
        if !line.isEmpty { say("# \(line)") }
        continue
    }
    if record.kind == "event", record.payload.kind == "runStarted" {
        say("1..\(report.planned)")
    }
    guard let result = report.take(record) else { continue }
    number += 1
    if result.cases.count > 1 {
        say("KTAP version 1", depth: 1)
        say("# Subtest: \(result.name)", depth: 1)
        say("1..\(result.cases.count)", depth: 1)
        for (index, part) in result.cases.enumerated() { say(part, number: index + 1, depth: 1) }
        say(
            Report.Result(
                name: result.name, failures: result.failures, hasFailed: result.hasFailed,
                skipped: result.skipped),
            number: number, depth: 0)
    } else {
        let only = result.cases.first
        say(
            Report.Result(
                name: result.name, failures: result.failures + (only?.failures ?? []),
                hasFailed: result.hasFailed,
                skipped: result.skipped), number: number, depth: 0)
    }
}

let skipped = report.skips.values.reduce(0, +)
if !report.hasEnded { say("Bail out! the run did not come to its end") }
print(
    "# Totals: pass:\(report.passed) fail:\(report.failed) skip:\(skipped)\(report.hasEnded ? "" : ", and no end")"
)
for (reason, count) in report.skips.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
    print("# skipped \(count): \(reason)")
}
guard report.hasEnded, report.failed == 0 else { exit(1) }
exit(report.passed == 0 && skipped > 0 ? 4 : 0)
