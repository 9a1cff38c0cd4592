// SPDX-License-Identifier: MIT
/// Suggestions for misspelt words.
package enum NearWords {
    /// The text in lower case, with `_` for `-`.
    package static func folded(_ text: some StringProtocol) -> String {
        String(text.lowercased().map { $0 == "-" ? "_" : $0 })
    }

    /// Up to `limit` names that resemble the typed word, the most similar first. A word within a name counts like the
    /// whole name, so that `bsy` finds `busy-names-highest`.
    package static func nearest(to typed: String, among names: [String], limit: Int = 3) -> [String] {
        let typed = String(folded(typed).prefix(64))
        guard !typed.isEmpty else { return [] }
        var seen: Set<String> = []
        return names.map { name -> (name: String, distance: Int) in
            let known = folded(name)
            let contains = typed.count >= 3 && isPart(typed, of: known)
            if contains || known.hasPrefix(typed) { return (name, 0) }
            let words =
                known.contains("_") && typed.count >= 3
                ? known.split(separator: "_").filter { $0.count >= 3 }.map(String.init) : []
            let distances = ([known] + words).map { (word: $0, distance: distance(typed, $0)) }
                .filter { $0.distance <= max(1, min(typed.count, $0.word.count) / 3) }
            return (name, distances.map { $0.distance }.min() ?? .max)
        }
        .filter { $0.distance < .max }
        .sorted { ($0.distance, $0.name.count, $0.name) < ($1.distance, $1.name.count, $1.name) }
        .map { $0.name }.filter { seen.insert($0).inserted }
        .prefix(limit).map { $0 }
    }

    /// An ending for an error message with the most similar words: `; did you mean a or b?`. Empty if none is similar.
    package static func suggestion(for typed: String, among names: [String]) -> String {
        let near = nearest(to: typed, among: names)
        return near.isEmpty ? "" : "; did you mean \(near.joined(separator: " or "))?"
    }

    private static func isPart(_ part: String, of text: String) -> Bool {
        let (part, text) = (Array(part.utf8), Array(text.utf8))
        guard part.count <= text.count else { return false }
        return (0...text.count - part.count).contains { text[$0..<$0 + part.count].elementsEqual(part) }
    }

    /// The Damerau-Levenshtein distance: insertions, deletions, replacements and swaps of neighbours.
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
