// SPDX-License-Identifier: MIT
/// The states of rows as runs of equal state. Each run is identified by its first row, and has the event that began it.
///
/// Setting a range takes time proportional to the number of runs that it ends, so the time for a trace is proportional to its
/// number of events.
struct PageRuns {
    private var starts: [UInt64]
    private var state: [PageState]
    private var since: [Int32]
    private let count: Int

    /// The state of a row without overlays.
    enum PageState: UInt8 {
        case unallocated, shared, `private`
    }

    init(rows: Int) {
        count = rows
        starts = [UInt64](repeating: 0, count: rows / 64 + 1)
        state = [PageState](repeating: .unallocated, count: rows)
        since = [Int32](repeating: 0, count: rows)
        if rows > 0 { mark(0) }
    }

    private mutating func mark(_ row: Int) { starts[row >> 6] |= 1 << UInt64(row & 63) }

    private func firstStart(atOrBefore row: Int) -> Int {
        var word = row >> 6
        var bits = starts[word] & (~0 >> UInt64(63 - row & 63))
        while bits == 0 {
            word -= 1
            bits = starts[word]
        }
        return word << 6 + 63 - bits.leadingZeroBitCount
    }

    private func nextStart(after row: Int) -> Int {
        guard row + 1 < count else { return count }
        var word = (row + 1) >> 6
        var bits = starts[word] & (~0 << UInt64((row + 1) & 63))
        while bits == 0 {
            word += 1
            if word == starts.count { return count }
            bits = starts[word]
        }
        return min(count, word << 6 + bits.trailingZeroBitCount)
    }

    /// Splits the run that contains `row`, so that a run begins there.
    private mutating func split(_ row: Int) {
        guard row < count else { return }
        let start = firstStart(atOrBefore: row)
        guard start != row else { return }
        state[row] = state[start]
        since[row] = since[start]
        mark(row)
    }

    /// Sets the state of `rows` from an event on, and calls `ended` with the rows, state and first event of each run that
    /// this ends.
    mutating func set(
        _ rows: Range<Int>, to new: PageState, at event: Int32, ended: (Range<Int>, PageState, Int32) -> Void
    ) {
        guard !rows.isEmpty else { return }
        let first = firstStart(atOrBefore: rows.lowerBound)
        // The rows have this state already.
        if state[first] == new, nextStart(after: first) >= rows.upperBound { return }
        split(rows.lowerBound)
        split(rows.upperBound)
        var start = rows.lowerBound
        while start < rows.upperBound {
            let next = nextStart(after: start)
            ended(start..<next, state[start], since[start])
            starts[start >> 6] &= ~(1 << UInt64(start & 63))
            start = next
        }
        mark(rows.lowerBound)
        state[rows.lowerBound] = new
        since[rows.lowerBound] = event
    }

    /// Calls `body` with each run in ascending order.
    func visit(_ body: (Range<Int>, PageState, Int32) -> Void) {
        var start = 0
        while start < count {
            let next = nextStart(after: start)
            body(start..<next, state[start], since[start])
            start = next
        }
    }
}
