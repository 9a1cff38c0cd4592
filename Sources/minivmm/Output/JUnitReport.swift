// SPDX-License-Identifier: MIT
import Backends
import Litmus
import MiniVMM

/// The results of litmus tests as JUnit XML, in the form that Jenkins and GitLab read.
struct JUnitReport {
    let items: [LitmusCommand.Item]
    let chosen: ChosenBackend

    var document: String { XML("testsuites", totals, [.element(suite)]).document }

    private var suite: XML {
        XML("testsuite", totals, [.element(properties)] + items.map { .element(testCase($0)) })
    }

    private var totals: [(name: String, value: String)] {
        func count(_ word: String) -> String { String(items.count { $0.verdict.word == word }) }
        let time = items.reduce(0) { $0 + ($1.nanoseconds ?? 0) }
        return [
            ("name", "minivmm litmus"), ("tests", String(items.count)), ("failures", count("failed")),
            ("errors", count("error")), ("skipped", count("skipped")), ("time", Self.seconds(time)),
        ]
    }

    /// The backend as in JSON, and the version of minivmm.
    private var properties: XML {
        let identity = chosen.backend.identity
        let pairs =
            [
                ("backend", identity.name), ("host", identity.host), ("reason", chosen.reasonText),
                ("version", Minivmm.version),
            ] + items.modelNotices.map { ("model", $0) }
        return XML(
            "properties", [],
            pairs.map { .element(XML("property", [("name", $0.0), ("value", $0.1)])) })
    }

    private func testCase(_ item: LitmusCommand.Item) -> XML {
        let directory = ByteText.directory(item.path)
        let isHere = directory.isEmpty || directory == "."
        var attributes = [
            (name: "name", value: item.shortName), ("classname", isHere ? "litmus" : directory),
        ]
        if let time = item.nanoseconds { attributes.append(("time", Self.seconds(time))) }
        attributes.append(("file", item.path))
        if case .failed(let failure) = item.verdict, let line = failure.line {
            attributes.append(("line", String(line)))
        }
        var contents: [XML.Content] = []
        switch item.verdict {
        case .passed: break
        case .skipped(let reason): contents.append(.element(XML("skipped", [("message", reason)])))
        case .failed(let failure):
            let title = ByteText.visible(item.path) + ": " + item.source.test.name
            contents.append(
                .element(
                    XML(
                        "failure", [("message", failure.message), ("type", failure.deviation.word)],
                        [.text(([title] + failure.lines + replay(failure, item)).joined(separator: "\n"))])))
        case .hostFailed(let failure):
            contents.append(
                .element(
                    XML(
                        "error", [("message", failure.description), ("type", "host")], [.text(failure.advice)]
                    )
                ))
        }
        let lines = output(item)
        if !lines.isEmpty {
            contents.append(.element(XML("system-out", [], [.text(lines.joined(separator: "\n"))])))
        }
        return XML("testcase", attributes, contents)
    }

    /// The outcomes of parallel blocks and of failing allocations.
    private func output(_ item: LitmusCommand.Item) -> [String] {
        var lines: [String] = []
        if let cut = item.report.cut { lines.append(cut.text(item.verdict)) }
        lines += item.report.blocks.flatMap(\.lines)
        if let reason = item.report.sweepAbsence { lines.append("no sweep: \(reason)") }
        return lines + FailurePrinter(out: .output, item: item).lines.map(\.text)
    }

    /// The command that repeats the failure; empty if the test alone does.
    private func replay(_ failure: Failure, _ item: LitmusCommand.Item) -> [String] {
        if let injected = failure.injected {
            return ["replay: \(FailurePrinter.replay(injected, item.path))"]
        }
        guard let schedule = item.report.schedule else { return [] }
        return ["replay: minivmm litmus --at \(schedule) \(ByteText.visible(item.path))"]
    }

    /// With the three digits that readers of the format expect.
    private static func seconds(_ nanoseconds: UInt64) -> String {
        let milliseconds = nanoseconds / 1_000_000
        let rest = String(milliseconds % 1000)
        return "\(milliseconds / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
    }
}

extension Failure {
    /// The failure on one line.
    fileprivate var message: String {
        (line.map { "line \($0): " } ?? "") + "\(text): expected \(expected), seen \(seen)"
    }
}

extension Failure.Deviation {
    /// The kind of the failure, for programs.
    fileprivate var word: String {
        switch self {
        case .step: "step"
        case .impossible: "impossible-step"
        case .machine: "machine"
        case .outcome: "forbidden-outcome"
        case .missing: "missing-outcome"
        case .hang: "hang"
        case .kernel: "kernel-report"
        }
    }
}
