// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM

/// Prints the maps of a sweep: intervals of delays, the outcomes of each, and the kernel functions of the preempted actor.
struct SweepPrinter {
    let out: Terminal
    let test: LitmusTest

    func print(_ map: SweepMap) {
        out.hanging("        ", title(map), indent: 10, used: 8)
        if !map.isExact {
            out.hanging(
                "          ", "The timer of this machine varies, so the delays are approximate (in ns).",
                indent: 10)
        }
        let rows = map.intervals.map { ($0, delays($0.delays, map)) }
        let width = rows.map(\.1.count).max() ?? 0
        for (interval, delays) in rows {
            let margin = String(repeating: " ", count: 10 + width - delays.count)
            let text = outcomes(interval, map)
            let place = place(of: interval, map)
            out.hanging(
                margin + delays + "  ", text + (place.isEmpty ? "" : "  " + out.styled(place, .dim)),
                indent: 14 + width, used: 12 + width)
        }
    }

    /// The command that runs a schedule again.
    func printReplay(_ schedule: Schedule, path: String) {
        out.hanging("        ", "again: minivmm litmus --at \(schedule) \(path)", indent: 10, used: 8)
    }

    /// How a schedule that the test names differs here from what it was written for; nil if it does not.
    func difference(_ maps: [SweepMap]) -> String? {
        for schedule in test.schedules {
            let preemption = schedule.preemption
            guard let map = maps.first(where: { $0.block == schedule.block }) else { continue }
            let swept = schedule.swept
            if swept > map.duration {
                let actor = preemption.second == nil ? preemption.victim : preemption.intruder
                return
                    "\(actor)'s steps end after \(grouped(Int(map.duration))) ns on this kernel, so the delay \(grouped(Int(swept))) preempts nothing"
            }
            let wanted = preemption.outcome
            let here = map.intervals.first { $0.delays.contains(swept) } ?? map.intervals.first
            guard !wanted.isEmpty, let here, !here.outcomes.contains(where: { $0.satisfies(wanted) }) else {
                continue
            }
            if let found = map.intervals.first(where: { $0.outcomes.contains { $0.satisfies(wanted) } }) {
                let (first, last) = (found.delays.lowerBound, found.delays.upperBound)
                return
                    "the schedule's outcome is at \(grouped(Int(first))) to \(grouped(Int(last))) ns in this run, not at \(grouped(Int(swept)))"
            }
            if let first = here.outcomes.first {
                let text = wanted.map { "\($0.result) = \($0.outcome)" }.joined(separator: ", ")
                return
                    "the schedule was written for a kernel with the outcome \(text); this kernel has \(first.text) there"
            }
        }
        return nil
    }

    /// Where the preempted actor was, and whether the other one waited; empty if neither is known.
    func place(of interval: SweepMap.Interval, _ map: SweepMap) -> String {
        let waits = interval.intruderWaits ? "; \(map.intruder) waits for \(map.victim)" : ""
        return interval.functions.isEmpty && waits.isEmpty ? "" : place(interval.functions) + waits
    }

    private func title(_ map: SweepMap) -> String {
        pair(map) + "; \(grouped(map.schedules)) schedules"
    }

    /// Which actor preempts which.
    func pair(_ map: SweepMap) -> String {
        var title = "\(actor(map.victim, map)), preempted by \(actor(map.intruder, map))"
        if let second = map.second {
            let third = second.actor == map.victim ? "\(second.actor)" : actor(second.actor, map)
            title += " at \(grouped(Int(second.firstDelay))), which \(third) preempts"
        }
        return title
    }

    private func outcomes(_ interval: SweepMap.Interval, _ map: SweepMap) -> String {
        interval.outcomes.map { outcome in
            let text = out.styled(outcome.text, outcome.isFine ? .good : .bad)
            return map.isExact ? text : "\(text) (\(grouped(outcome.schedules)))"
        }.joined(separator: map.isExact ? " or " : ", ")
    }

    /// A map as a JSON object: delays in nanoseconds.
    static func json(_ map: SweepMap) -> JSON {
        .object([
            ("block", .number(UInt64(map.block + 1))), ("line", .number(UInt64(map.line))),
            ("victim", .string("\(map.victim)")), ("intruder", .string("\(map.intruder)")),
            (
                "second",
                map.second.map {
                    .object([
                        ("first_delay_ns", .number($0.firstDelay)), ("actor", .string("\($0.actor)")),
                    ])
                } ?? .null
            ),
            ("schedules", .number(UInt64(map.schedules))), ("duration_ns", .number(map.duration)),
            ("exact", .bool(map.isExact)),
            ("intervals", .array(map.intervals.map { json($0, of: map) })),
        ])
    }

    private static func json(_ interval: SweepMap.Interval, of map: SweepMap) -> JSON {
        .object([
            ("from_ns", .number(interval.delays.lowerBound)),
            ("to_ns", .number(interval.delays.upperBound)),
            ("schedule", .string("\(map.schedule(of: interval))")),
            (
                "outcomes",
                .array(
                    interval.outcomes.map {
                        .object([
                            ("outcome", .string($0.text)), ("schedules", .number(UInt64($0.schedules))),
                            ("allowed", .bool($0.isFine)),
                        ])
                    })
            ),
            ("functions", .array(interval.functions.map { .string($0) })),
            ("intruder_waits", .bool(interval.intruderWaits)),
        ])
    }

    private func actor(_ actor: Actor, _ map: SweepMap) -> String {
        let blocks = test.body.compactMap { entry in
            if case .parallel(let block) = entry { block } else { nil }
        }
        guard blocks.indices.contains(map.block) else { return "\(actor)" }
        let steps = blocks[map.block].steps.filter { $0.actor == actor }.map { "\($0.action)" }
        return "\(actor) " + steps.joined(separator: "; ")
    }

    func delays(_ range: ClosedRange<UInt64>, _ map: SweepMap) -> String {
        if range.lowerBound > map.duration { return "after the end" }
        if range.upperBound > map.duration { return "from \(grouped(Int(range.lowerBound)))" }
        return range.count == 1
            ? grouped(Int(range.lowerBound))
            : "\(grouped(Int(range.lowerBound))) ..\(grouped(Int(range.upperBound)))"
    }

    func place(_ functions: [String]) -> String {
        functions.isEmpty ? "in user space" : "in " + functions.prefix(3).joined(separator: " < ")
    }
}
