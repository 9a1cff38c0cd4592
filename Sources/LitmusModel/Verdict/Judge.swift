// SPDX-License-Identifier: MIT
import ConversionModel

/// Reports on a test with parallel blocks.
package struct Judge {
    package let source: Source
    package let program: Program

    package init(_ source: Source) {
        self.source = source
        program = Program(source.test)
    }

    /// Reports on all endings of an exploration.
    package func report(exact: Interleavings.Result) -> Report {
        var report = Report(
            verdict: .passed, cut: exact.cut.map { Cut(reason: $0, runs: nil, wanted: nil) })
        if let cut = exact.cut, exact.endings.isEmpty {
            report.verdict = .skipped("\(cut) before any interleaving was complete")
            return report
        }
        // Every interleaving returns to an earlier state. No kernel that keeps the rules does that.
        if exact.endings.isEmpty {
            report.verdict = .failed(
                Failure(.machine(reason: "no interleaving ends: every one returns to an earlier state")))
            return report
        }
        if let failure = exact.endings.compactMap({ $0.failure }).min(by: { ($0.step ?? 0) < ($1.step ?? 0) })
        {
            report.verdict = .failed(failure)
        }
        for block in program.blocks {
            let outcomes = complete(exact.endings, block)
            let rows = outcomes.map { outcome in
                BlockReport.Outcome(
                    results: block.list(outcome), count: nil, isAllowed: block.allows(outcome),
                    isInModel: true, order: exact.order(of: outcome, block), isNamed: block.names(outcome))
            }
            add(block, rows.sorted { $0.text < $1.text }, runs: nil, states: exact.states, to: &report)
            // In a part of the interleavings a required outcome may be absent.
            guard case .passed = report.verdict, exact.cut == nil,
                let clause = block.unmet(in: outcomes).first
            else { continue }
            report.verdict = .failed(failure(block, .missing(clause)))
        }
        return report
    }

    /// Reports on the outcomes seen in some runs.
    ///
    /// - Parameter seen: how often each outcome of each block was seen.
    package func report(
        seen: [[[Name: StepOutcome]: Int]], runs: Int, model: Interleavings.Result?, failure: Failure?,
        cut: Cut? = nil
    ) -> Report {
        var report = Report(verdict: failure.map(Verdict.failed) ?? .passed, cut: cut)
        for (block, counts) in zip(program.blocks, seen) {
            let known = model.map { complete($0.endings, block) }
            var rows = counts.map { outcome, count in
                BlockReport.Outcome(
                    results: block.list(outcome), count: count, isAllowed: block.allows(outcome),
                    isInModel: known.map { $0.contains(outcome) }, order: model?.order(of: outcome, block),
                    isNamed: block.names(outcome))
            }
            for outcome in known ?? [] where counts[outcome] == nil {
                rows.append(
                    BlockReport.Outcome(
                        results: block.list(outcome), count: 0, isAllowed: block.allows(outcome),
                        isInModel: true, order: model?.order(of: outcome, block),
                        isNamed: block.names(outcome)))
            }
            rows.sort { ($1.count ?? 0, $0.text) < ($0.count ?? 0, $1.text) }
            add(block, rows, runs: runs, states: model?.states, to: &report)
        }
        return report
    }

    /// The outcomes of a block in those endings in which the block completed.
    package func complete(_ endings: Set<Ending>, _ block: Program.Block) -> Set<[Name: StepOutcome]> {
        Set(endings.lazy.map(block.results(of:)).filter { $0.count == block.results.count })
    }

    private func add(
        _ block: Program.Block, _ rows: [BlockReport.Outcome], runs: Int?, states: Int?,
        to report: inout Report
    ) {
        report.blocks.append(
            BlockReport(
                line: source.places[block.first].line, runs: runs, states: states,
                isComplete: report.cut == nil, outcomes: rows))
        guard case .passed = report.verdict else { return }
        guard let wrong = rows.first(where: { !$0.isFine && $0.count != 0 }) else { return }
        report.verdict = .failed(
            failure(
                block,
                .outcome(
                    wrong.results, against: wrong.isAllowed ? .model : .test, count: wrong.count, runs: runs))
        )
    }

    private func failure(_ block: Program.Block, _ deviation: Failure.Deviation) -> Failure {
        Failure(deviation, step: block.first, line: source.places[block.first].line)
    }
}

extension Interleavings.Result {
    fileprivate func order(of outcome: [Name: StepOutcome], _ block: Program.Block) -> WitnessOrder? {
        orders.indices.contains(block.number) ? orders[block.number][outcome] : nil
    }
}
