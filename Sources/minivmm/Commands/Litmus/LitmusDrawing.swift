// SPDX-License-Identifier: MIT
import Backends
import Litmus
import MiniVMM
import Report

extension LitmusCommand {
    /// Draws the map of a sweep, or the recorded run.
    ///
    /// - Parameters:
    ///   - numbered: the files.
    ///   - recorder: nil if no run was recorded.
    func draw(
        _ item: Item, _ numbered: PictureOptions, _ recorder: LitmusRecorder?, _ chosen: ChosenBackend
    ) throws {
        let name = item.shortName
        if !item.report.maps.isEmpty {
            let words = SweepPrinter(out: .output, test: item.source.test)
            let chart = ScheduleChart(
                item.report.maps, title: "\(name): \(item.source.test.name)",
                backend: "\(chosen.backend.identity)", words)
            try numbered.draw(chart)
        } else if pictures.isWanted, recorder == nil {
            Terminal.diagnostics.hanging(
                "", "\(name): no schedules were run, so no map was drawn.", indent: 0)
        }
        guard let recorder else { return }
        if let witness = item.witness, !recorder.hasNotable {
            if let runs = item.report.blocks.first?.runs {
                let done = runs == 1 ? "1 run" : "\(grouped(runs)) runs"
                Terminal.diagnostics.hanging(
                    "",
                    "\(witness.text) did not occur in \(done): no picture was drawn. More --runs may show it; "
                        + "--backend soft draws an order of the model.", indent: 0)
            }
            return
        }
        _ = try recorder.draw(numbered, title: item.witness.map { "\(name): \($0.text)" } ?? name)
    }
}
