// SPDX-License-Identifier: MIT
import MiniVMM

extension Bench {
    /// A line of the result.
    struct Row {
        let name: String
        /// The measured value, in `unit`.
        let value: Double
        let unit: String
        /// The value of the C loop, if there is one.
        var baseline: Double?
        /// An upper bound of the ratio if there is a baseline, else of the value; negative for a lower bound.
        var bound: Double?
        /// The share of the time of the last row without a share.
        var share: Double?

        var ratio: Double? { baseline.map { value / $0 } }
        var holds: Bool? {
            bound.map { bound in
                let measured = ratio ?? value
                return bound < 0 ? measured >= -bound : measured <= bound
            }
        }
    }

    func printText(_ rows: [Row], _ backend: String) {
        let terminal = Terminal.output
        terminal.print(terminal.styled("backend", .bold) + "  \(backend)")
        let width = rows.map(\.name.count).max() ?? 0
        for row in rows {
            let name = row.name + String(repeating: " ", count: width - row.name.count)
            var text = "\(name)  \(rounded(row.value)) \(row.unit)"
            if let share = row.share { text += ", \(rounded(share * 100, 1)) %" }
            if let ratio = row.ratio, let baseline = row.baseline {
                text += ", C \(rounded(baseline)), ratio \(rounded(ratio, 3))"
            }
            if let bound = row.bound, let holds = row.holds {
                let sign = bound < 0 ? "≥" : "≤"
                text +=
                    "  "
                    + terminal.styled(
                        "\(sign) \(rounded(abs(bound)))" + (holds ? "" : " EXCEEDED"), holds ? .good : .bad)
            }
            terminal.print(text)
        }
    }

    func printJSON(_ rows: [Row], _ backend: String) {
        Terminal.output.print(
            JSON.object([
                ("schema", .string("minivmm.bench/1")), ("backend", .string(backend)),
                ("rounds", .number(UInt64(roundsOfTimes))),
                (
                    "rows",
                    .array(
                        rows.map { row in
                            .object([
                                ("name", .string(row.name)), ("value", .real(row.value)),
                                ("unit", .string(row.unit)),
                                ("c", row.baseline.map { .real($0) } ?? .null),
                                ("share", row.share.map { .real($0) } ?? .null),
                                ("ratio", row.ratio.map { .real($0) } ?? .null),
                                ("bound", row.bound.map { .real(abs($0)) } ?? .null),
                                ("holds", row.holds.map { .bool($0) } ?? .null),
                            ])
                        })
                ),
            ]).text)
    }
}

/// A number with `digits` decimals, fewer for large ones.
private func rounded(_ value: Double, _ digits: Int = 2) -> String {
    if value >= 10_000 { return String(Int(value)) }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let text = String((value * scale).rounded() / scale)
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
}
