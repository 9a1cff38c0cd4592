import Litmus
import MiniVMM

/// The results of litmus tests: KTAP (Documentation/dev-tools/ktap.rst) for the kernel's own tools, JSON, text.
struct LitmusPrinter {
    let format: LitmusCommand.Format
    let chosen: ChosenKernel
    private var out: Terminal { .output }

    func begin(_ count: Int) {
        switch format {
        case .ktap:
            out.print("KTAP version 1")
            out.print("# \(chosen.line)")
            out.print("1..\(count)")
        case .json: break
        case .text:
            let diagnostics = Terminal.diagnostics
            diagnostics.hanging(diagnostics.styled("kernel  ", .dim), chosen.line, indent: 8)
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

    /// Schema `minivmm.litmus/1`.
    func json(_ items: [LitmusCommand.Item]) -> String {
        let (passed, failed, skipped) = counts(items)
        return JSON.object([
            ("schema", .string("minivmm.litmus/1")),
            ("kernel", .string(chosen.kernel.identity.name)),
            ("host", .string(chosen.kernel.identity.host)), ("reason", .string(chosen.reason)),
            ("passed", .number(UInt64(passed))), ("failed", .number(UInt64(failed))),
            ("skipped", .number(UInt64(skipped))), ("tests", .array(items.map(\.json))),
        ]).text
    }

    func end(_ items: [LitmusCommand.Item]) {
        let (passed, failed, skipped) = counts(items)
        switch format {
        case .ktap:
            out.print("# Totals: pass:\(passed) fail:\(failed) xfail:0 xpass:0 skip:\(skipped) error:0")
        case .json: out.print(json(items))
        case .text:
            let summary = "\(passed) passed, \(failed) failed, \(skipped) skipped"
            out.print(out.styled(summary, failed > 0 ? .bad : passed > 0 ? .good : .dim))
        }
    }

    /// Diagnostics stand before the line of the result; what a name or a reason contains must not look like a directive.
    private func ktap(_ item: LitmusCommand.Item, _ number: Int) {
        let name = Self.plain(item.shortName)
        for line in item.report.blocks.flatMap(\.lines) { out.print("# \(line)") }
        switch item.verdict {
        case .passed: out.print("ok \(number) \(name)")
        case .skipped(let reason): out.print("ok \(number) \(name) # SKIP \(Self.plain(reason))")
        case .failed(let failure):
            for line in [item.path + ": " + item.source.test.name] + failure.lines { out.print("# \(line)") }
            out.print("not ok \(number) \(name)")
        }
    }

    private static func plain(_ text: String) -> String {
        let kept = text.unicodeScalars.map { $0 == "#" || $0.value < 0x20 ? "_" : $0 }
        return String(String.UnicodeScalarView(kept))
    }

    private func text(_ item: LitmusCommand.Item) {
        let name = "\(item.shortName): \(item.source.test.name)"
        switch item.verdict {
        case .passed: out.print(out.styled("passed  ", .good) + name)
        case .skipped(let reason):
            out.print(out.styled("skipped ", .dim) + name)
            out.print("        \(reason)")
        case .failed(let failure):
            out.print(out.styled("failed  ", .bad) + name)
            let place = failure.line.map { "\(item.path):\($0)" } ?? item.path
            out.print("        \(place): \(failure.text)")
            for line in failure.lines.dropFirst() { out.print("          \(line)") }
        }
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
        if !report.blocks.isEmpty { members.append(("blocks", .array(report.blocks.map(\.json)))) }
        switch verdict {
        case .passed: break
        case .skipped(let reason): members.append(("reason", .string(reason)))
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

extension BlockReport {
    /// What was looked at, then an outcome a line.
    var lines: [String] {
        let states = states.map { "\($0) states" }
        let what: String
        if let runs {
            let model = states.map { "; the model goes through \($0)" } ?? "; no model judges it"
            what = "\(runs) runs\(model)"
        } else {
            what = "all interleavings, \(states ?? "none")"
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
