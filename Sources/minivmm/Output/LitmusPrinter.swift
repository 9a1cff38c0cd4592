// SPDX-License-Identifier: MIT
import Backends
import Litmus
import MiniVMM

/// The results of litmus tests: KTAP (Documentation/dev-tools/ktap.rst) for the kernel's own tools, JSON, text.
struct LitmusPrinter: Sendable {
    let format: LitmusCommand.Format
    let chosen: ChosenBackend
    private var out: Terminal { .output }
    private let line = ProgressLine(.diagnostics)

    init(format: LitmusCommand.Format, chosen: ChosenBackend) {
        self.format = format
        self.chosen = chosen
    }

    /// Runs of a test that is run many times, while it is.
    func progress(_ name: String, _ done: Int, of runs: Int) {
        line.show { "\(name)  \(done) of \(runs) runs" }
    }

    func endProgress() { line.clear() }

    func begin(_ count: Int) {
        switch format {
        case .ktap:
            out.print("KTAP version 1")
            out.print("# \(chosen.line)")
            out.print("1..\(count)")
        case .json: break
        case .text:
            let diagnostics = Terminal.diagnostics
            diagnostics.hanging(diagnostics.styled("backend  ", .dim), chosen.line, indent: 9)
        }
    }

    func ran(_ item: LitmusCommand.Item, number: Int) {
        switch format {
        case .ktap: ktap(item, number)
        case .json: break
        case .text: text(item)
        }
    }

    private func counts(_ items: [LitmusCommand.Item]) -> (passed: Int, failed: Int, skipped: Int) {
        func count(_ word: String) -> Int { items.count { $0.verdict.word == word } }
        return (count("passed"), count("failed"), count("skipped"))
    }

    private func cutShort(_ items: [LitmusCommand.Item]) -> Int { items.count { $0.report.cut != nil } }

    /// Schema `minivmm.litmus/1`.
    func json(_ items: [LitmusCommand.Item]) -> String {
        let (passed, failed, skipped) = counts(items)
        return JSON.object([
            ("schema", .string("minivmm.litmus/1")),
            ("backend", .string(chosen.backend.identity.name)),
            ("host", .string(chosen.backend.identity.host)), ("reason", .string(chosen.reasonText)),
            ("passed", .number(UInt64(passed))), ("failed", .number(UInt64(failed))),
            ("skipped", .number(UInt64(skipped))), ("cut_short", .number(UInt64(cutShort(items)))),
            ("tests", .array(items.map(\.json))),
        ]).text
    }

    func end(_ items: [LitmusCommand.Item]) {
        let (passed, failed, skipped) = counts(items)
        let errors = items.count { $0.verdict.word == "error" }
        switch format {
        case .ktap:
            out.print(
                "# Totals: pass:\(passed) fail:\(failed) xfail:0 xpass:0 skip:\(skipped) error:\(errors)")
        case .json: out.print(json(items))
        case .text:
            let cut = cutShort(items)
            let summary =
                "\(passed) passed, \(failed) failed, \(skipped) skipped"
                + (errors > 0 ? ", \(errors) not known: the host failed" : "")
                + (cut > 0 ? "; \(cut) cut short" : "")
            out.print(out.styled(summary, failed > 0 ? .bad : passed > 0 ? .good : .dim))
        }
    }

    /// Diagnostics stand before the line of the result; what a name or a reason contains must not look like a directive.
    private func ktap(_ item: LitmusCommand.Item, _ number: Int) {
        let name = Self.plain(item.shortName)
        if let cut = item.report.cut { out.print("# \(cut.text(item.verdict))") }
        for line in item.report.blocks.flatMap(\.lines) { out.print("# \(line)") }
        switch item.verdict {
        case .passed: out.print("ok \(number) \(name)")
        case .skipped(let reason): out.print("ok \(number) \(name) # SKIP \(Self.plain(reason))")
        case .failed(let failure):
            for line in [ByteText.visible(item.path) + ": " + item.source.test.name] + failure.lines {
                out.print("# \(line)")
            }
            out.print("not ok \(number) \(name)")
        case .hostFailed(let failure):
            for line in [failure.description, failure.advice] { out.print("# \(line)") }
            out.print("not ok \(number) \(name)")
        }
    }

    private static func plain(_ text: String) -> String {
        let kept = text.unicodeScalars.map { $0 == "#" || VisibleText.isHidden($0) ? "_" : $0 }
        return String(String.UnicodeScalarView(kept))
    }

    private func text(_ item: LitmusCommand.Item) {
        let name = "\(item.shortName): \(item.source.test.name)"
        switch item.verdict {
        case .passed: out.print(out.styled("passed  ", .good) + name)
        case .skipped(let reason):
            out.print(out.styled("skipped ", .dim) + name)
            out.print("        \(reason)")
        case .hostFailed(let failure):
            out.print(out.styled("error   ", .bad) + name)
            out.print("        \(failure)")
        case .failed(let failure):
            out.print(out.styled("failed  ", .bad) + name)
            let path = ByteText.visible(item.path)
            let place = failure.line.map { "\(path):\($0)" } ?? path
            out.print("        \(place): \(failure.text)")
            for line in failure.lines.dropFirst() { out.print("          \(line)") }
        }
        if let cut = item.report.cut { out.hanging("        ", cut.text(item.verdict), indent: 8) }
        for block in item.report.blocks {
            let lines = block.lines
            out.print("        " + lines[0])
            var left = (shown: 16, folded: 0)
            for (line, outcome) in zip(lines.dropFirst(), block.outcomes) {
                guard left.shown > 0 || !outcome.isFine else {
                    left.folded += 1
                    continue
                }
                left.shown -= 1
                let style: Terminal.Style = outcome.isFine ? outcome.count == 0 ? .dim : .good : .bad
                out.print("        " + out.styled(line, style))
            }
            if left.folded > 0 { out.print("          … and \(left.folded) more; --format json has all") }
        }
    }
}

extension LitmusCommand.Item {
    fileprivate var json: JSON {
        var members: [(String, JSON)] = [
            ("file", .string(path)), ("name", .string(source.test.name)),
            ("hazards", .array(source.test.hazards.map { .string($0.description) })),
            ("verdict", .string(verdict.word)),
        ]
        if let cut = report.cut {
            members.append(
                (
                    "cut_short",
                    .object([
                        ("by", .string(cut.reason.word)), ("reason", .string(cut.reason.description)),
                        ("runs", cut.runs.map { .number(UInt64($0)) } ?? .null),
                        ("of", cut.wanted.map { .number(UInt64($0)) } ?? .null),
                    ])
                ))
        }
        if !report.blocks.isEmpty { members.append(("blocks", .array(report.blocks.map(\.json)))) }
        switch verdict {
        case .passed: break
        case .skipped(let reason): members.append(("reason", .string(reason)))
        case .hostFailed(let failure): members.append(("reason", .string(failure.description)))
        case .failed(let failure):
            members += [
                ("line", failure.line.map { .number(UInt64($0)) } ?? .null), ("step", .string(failure.text)),
                ("expected", .string(failure.expected)), ("seen", .string(failure.seen)),
                ("pages", .array(failure.pages.map(JSON.string))),
            ]
        }
        return .object(members)
    }
}

extension Cut {
    /// One line for people.
    func text(_ verdict: Verdict) -> String {
        var done = "not all interleavings were explored"
        if let runs, let wanted { done = "\(runs) of \(wanted) runs" }
        let judged = verdict == .passed ? ", no forbidden outcome" : ""
        return "cut short by \(reason): \(done)\(judged)"
    }
}

extension BlockReport {
    /// What was looked at, then an outcome a line.
    var lines: [String] {
        let states = states.map { "\($0) states" }
        let what: String
        if let runs {
            let model = states.map { "; the model goes through \($0)" } ?? "; no model judges it"
            what = "\(runs) runs\(model)"
        } else {
            what = (isComplete ? "all" : "some") + " interleavings, \(states ?? "none")"
        }
        return ["line \(line): \(what)"]
            + outcomes.map { outcome in
                var line = "  "
                if let runs, let count = outcome.count {
                    let share = Double(count) / Double(max(runs, 1))
                    line += padded("\(count)", 8) + " " + padded(count == 0 ? "" : percent(share), 9) + "  "
                }
                line += outcome.isFine ? "allowed    " : "FORBIDDEN  "
                line += outcome.text.isEmpty ? "no result has a name" : outcome.text
                if outcome.count == 0 { line += "  (not seen)" }
                if outcome.isAllowed, outcome.isInModel == false { line += "  (the model never comes to it)" }
                return line
            }
    }

    private func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// With as many digits as tell it from nothing.
    private func percent(_ share: Double) -> String {
        let digits = share >= 0.01 ? 10.0 : 1000.0
        return "\((share * 100 * digits).rounded() / digits) %"
    }

    var json: JSON {
        .object([
            ("line", .number(UInt64(line))), ("runs", runs.map { .number(UInt64($0)) } ?? .null),
            ("states", states.map { .number(UInt64($0)) } ?? .null),
            (
                "outcomes",
                .array(
                    outcomes.map { outcome in
                        .object([
                            ("results", .string(outcome.text)),
                            ("count", outcome.count.map { .number(UInt64($0)) } ?? .null),
                            ("allowed", .bool(outcome.isAllowed)),
                            ("in_model", outcome.isInModel.map(JSON.bool) ?? .null),
                        ])
                    })
            ),
        ])
    }
}
