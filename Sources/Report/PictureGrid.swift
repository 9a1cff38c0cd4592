// SPDX-License-Identifier: MIT
/// The page timeline reduced to a grid of bounded size.
struct PictureGrid {
    /// Neighbouring cells of a band in the same state.
    struct Run: Hashable {
        let band: Int
        /// In events.
        let columns: Range<Double>
        let state: Timeline.State
    }

    /// Number of rows of cells.
    let bands: Int
    /// Whether each band is one row of the timeline. Otherwise several rows share a band.
    let isExact: Bool
    /// In drawing units.
    let height: Double
    private let rows: [Timeline.Row]
    private let tops: [Double]
    private let columns: Int
    private let events: Int
    /// For each cell the raw value of its page state, and of its overlay; 255 without an overlay.
    private var base: [UInt8]
    private var over: [UInt8]
    /// While painting: the share of each cell in each state, as differences between neighbouring cells.
    private var change: [[Float]]

    static let mostColumns = 600
    static let mostBands = 160

    init(_ timeline: Timeline, events: Int) {
        rows = timeline.rows
        self.events = max(1, events)
        columns = min(self.events, Self.mostColumns)
        isExact = rows.count <= Self.mostBands
        bands = min(rows.count, Self.mostBands)
        var tops = [0.0]
        if isExact {
            let total = rows.reduce(0) { $0 + $1.weight }
            let unit = min(22, 640 / max(1, total))
            for row in rows { tops.append((tops.last ?? 0) + row.weight * unit) }
        } else {
            tops = (0...bands).map { Double($0) * 4 }
        }
        self.tops = tops
        height = max(18, tops.last ?? 0)
        base = [UInt8](repeating: 0, count: bands * columns)
        over = [UInt8](repeating: 255, count: bands * columns)
        change = [[Float]](repeating: [Float](repeating: 0, count: bands * (columns + 2)), count: 3)
        for state in Timeline.State.allCases.sorted(by: { $0.paintOrder < $1.paintOrder }) {
            for segment in timeline.segments where segment.state == state { paint(segment) }
        }
        fillBase()
        change = []
    }

    private func rowsOf(_ band: Int) -> Range<Int> {
        isExact
            ? band..<band + 1
            : (band * rows.count + bands - 1) / bands..<((band + 1) * rows.count + bands - 1) / bands
    }

    private func band(_ row: Int) -> Int { isExact ? row : row * bands / rows.count }

    /// Sets each cell to the state that fills most of it.
    private mutating func fillBase() {
        for band in 0..<bands {
            var sums: [Float] = [0, 0, 0]
            for column in 0..<columns {
                for state in 0..<3 { sums[state] += change[state][band * (columns + 2) + column] }
                let most = sums[2] > sums[1] ? 2 : 1
                base[band * columns + column] = sums[most] > sums[0] ? UInt8(most) : 0
            }
        }
    }

    private mutating func add(_ segment: Timeline.Segment) {
        let scale = Float(columns) / Float(events)
        let begin = Float(segment.events.lowerBound) * scale
        let end = Float(segment.events.upperBound) * scale
        let state = Int(segment.state.rawValue)
        let low = band(segment.rows.lowerBound)
        let high = band(segment.rows.upperBound - 1)
        for band in low...max(low, high) {
            let bounds = rowsOf(band)
            let part = Float(segment.rows.clamped(to: bounds).count) / Float(bounds.count)
            for (place, amount) in [(begin, part), (end, -part)] {
                let column = min(columns, Int(place))
                let rest = place - Float(column)
                change[state][band * (columns + 2) + column] += amount * (1 - rest)
                change[state][band * (columns + 2) + column + 1] += amount * rest
            }
        }
    }

    private mutating func paint(_ segment: Timeline.Segment) {
        guard segment.state.isOverlay else { return add(segment) }
        // Successful conversions would only be specks in a long trace.
        if segment.state == .converting, events > 4 * columns { return }
        let first = segment.events.lowerBound * columns / events
        let end = max(first + 1, segment.events.upperBound * columns / events)
        let low = band(segment.rows.lowerBound)
        let high = max(low, band(segment.rows.upperBound - 1))
        for band in low...high {
            for cell in band * columns + first..<band * columns + min(end, columns) {
                over[cell] = segment.state.rawValue
            }
        }
    }

    func top(_ band: Int) -> Double { tops[band] }

    /// The middle of some rows, in drawing units from the top.
    func middle(_ rows: Range<Int>) -> Double {
        (top(band(rows.lowerBound)) + top(band(rows.upperBound - 1) + 1)) / 2
    }

    /// The pages of a band.
    func label(_ band: Int) -> String {
        let bounds = rowsOf(band)
        let last = rows[bounds.upperBound - 1]
        let begin = rows[bounds.lowerBound].page
        let end = last.page + last.pages - 1
        return begin == end ? "\(begin)" : "\(begin)–\(end)"
    }

    /// All rectangles to draw: first page states, then overlays.
    func runs() -> [Run] {
        var found: [Run] = []
        let perColumn = Double(events) / Double(columns)
        for cells in [base, over] {
            for band in 0..<bands {
                var start = 0
                while start < columns {
                    let value = cells[band * columns + start]
                    var end = start + 1
                    while end < columns, cells[band * columns + end] == value { end += 1 }
                    if value != 0, value != 255, let state = Timeline.State(rawValue: value) {
                        found.append(
                            Run(
                                band: band, columns: Double(start) * perColumn..<Double(end) * perColumn,
                                state: state))
                    }
                    start = end
                }
            }
        }
        return found
    }
}
