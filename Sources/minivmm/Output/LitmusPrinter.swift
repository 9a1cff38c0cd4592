// SPDX-License-Identifier: MIT
import Backends
import Litmus
import MiniVMM

/// Prints the results of litmus tests as KTAP (Documentation/dev-tools/ktap.rst), which the kernel's own tools read, as
/// JSON, as JUnit XML or as text.
struct LitmusPrinter: Sendable {
    let format: LitmusCommand.Format
    let chosen: ChosenBackend
    private var out: Terminal { .output }
    private let line = ProgressLine(.diagnostics)

    init(format: LitmusCommand.Format, chosen: ChosenBackend) {
        self.format = format
        self.chosen = chosen
    }

    /// Shows how many runs of a test with parallel blocks are done. Nil is an unknown number.
    func progress(_ name: String, _ done: Int, of runs: Int?) {
        line.show { "\(name)  \(grouped(done))\(runs.map { " of \(grouped($0))" } ?? "") runs" }
    }

    func endProgress() { line.clear() }

    func begin(_ items: [LitmusCommand.Item]) {
        let notices = items.modelNotices
        switch format {
        case .ktap:
            out.print("KTAP version 1")
            for line in [chosen.line] + notices { out.print("# \(line)") }
            out.print("1..\(items.count)")
        case .json, .junit: break
        case .text:
            let diagnostics = Terminal.diagnostics
            diagnostics.hanging(diagnostics.styled("backend  ", .dim), chosen.line, indent: 9)
            for notice in notices { diagnostics.hanging("         ", notice, indent: 9) }
        }
    }

    /// Announces a test, and prints its steps while it runs. JSON and XML are one document at the end, so with them the
    /// steps go to standard error.
    func steps(of item: LitmusCommand.Item) -> LitmusStepPrinter {
        let title = "\(item.shortName): \(item.source.test.name)"
        switch format {
        case .ktap:
            out.print("# running \(Self.plain(title))")
            return LitmusStepPrinter(out, prefix: "# ", item.source, line)
        case .text:
            out.print(out.styled("running ", .dim) + title)
            return LitmusStepPrinter(out, prefix: "", item.source, line)
        case .json, .junit:
            let diagnostics = Terminal.diagnostics
            diagnostics.print(diagnostics.styled("running ", .dim) + title)
            return LitmusStepPrinter(diagnostics, prefix: "", item.source, line)
        }
    }

    func ran(_ item: LitmusCommand.Item, number: Int) {
        switch format {
        case .ktap: ktap(item, number)
        case .json, .junit: break
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
        // Terminal.print would escape tabs.
        case .junit: out.put(Array(JUnitReport(items: items, chosen: chosen).document.utf8))
        case .text:
            let cut = cutShort(items)
            let summary =
                "\(passed) passed, \(failed) failed, \(skipped) skipped"
                + (errors > 0 ? ", \(errors) not known: the host failed" : "")
                + (cut > 0 ? "; \(cut) cut short" : "") + FailurePrinter.summary(items.map(\.report))
            out.print(out.styled(summary, failed > 0 ? .bad : passed > 0 ? .good : .dim))
        }
    }

    /// KTAP has diagnostics before the line of the result. A `#` in a name or a reason would look like a directive.
    private func ktap(_ item: LitmusCommand.Item, _ number: Int) {
        let name = Self.plain(item.shortName)
        if let cut = item.report.cut { out.print("# \(cut.text(item.verdict))") }
        for line in item.report.blocks.flatMap(\.lines) { out.print("# \(line)") }
        for line in FailurePrinter(out: out, item: item).lines { out.print("# \(Self.plain(line.text))") }
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
        for block in item.report.blocks { text(block, of: item.source.test) }
        if let reason = item.report.sweepAbsence {
            out.hanging("        ", "no sweep: \(reason).", indent: 10, used: 8)
        }
        let sweep = SweepPrinter(out: out, test: item.source.test)
        for map in item.report.maps { sweep.print(map) }
        if item.report.secondSchedules > 0, !item.report.maps.contains(where: { $0.second != nil }) {
            let count = grouped(item.report.secondSchedules)
            out.hanging(
                "        ", "\(count) schedules with a second preemption have no other outcome.", indent: 10,
                used: 8)
        }
        if let difference = sweep.difference(item.report.maps) {
            out.hanging("        ", "note: \(difference).", indent: 10, used: 8)
        }
        if let schedule = item.report.schedule {
            sweep.printReplay(schedule, path: ByteText.visible(item.path))
        }
        FailurePrinter(out: out, item: item).print()
        if let (block, outcome) = item.selected { steps(of: outcome, in: block, item.source.test) }
    }

    /// A block: what was done, then each outcome with an order that leads to it.
    private func text(_ block: BlockReport, of test: LitmusTest) {
        let lines = block.lines
        out.hanging("        ", lines[0], indent: 8)
        let column = block.runs == nil ? 21 : 12
        let margin = String(repeating: " ", count: column)
        let label = block.runs == nil ? "order: " : "order in the model: "
        var left = (shown: 16, folded: 0)
        for (line, outcome) in zip(lines.dropFirst(), block.outcomes) {
            guard left.shown > 0 || !outcome.isFine else {
                left.folded += 1
                continue
            }
            left.shown -= 1
            let style: Terminal.Style = outcome.isFine ? outcome.count == 0 ? .dim : .good : .bad
            out.hanging("        ", out.styled(line, style), indent: 12, used: 8)
            guard let order = outcome.order else { continue }
            let words = (label + order.text(of: test)).split(separator: " ")
            out.hanging(
                margin, words.map { out.styled(String($0), .dim) }.joined(separator: " "), indent: column)
        }
        if left.folded > 0 { out.print("          … and \(left.folded) more; --format json has all") }
    }

    /// The order that leads to an outcome, step by step.
    private func steps(of outcome: BlockReport.Outcome, in block: BlockReport, _ test: LitmusTest) {
        guard let order = outcome.order else { return }
        let place = block.runs == nil ? "This order leads" : "In the model of Linux 7.4 this order leads"
        out.hanging("        ", "\(place) to \(outcome.text):", indent: 8)
        let texts = order.turns.map { test.steps[$0.step].text }
        let width = min(texts.map(\.count).max() ?? 0, 34)
        for (index, (turn, text)) in zip(order.turns, texts).enumerated() {
            let number = String(index + 1)
            let start = String(repeating: " ", count: max(0, 12 - number.count)) + number + "  " + text
            let padded = start + String(repeating: " ", count: max(0, width - text.count)) + "  "
            out.hanging(padded, turn.text, indent: width + 16, used: padded.count)
        }
    }
}

extension [LitmusCommand.Item] {
    /// The notices that a model answers for the SNP and TDX VMs of the tests, each once: `vm snp: model of SNP, …`.
    var modelNotices: [String] {
        let types = reduce(into: [VMType]()) { types, item in
            if !types.contains(item.source.test.vm) { types.append(item.source.test.vm) }
        }
        return types.compactMap { type in type.modelNotice.map { "vm \(VMName(type).rawValue): \($0)" } }
    }
}

extension WitnessOrder.Turn {
    /// The pieces of the turn: `begins: takes a reference`, or `ends: copies a page; 0x41`.
    fileprivate var text: String {
        var groups: [(text: String, count: Int)] = []
        for piece in pieces {
            if groups.last?.text == piece {
                groups[groups.count - 1].count += 1
            } else {
                groups.append((piece, 1))
            }
        }
        let done = groups.map { $0.count == 1 ? $0.text : "\($0.text) (\($0.count) times)" }
            .joined(separator: ", ")
        let start = part == .whole ? done : done.isEmpty ? part.rawValue : "\(part.rawValue): \(done)"
        guard let outcome else { return start }
        return start.isEmpty ? "\(outcome)" : "\(start) => \(outcome)"
    }

    fileprivate func json(_ source: Source) -> JSON {
        let step = source.test.steps[step]
        return .object([
            ("line", .number(UInt64(source.places[self.step].line))), ("step", .string(step.text)),
            ("result", step.result.map { .string($0.description) } ?? .null),
            ("part", .string(part.rawValue)),
            ("pieces", .array(pieces.map(JSON.string))),
            ("outcome", outcome.map { .string("\($0)") } ?? .null),
        ])
    }
}

extension LitmusCommand.Item {
    fileprivate var json: JSON {
        var members: [(String, JSON)] = [
            ("file", .string(path)), ("name", .string(source.test.name)),
            ("hazards", .array(source.test.hazards.map { .string($0.description) })),
            ("verdict", .string(verdict.word)),
        ]
        if let notice = source.test.vm.modelNotice { members.append(("model", .string(notice))) }
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
        if !report.maps.isEmpty { members.append(("sweep", .array(report.maps.map(SweepPrinter.json)))) }
        if report.secondSchedules > 0 {
            members.append(("second_preemptions", .number(UInt64(report.secondSchedules))))
        }
        if let schedule = report.schedule { members.append(("schedule", .string("\(schedule)"))) }
        if let reason = report.sweepAbsence { members.append(("no_sweep", .string(reason))) }
        if !report.failures.isEmpty {
            members.append(("failures", .array(report.failures.map { FailurePrinter.json($0, source) })))
        }
        if !report.blocks.isEmpty {
            members.append(("blocks", .array(report.blocks.map { $0.json(source, witness) })))
        }
        switch verdict {
        case .passed: break
        case .skipped(let reason): members.append(("reason", .string(reason)))
        case .hostFailed(let failure): members.append(("reason", .string(failure.description)))
        case .failed(let failure):
            members += [
                ("line", failure.line.map { .number(UInt64($0)) } ?? .null), ("step", .string(failure.text)),
                ("expected", .string(failure.expected)), ("seen", .string(failure.seen)),
                ("model", failure.model.map { .string($0.word) } ?? .null),
                ("model_text", failure.modelText.map(JSON.string) ?? .null),
                ("pages", .array(failure.pages.map(JSON.string))),
            ]
            if let injected = failure.injected {
                members.append(("fail_at", .string(injected.point.description)))
                members.append(("replay", .string(FailurePrinter.replay(injected, path))))
            }
        }
        return .object(members)
    }
}

extension Cut {
    /// One line for people.
    func text(_ verdict: Verdict) -> String {
        "\(self)" + (runs == nil ? "; not all interleavings were explored" : "")
            + (verdict == .passed ? "; no forbidden outcome seen" : "")
    }
}

extension BlockReport {
    /// The number of runs or states, then one line for each outcome.
    var lines: [String] {
        let count = states.map { $0 == 1 ? "1 state" : "\(grouped($0)) states" }
        let what: String
        if let runs {
            let model = count.map { "; the model has \($0)" } ?? "; no model judges it"
            what = (runs == 1 ? "1 run" : "\(grouped(runs)) runs") + model
        } else {
            what = (isComplete ? "all" : "some") + " interleavings explored, \(count ?? "no states")"
        }
        return ["line \(line): \(what)"]
            + outcomes.map { outcome in
                var line = "  "
                if let runs, let count = outcome.count {
                    let share = Double(count) / Double(max(runs, 1))
                    line += padded("\(count)", 8) + " " + padded(count == 0 ? "" : percent(share), 9) + "  "
                }
                line += outcome.isFine ? "allowed    " : "FORBIDDEN  "
                line += outcome.text.isEmpty ? "no named results" : outcome.text
                if outcome.count == 0 { line += "  (not seen)" }
                if outcome.isAllowed, outcome.isInModel == false { line += "  (never in the model)" }
                return line
            }
    }

    private func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// With enough digits that a rare outcome is not 0.
    private func percent(_ share: Double) -> String {
        let digits = share >= 0.01 ? 10.0 : 1000.0
        return "\((share * 100 * digits).rounded() / digits) %"
    }

    fileprivate func json(_ source: Source, _ witness: OutcomePattern?) -> JSON {
        .object([
            ("line", .number(UInt64(line))), ("runs", runs.map { .number(UInt64($0)) } ?? .null),
            ("states", states.map { .number(UInt64($0)) } ?? .null),
            ("orders_from", .string(runs == nil ? "backend" : "model")),
            (
                "outcomes",
                .array(
                    outcomes.map { outcome in
                        let members: [(String, JSON)] = [
                            ("results", .string(outcome.text)),
                            ("count", outcome.count.map { .number(UInt64($0)) } ?? .null),
                            ("allowed", .bool(outcome.isAllowed)),
                            ("in_model", outcome.isInModel.map(JSON.bool) ?? .null),
                            (
                                "order",
                                outcome.order.map { .array($0.turns.map { $0.json(source) }) } ?? .null
                            ),
                        ]
                        let selected = witness.map { [("selected", JSON.bool($0.matches(outcome.results)))] }
                        return .object(members + (selected ?? []))
                    })
            ),
        ])
    }
}
