// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import Report

extension ScheduleChart {
    /// The maps of a sweep as a drawing.
    ///
    /// - Parameter words: prints maps of the same test.
    init(_ maps: [SweepMap], title: String, backend: String, _ words: SweepPrinter) {
        let isExact = maps.allSatisfy(\.isExact)
        self.init(
            title: ByteText.visible(title), backend: ByteText.visible(backend),
            unit: isExact
                ? "Delays in ns; the clock advances by 1 ns with each instruction."
                : "Delays in ns, approximate: the timer of this machine varies.",
            strips: maps.map { map in
                Strip(
                    words.pair(map), note: "\(grouped(map.schedules)) schedules",
                    bands: map.intervals.map { interval in
                        let last = min(
                            interval.delays.upperBound, max(map.duration, interval.delays.lowerBound))
                        return Band(
                            interval.delays.lowerBound...last, label: words.delays(interval.delays, map),
                            outcomes: interval.outcomes.map {
                                Outcome($0.text, isAllowed: $0.isFine, count: $0.schedules)
                            },
                            place: words.place(of: interval, map), waits: interval.intruderWaits)
                    })
            })
    }
}
