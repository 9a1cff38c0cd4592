// SPDX-License-Identifier: MIT

/// The number of pages covered by a set of row ranges, where a page in several ranges counts once.
///
/// A segment tree over the rows: adding or removing a range takes time logarithmic in the number of rows.
struct CoveredPages {
    /// The pages before each row, and before the end.
    private let before: [UInt64]
    private let rows: Int
    /// For each node the number of ranges that cover all its rows, without ranges that cover its parent.
    private var ranges: [Int]
    /// For each node the pages that ranges in its subtree cover.
    private var covered: [UInt64]

    init(_ timeline: [Timeline.Row]) {
        rows = timeline.count
        var sum: UInt64 = 0
        var before: [UInt64] = [0]
        for row in timeline {
            sum &+= row.pages
            before.append(sum)
        }
        self.before = before
        ranges = [Int](repeating: 0, count: max(1, 4 * rows))
        covered = [UInt64](repeating: 0, count: max(1, 4 * rows))
    }

    var count: UInt64 { covered[0] }

    /// Adds a range of rows, or removes one that was added.
    ///
    /// - Parameter change: 1 adds, -1 removes.
    mutating func change(_ range: Range<Int>, by change: Int) {
        guard !range.isEmpty, rows > 0 else { return }
        update(0, 0..<rows, range, change)
    }

    private mutating func update(_ node: Int, _ bounds: Range<Int>, _ range: Range<Int>, _ change: Int) {
        guard bounds.overlaps(range) else { return }
        if range.lowerBound <= bounds.lowerBound && bounds.upperBound <= range.upperBound {
            ranges[node] += change
        } else {
            let middle = (bounds.lowerBound + bounds.upperBound) / 2
            update(2 * node + 1, bounds.lowerBound..<middle, range, change)
            update(2 * node + 2, middle..<bounds.upperBound, range, change)
        }
        if ranges[node] > 0 {
            covered[node] = before[bounds.upperBound] &- before[bounds.lowerBound]
        } else {
            covered[node] = bounds.count == 1 ? 0 : covered[2 * node + 1] &+ covered[2 * node + 2]
        }
    }
}
