// SPDX-License-Identifier: MIT
extension Comparison {
    /// Text for people, in 80 columns.
    var lines: [String] {
        var lines: [String] = []
        for (letter, kernel) in zip(["A", "B"], kernels) {
            lines += folded("\(letter)  ", kernel.name) + folded("   ", kernel.backend)
        }
        if let costs { lines += [""] + table(costs) }
        if let litmus { lines += [""] + list(litmus) }
        if let explore { lines += [""] + list(explore) }
        lines += ["", same ? "No difference." : "The kernels differ."]
        return lines
    }

    private func table(_ costs: [CostPair]) -> [String] {
        let name = 33
        var lines = [
            left("costs in instructions", name) + right("A", 11) + right("B", 11) + right("B - A", 12)
                + right("%", 11)
        ]
        for cost in costs {
            var line =
                left("  " + cost.key, name) + right(cost.a.map(grouped) ?? "-", 11)
                + right(cost.b.map(grouped) ?? "-", 11)
            if cost.differs, let difference = cost.difference {
                line += right(signed(difference), 12)
                if let a = cost.a, a > 0 { line += right(percent(difference, of: a), 11) }
            } else {
                line += right(cost.differs ? "" : "same", 12)
            }
            lines.append(line.trimmed)
        }
        let shared = costs.filter { $0.difference != nil }
        let different = shared.count(where: \.differs)
        lines += folded(
            "  ",
            "\(different) of \(shared.count) differ: a difference counts if no repetition on one kernel cost what one on "
                + "the other did.")
        let missing = costs.count - shared.count
        if missing > 0 { lines.append("  \(missing) exist on one kernel only.") }
        return lines
    }

    private func list(_ litmus: Litmus) -> [String] {
        var lines = ["litmus tests: \(litmus.differences.count) of \(litmus.tests) are answered differently"]
        for test in litmus.differences {
            lines.append("  \(test.test)")
            for (letter, answer) in [("A", test.a), ("B", test.b)] {
                for (index, line) in answer.enumerated() {
                    lines += folded(index == 0 ? "    \(letter)  " : "       ", line)
                }
            }
            for outcome in test.outcomes {
                let runs = occurrences(outcome.a, outcome.b)
                lines += folded("       ", "line \(outcome.line): \(outcome.results): \(runs)")
            }
        }
        return lines
    }

    private func list(_ explore: Explore) -> [String] {
        let seeds = explore.seeds.map(String.init).joined(separator: " and ")
        let count = explore.findings.count + explore.answers.count
        var lines = ["explored steps, seed \(seeds): \(count == 1 ? "1 difference" : "\(count) differences")"]
        for finding in explore.findings {
            lines += folded("  ", "finding on \(finding.on) only: \(finding.step)")
            lines += folded("    model  ", finding.model) + folded("    seen   ", finding.seen)
            lines += finding.litmus.split(separator: "\n").map { "      \($0)" }
        }
        for answer in explore.answers {
            let runs = occurrences(answer.a, answer.b)
            lines += folded("  ", "\(answer.step) => \(answer.answer): \(runs)")
        }
        return lines
    }
}

/// How often something was seen on each kernel, one of which never had it.
private func occurrences(_ a: Int, _ b: Int) -> String {
    func times(_ count: Int) -> String { count == 1 ? "once" : "\(grouped(count)) times" }
    return a > 0 ? "A \(times(a)), B never" : "A never, B \(times(b))"
}

/// Breaks a text at spaces at column 80; later lines are indented as the first.
func folded(_ start: String, _ text: String) -> [String] {
    var lines: [String] = []
    var line = start
    var isEmpty = true
    for word in text.split(separator: " ") {
        if !isEmpty, line.count + 1 + word.count > 80 {
            lines.append(line)
            line = String(repeating: " ", count: start.count)
            isEmpty = true
        }
        line += (isEmpty ? "" : " ") + word
        isEmpty = false
    }
    return lines + [line]
}

private func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(1, width - text.count))
}

private func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(1, width - text.count)) + text
}

/// With a comma between thousands.
private func grouped<Number: BinaryInteger>(_ number: Number) -> String {
    var text = ""
    for (index, digit) in String(number).reversed().enumerated() {
        if index > 0, index % 3 == 0 { text.append(",") }
        text.append(digit)
    }
    return String(text.reversed())
}

private func signed(_ number: Int64) -> String {
    (number < 0 ? "-" : "+") + grouped(number.magnitude)
}

/// With the sign of the difference, and two decimals below 1,000 %.
private func percent(_ difference: Int64, of whole: UInt64) -> String {
    let hundredths = UInt64((Double(difference.magnitude) * 10_000 / Double(whole)).rounded())
    let sign = difference < 0 ? "-" : "+"
    if hundredths >= 100_000 { return sign + grouped((hundredths + 50) / 100) }
    let decimals = String(hundredths % 100)
    return sign + grouped(hundredths / 100) + "." + (decimals.count == 1 ? "0" : "") + decimals
}

extension String {
    /// Without spaces at the end.
    fileprivate var trimmed: String {
        var text = self
        while text.last == " " { text.removeLast() }
        return text
    }
}
