// SPDX-License-Identifier: MIT
/// Numbers and words from outside.
enum Words {
    /// Decimal or `0x` hex, with K, M, G or T for powers of 1024; nil if it is no number of 64 bits.
    static func number(_ text: some StringProtocol) -> UInt64? {
        let folded = text.lowercased()
        if folded.hasPrefix("0x") {
            let digits = folded.dropFirst(2)
            // The parser takes a sign; an address has none.
            return digits.first?.isHexDigit == true ? UInt64(digits, radix: 16) : nil
        }
        guard folded.first?.isNumber == true, let last = folded.last else { return nil }
        guard let power = ["k", "m", "g", "t"].firstIndex(of: String(last)) else { return UInt64(folded) }
        guard let value = UInt64(folded.dropLast()) else { return nil }
        let (bytes, overflow) = value.multipliedReportingOverflow(by: 1 << (10 * UInt64(power + 1)))
        return overflow ? nil : bytes
    }

    /// How people compare: no case, and `_` for `-`.
    static func folded(_ text: some StringProtocol) -> String {
        String(text.lowercased().map { $0 == "-" ? "_" : $0 })
    }

    /// Those of the names that somebody may have meant, the nearest first.
    static func nearest(to typed: String, among names: [String], limit: Int = 3) -> [String] {
        let typed = String(folded(typed).prefix(64))
        guard !typed.isEmpty else { return [] }
        var seen: Set<String> = []
        return names.map { name -> (name: String, distance: Int) in
            let known = folded(name)
            let contains = typed.count >= 3 && known.contains(typed)
            return (name, contains ? 0 : distance(typed, known))
        }
        .filter { $0.distance <= max(1, min(typed.count, $0.name.count) / 3) }
        .sorted { ($0.distance, $0.name.count, $0.name) < ($1.distance, $1.name.count, $1.name) }
        .map(\.name).filter { seen.insert($0).inserted }
        .prefix(limit).map { $0 }
    }

    /// Insertions, deletions and replacements that lead from one to the other.
    private static func distance(_ from: String, _ to: String) -> Int {
        let to = Array(to)
        var above = Array(0...to.count)
        for (row, letter) in from.enumerated() {
            var line = [row + 1]
            for (column, other) in to.enumerated() {
                line.append(
                    min(above[column + 1] + 1, line[column] + 1, above[column] + (letter == other ? 0 : 1)))
            }
            above = line
        }
        return above[to.count]
    }

    /// `0x` and hex digits, as addresses are written.
    static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    /// `1 page`, `4 pages`.
    static func count(_ value: UInt64, _ noun: String) -> String {
        "\(value) \(noun)\(value == 1 ? "" : "s")"
    }
}
