// SPDX-License-Identifier: MIT
/// Words that somebody may have meant.
package enum NearWords {
    /// How people compare: no case, and `_` for `-`.
    package static func folded(_ text: some StringProtocol) -> String {
        String(text.lowercased().map { $0 == "-" ? "_" : $0 })
    }

    /// Those of the names that somebody may have meant, the nearest first; none for something quite different.
    package static func nearest(to typed: String, among names: [String], limit: Int = 3) -> [String] {
        let typed = String(folded(typed).prefix(64))
        guard !typed.isEmpty else { return [] }
        var seen: Set<String> = []
        return names.map { name -> (name: String, distance: Int) in
            let known = folded(name)
            let contains = typed.count >= 3 && known.contains(typed)
            return (name, contains || known.hasPrefix(typed) ? 0 : distance(typed, known))
        }
        .filter { $0.distance <= max(1, min(typed.count, $0.name.count) / 3) }
        .sorted { ($0.distance, $0.name.count, $0.name) < ($1.distance, $1.name.count, $1.name) }
        .map(\.name).filter { seen.insert($0).inserted }
        .prefix(limit).map { $0 }
    }

    /// Insertions, deletions, replacements and swaps of neighbours that lead from one to the other.
    private static func distance(_ from: String, _ to: String) -> Int {
        let from = Array(from)
        let to = Array(to)
        var before: [Int] = []
        var above = Array(0...to.count)
        for (row, letter) in from.enumerated() {
            var line = [row + 1]
            for (column, other) in to.enumerated() {
                var best = min(
                    above[column + 1] + 1, line[column] + 1, above[column] + (letter == other ? 0 : 1))
                if row > 0, column > 0, letter == to[column - 1], from[row - 1] == other {
                    best = min(best, before[column - 1] + 1)
                }
                line.append(best)
            }
            (before, above) = (above, line)
        }
        return above[to.count]
    }
}
