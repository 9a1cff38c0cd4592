// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM

/// Prints the maps of a sweep: intervals of delays, the outcome of each, and the kernel functions of the victim.
struct SweepPrinter {
    let out: Terminal
    let test: LitmusTest

    func print(_ map: SweepMap) {
        let title =
            "\(actor(map.victim, map)), preempted by \(actor(map.intruder, map)); \(grouped(map.schedules)) schedules"
        out.hanging("        ", title, indent: 10, used: 8)
        if !map.isExact {
            out.hanging(
                "          ", "The timer of this machine varies, so the delays are approximate (in ns).",
                indent: 10)
        }
        let rows = Self.folded(map.intervals).map { ($0, delays($0.delays, map)) }
        let width = rows.map(\.1.count).max() ?? 0
        for (row, delays) in rows {
            let margin = String(repeating: " ", count: 10 + width - delays.count)
            let text = row.outcomes.map { out.styled($0.text, $0.isFine ? .good : .bad) }.joined(
                separator: " or ")
            let place = row.functions.isEmpty ? "" : "  " + out.styled(place(row.functions), .dim)
            out.hanging(margin + delays + "  ", text + place, indent: 14 + width, used: 12 + width)
        }
    }

    /// One line of a printed map.
    struct Row {
        let delays: ClosedRange<UInt64>
        /// More than one where the outcomes alternate within a few nanoseconds, as they do at a border.
        let outcomes: [(text: String, isFine: Bool)]
        let functions: [String]
    }

    /// Intervals narrower than this belong to a border, in nanoseconds.
    private static let narrow: UInt64 = 16

    /// The intervals, with the narrow ones at a border in one row.
    static func folded(_ intervals: [SweepMap.Interval]) -> [Row] {
        var rows: [Row] = []
        var border: [SweepMap.Interval] = []
        func close() {
            guard let first = border.first, let last = border.last else { return }
            var outcomes: [(text: String, isFine: Bool)] = []
            for each in border where !outcomes.contains(where: { $0.text == each.text }) {
                outcomes.append((each.text, each.isFine))
            }
            rows.append(
                Row(
                    delays: first.delays.lowerBound...last.delays.upperBound, outcomes: outcomes,
                    functions: border[border.count / 2].functions))
            border = []
        }
        for interval in intervals {
            if interval.delays.upperBound - interval.delays.lowerBound < narrow {
                border.append(interval)
                continue
            }
            close()
            rows.append(
                Row(
                    delays: interval.delays, outcomes: [(interval.text, interval.isFine)],
                    functions: interval.functions))
        }
        close()
        return rows
    }

    /// A map as a JSON object: delays in nanoseconds.
    static func json(_ map: SweepMap) -> JSON {
        .object([
            ("block", .number(UInt64(map.block + 1))), ("line", .number(UInt64(map.line))),
            ("victim", .string("\(map.victim)")), ("intruder", .string("\(map.intruder)")),
            ("schedules", .number(UInt64(map.schedules))), ("duration_ns", .number(map.duration)),
            ("exact", .bool(map.isExact)),
            (
                "intervals",
                .array(
                    map.intervals.map { interval in
                        .object([
                            ("from_ns", .number(interval.delays.lowerBound)),
                            ("to_ns", .number(interval.delays.upperBound)),
                            ("outcome", .string(interval.text)),
                            ("schedules", .number(UInt64(interval.schedules))),
                            ("functions", .array(interval.functions.map { .string($0) })),
                            ("allowed", .bool(interval.isFine)),
                        ])
                    })
            ),
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

    private func delays(_ range: ClosedRange<UInt64>, _ map: SweepMap) -> String {
        if range.lowerBound > map.duration { return "after the end" }
        if range.upperBound > map.duration { return "from \(grouped(Int(range.lowerBound)))" }
        return range.count == 1
            ? grouped(Int(range.lowerBound))
            : "\(grouped(Int(range.lowerBound))) ..\(grouped(Int(range.upperBound)))"
    }

    private func place(_ functions: [String]) -> String {
        "in " + functions.prefix(3).joined(separator: " < ")
    }
}
