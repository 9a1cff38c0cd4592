// SPDX-License-Identifier: MIT
import Backends
import Litmus
import MiniVMM

/// Prints what an exploration tried and found, as text or as JSON.
struct ExplorePrinter: Sendable {
    let options: Exploration.Options
    let chosen: ChosenBackend
    /// The options that choose the same backend again.
    let backendOptions: String
    let isJSON: Bool
    private let start = monotonicNanoseconds()
    private let out = Terminal.output
    private let diagnostics = Terminal.diagnostics
    private let line: ProgressLine

    init(options: Exploration.Options, chosen: ChosenBackend, backendOptions: String, isJSON: Bool) {
        self.options = options
        self.chosen = chosen
        self.backendOptions = backendOptions
        self.isJSON = isJSON
        line = ProgressLine(diagnostics)
    }

    func begin() {
        guard !isJSON else { return }
        label("backend", chosen.line, on: diagnostics)
        for notice in notices { label("", notice, on: diagnostics) }
        label("seed", "\(options.seed)", on: diagnostics)
        if usesRulesAlone {
            label(
                "answers",
                "by the rules of SoftKVM; each finding is confirmed with its memory and its CPU",
                on: diagnostics)
        }
    }

    /// The notices that a model answers for SNP and TDX VMs.
    private var notices: [String] {
        guard chosen.kind == .soft else { return [] }
        return [VMType.snp, .tdx].filter { !options.excluded.contains("vm \(VMName($0).rawValue)") }
            .compactMap { type in
                type.modelNotice.map { "vm \(VMName(type).rawValue): \($0)" }
            }
    }

    /// Whether tests run on the rules of SoftKVM alone, and only findings on its memory and its CPU.
    private var usesRulesAlone: Bool { chosen.kind == .soft && options.usesRulesAlone }

    /// Updates the progress line of a terminal.
    func progress(_ phase: Exploration.Phase, _ summary: Exploration.Summary) {
        line.show {
            let title = phase.title + String(repeating: " ", count: 10 - phase.title.count)
            let found = summary.findings.isEmpty ? "" : ", \(summary.findings.count) found"
            return "\(title)\(grouped(summary.counts[phase]?.tests ?? 0)) tests\(found)"
        }
    }

    func end(_ summary: Exploration.Summary, files: [String], alone: [Repetition]) {
        line.clear()
        guard !isJSON else { return out.print(json(summary, files: files, alone).text) }
        tried(summary)
        for ((index, finding), alone) in zip(summary.findings.enumerated(), alone) {
            out.print("")
            found(finding, file: files.indices.contains(index) ? files[index] : nil, alone)
        }
        out.print("")
        verdict(summary)
    }

    // MARK: what was tried

    private func label(
        _ label: String, _ text: String, on terminal: Terminal, _ style: Terminal.Style? = nil
    ) {
        let padded = label + String(repeating: " ", count: max(2, 10 - label.count))
        // Each word is styled by itself, because a line can break after any.
        let words = text.split(separator: " ").map { word in
            style.map { terminal.styled(String(word), $0) } ?? String(word)
        }
        terminal.hanging(terminal.styled(padded, .dim), words.joined(separator: " "), indent: 10)
    }

    private func tried(_ summary: Exploration.Summary) {
        for phase in Exploration.Phase.allCases {
            guard let count = summary.counts[phase] else { continue }
            var text = "\(grouped(count.tests)) tests, \(grouped(count.steps)) steps"
            switch phase {
            case .scope where summary.states > 0:
                let states = summary.states == 1 ? "1 state" : "\(grouped(summary.states)) states"
                text =
                    "every step from each of \(states): \(grouped(summary.transitions)) steps in "
                    + "\(grouped(count.tests)) tests"
            case .pairs:
                text += " of \(grouped(summary.pairs)) pairs of kinds of steps" + concurrency(summary)
            case .parallel: text += concurrency(summary)
            default: break
            }
            label(phase.title, text, on: out)
        }
        if summary.schedules > 0 {
            label("schedules", "\(grouped(summary.schedules)) of tests with concurrent steps", on: out)
        }
        if chosen.kind != .soft, let reason = summary.sweepAbsence {
            label("no sweep", "\(reason). Actors start at random times instead.", on: out)
        }
        let outcomes = summary.coverage.values.reduce(0) { $0 + $1.count }
        if outcomes > 0 {
            label(
                "seen", "\(summary.coverage.count) kinds of steps, \(outcomes) kinds of answers", on: out)
        }
        for (index, group) in groups(summary.leftOut).enumerated() {
            label(index == 0 ? "left out" : "", group, on: out)
        }
        let skipped = summary.skipped.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        for (index, entry) in skipped.enumerated() {
            let tests = entry.value == 1 ? "1 test" : "\(grouped(entry.value)) tests"
            label(index == 0 ? "skipped" : "", "\(tests): \(entry.key)", on: out)
        }
        for (index, pair) in summary.emptyPairs.enumerated() {
            label(index == 0 ? "no test" : "", pair, on: out)
        }
        if summary.lawful > 0 {
            label(
                "ENOMEM", "\(grouped(summary.lawful)) tests failed with ENOMEM, which the model allows",
                on: out)
        }
    }

    /// How concurrent steps are ordered.
    private func concurrency(_ summary: Exploration.Summary) -> String {
        if chosen.kind == .soft { return ", all interleavings" }
        return summary.sweepAbsence == nil
            ? ", each actor preempted by each other one at every place"
            : ", \(grouped(options.runs)) runs each"
    }

    private func contradicted(_ summary: Exploration.Summary) {
        guard summary.contradicted > 0 else { return }
        let tests = summary.contradicted == 1 ? "1 test" : "\(grouped(summary.contradicted)) tests"
        label(
            "unclear",
            "\(tests) failed on a machine that another test had used and passed on a new one; "
                + "later tests each got a new machine. The first of them:", on: out)
        guard let first = summary.firstContradiction else { return }
        for line in first.source.test.text.split(separator: "\n") { out.print("    \(line)") }
        for line in first.seen { out.print("    # \(line)") }
        guard let before = first.before else { return }
        label("", "The test before it on that machine:", on: out)
        for line in before.test.text.split(separator: "\n") { out.print("    \(line)") }
    }

    /// The tests that were not run; nil if all were.
    private func untried(_ summary: Exploration.Summary) -> String? {
        let parts = summary.untried.map { phase, tests in
            switch phase {
            case .scope: "the rest of the exhaustive part (--depth \(options.depth))"
            case .random: "\(grouped(tests ?? 0)) of \(grouped(options.tests)) random tests"
            case .pairs: "the rest of the pairs of concurrent steps (--pairs \(options.pairTests))"
            case .parallel:
                "\(grouped(tests ?? 0)) of \(grouped(options.parallelTests)) tests with concurrent steps"
            }
        }
        return parts.isEmpty ? nil : parts.joined(separator: ", ")
    }

    /// Groups the moves by their reason.
    private func groups(_ leftOut: [(move: String, reason: String)]) -> [String] {
        var order: [String] = []
        var moves: [String: [String]] = [:]
        for (move, reason) in leftOut {
            if moves[reason] == nil { order.append(reason) }
            moves[reason, default: []].append(move)
        }
        return order.map { "\(moves[$0, default: []].joined(separator: ", ")): \($0)" }
    }

    private func verdict(_ summary: Exploration.Summary) {
        contradicted(summary)
        if let untried = untried(summary) { label("not tried", untried, on: out) }
        let seconds = Double((monotonicNanoseconds() - start) / 10_000_000) / 100
        let tests = "\(grouped(summary.tests)) tests in \(seconds) s"
        let end =
            switch summary.end {
            case .complete, .findings: ""
            case .time: "; ended by --timeout before everything was tried"
            case .stopped: "; interrupted before everything was tried"
            }
        switch summary.findings.count {
        case 0 where summary.tests == 0 && summary.end == .complete:
            out.print(out.styled("This kernel supports none of the steps", .dim))
        case 0 where summary.end != .complete:
            out.print(out.styled("No differences from the model so far", .bold) + ": \(tests)\(end)")
        case 0:
            out.print(out.styled("No differences from the model", .good) + ": \(tests)\(end)")
        case let count:
            let what = count == 1 ? "1 finding" : "\(count) findings"
            out.print(out.styled(what, .bad) + ": \(tests)\(end)")
        }
    }

    // MARK: what was found

    /// Prints the command line that repeats a finding, and how reliably it does.
    private func again(_ finding: Finding, file: String, _ alone: Repetition) {
        let failing = finding.failure.injected.map { "--fail-at \($0.point) " } ?? ""
        guard let needed = alone.needed else {
            out.command("again     ", "minivmm litmus \(backendOptions) \(failing)\(file)")
            return label(
                "",
                "By itself the test did not show it in \(alone.runs) runs: it depends on an earlier test. "
                    + "The same exploration with the same seed may show it again.", on: out)
        }
        // --runs applies only to tests with concurrent steps.
        let isParallel = finding.source.test.body.contains { entry in
            if case .parallel = entry { true } else { false }
        }
        let isSampled = isParallel && chosen.kind != .soft
        let runs = options.runs.multipliedReportingOverflow(by: needed).partialValue
        out.command(
            "again     ",
            "minivmm litmus \(backendOptions) " + (isSampled ? "--runs \(max(1, runs)) " : "") + failing
                + file)
        guard needed > 1, !isSampled else { return }
        label(
            "",
            "By itself it shows in \(alone.seen) of \(alone.runs) runs: repeat the command \(needed) times.",
            on: out)
    }

    private func found(_ finding: Finding, file: String?, _ alone: Repetition) {
        label("found", finding.what, on: out)
        label("model", finding.model, on: out)
        label("backend", finding.failure.seen, on: out, .bad)
        if !finding.functions.isEmpty, let preemption = finding.source.test.schedules.first?.preemption {
            label(
                "place",
                "\(preemption.victim) in \(finding.functions.prefix(4).joined(separator: " < "))", on: out)
        }
        if let injected = finding.failure.injected { label("failure", injected.description, on: out) }
        for line in finding.kernelLines { out.print("          \(line)") }
        let left = finding.source.test.steps.count
        label(
            "shown",
            "in \(finding.seen) of \(finding.runs) runs; shrunk from \(finding.steps) to \(left) steps of test \(finding.found)",
            on: out)
        out.print("")
        for line in finding.source.test.text.split(separator: "\n", omittingEmptySubsequences: false)
            .dropLast()
        {
            out.print("    \(line)")
        }
        out.print("")
        if let file { return again(finding, file: file, alone) }
        guard alone.seen < alone.runs else { return }
        label("alone", "by itself it shows in \(alone.seen) of \(alone.runs) runs", on: out)
    }

    // MARK: JSON

    /// Schema `minivmm.explore/1`.
    private func json(_ summary: Exploration.Summary, files: [String], _ alone: [Repetition]) -> JSON {
        func number(_ value: Int) -> JSON { .number(UInt64(max(0, value))) }
        return .object([
            ("schema", .string("minivmm.explore/1")),
            ("backend", .string(chosen.backend.identity.name)),
            ("host", .string(chosen.backend.identity.host)), ("reason", .string(chosen.reasonText)),
            ("models", .array(notices.map(JSON.string))),
            ("seed", .number(options.seed)), ("rules_alone", .bool(usesRulesAlone)),
            (
                "phases",
                .array(
                    Exploration.Phase.allCases.compactMap { phase in
                        summary.counts[phase].map { count in
                            .object([
                                ("phase", .string(phase.rawValue)), ("tests", number(count.tests)),
                                ("steps", number(count.steps)),
                            ])
                        }
                    })
            ),
            ("pairs", number(summary.pairs)),
            ("pairs_without_a_test", .array(summary.emptyPairs.map(JSON.string))),
            ("states", number(summary.states)), ("transitions", number(summary.transitions)),
            (
                "coverage",
                .object(
                    summary.coverage.sorted { $0.key < $1.key }.map { kind, outcomes in
                        (
                            kind,
                            .object(outcomes.sorted { $0.key < $1.key }.map { ($0.key, number($0.value)) })
                        )
                    })
            ),
            (
                "left_out",
                .array(
                    summary.leftOut.map {
                        .object([("step", .string($0.move)), ("reason", .string($0.reason))])
                    })
            ),
            (
                "skipped",
                .object(summary.skipped.sorted { $0.key < $1.key }.map { ($0.key, number($0.value)) })
            ),
            ("schedules", number(summary.schedules)),
            ("no_sweep", summary.sweepAbsence.map(JSON.string) ?? .null),
            ("lawful", number(summary.lawful)), ("contradicted", number(summary.contradicted)),
            ("end", .string(summary.end.rawValue)),
            (
                "untried",
                .array(
                    summary.untried.map { phase, tests in
                        .object([("phase", .string(phase.rawValue)), ("tests", tests.map(number) ?? .null)])
                    })
            ),
            (
                "findings",
                .array(
                    zip(summary.findings.enumerated(), alone).map { found, alone in
                        let (index, finding) = found
                        return json(
                            finding, file: files.indices.contains(index) ? files[index] : nil, alone)
                    })
            ),
        ])
    }

    private func json(_ finding: Finding, file: String?, _ alone: Repetition) -> JSON {
        .object([
            ("step", .string(finding.what)), ("model", .string(finding.model)),
            ("seen", .string(finding.failure.seen)),
            ("fail_at", finding.failure.injected.map { .string($0.point.description) } ?? .null),
            ("line", finding.failure.line.map { .number(UInt64($0)) } ?? .null),
            ("runs", .number(UInt64(finding.runs))), ("runs_that_show_it", .number(UInt64(finding.seen))),
            ("runs_alone", .number(UInt64(alone.runs))),
            ("runs_alone_that_show_it", .number(UInt64(alone.seen))),
            ("runs_needed", alone.needed.map { .number(UInt64($0)) } ?? .null),
            ("test_number", .number(UInt64(finding.found))), ("steps_before", .number(UInt64(finding.steps))),
            ("steps", .number(UInt64(finding.source.test.steps.count))),
            ("functions", .array(finding.functions.map(JSON.string))),
            ("litmus", .string(finding.source.test.text)), ("file", file.map(JSON.string) ?? .null),
        ])
    }
}

extension Exploration.Phase {
    fileprivate var title: String {
        switch self {
        case .scope: "scope"
        case .random: "random"
        case .pairs: "pairs"
        case .parallel: "parallel"
        }
    }
}
