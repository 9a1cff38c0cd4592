// SPDX-License-Identifier: MIT
public import MiniVMM

/// The page timeline as a drawing for papers and slides: pages downward, events from left to right at equal
/// distances.
///
/// Its size does not grow with the trace: a grid cell that several pages or events share shows the state that
/// fills most of it, with overlays such as failed conversions on top.
public struct SVGPicture {
    let trace: RecordedTrace
    let timeline: Timeline
    private let title: String
    private let grid: PictureGrid
    let lanes: [Int]

    static let width = 1200.0
    static let left = 128.0
    static let laneHeight = 24.0
    static let top = 74.0
    private static let ink = "#15181e"
    private static let soft = "#59606c"

    /// - Parameter title: what was run; the heading of the drawing.
    public init(_ trace: RecordedTrace, _ timeline: Timeline, title: String) {
        self.trace = trace
        self.timeline = timeline
        self.title = title
        grid = PictureGrid(timeline, events: trace.count)
        func rank(_ name: String) -> Int {
            name.hasPrefix("vcpu") ? 0 : name.hasPrefix("host") ? 1 : name.hasPrefix("child") ? 2 : 3
        }
        lanes = Array(
            trace.actors.indices.sorted {
                (rank(trace.actors[$0]), trace.actors[$0]) < (rank(trace.actors[$1]), trace.actors[$1])
            }
            .prefix(24))
    }

    private var pagesTop: Double { Self.top + Double(lanes.count) * Self.laneHeight + 8 }
    private var pagesBottom: Double { pagesTop + grid.height }
    private var plotWidth: Double { Self.width - Self.left - 16 }
    func x(_ event: Double) -> Double { Self.left + event / Double(max(1, trace.count)) * plotWidth }

    /// Writes the SVG document and flushes the buffer. An error of the descriptor is in
    /// ``OutputBuffer/failure``.
    public func write(to out: inout OutputBuffer) {
        let height = pagesBottom + 110
        out.append(
            """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(Self.round(height))" width="\(Self.width)" \
            height="\(Self.round(height))" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13" role="img">

            """)
        out.append("<title>")
        out.append(markup: "\(title): page timeline, \(trace.identity)")
        out.append("</title>\n")
        out.append(Self.definitions)
        out.append("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n")
        text(16, 30, title, size: 21, weight: "bold", to: &out)
        let verdict = trace.endedWell.map { $0 ? "✓ " : "✗ " } ?? ""
        let facts = [
            trace.ending.map { verdict + $0 }, "\(trace.count) events",
            timeline.conversions.isEmpty ? nil : trace.conversions.description,
        ]
        text(
            16, 52, Self.clipped(facts.compactMap { $0 }.joined(separator: " · "), 150), fill: Self.soft,
            to: &out)
        drawPages(to: &out)
        drawLanes(to: &out)
        drawMarks(to: &out)
        drawAxis(to: &out)
        drawLegend(y: pagesBottom + 50, to: &out)
        text(
            16, height - 12,
            (trace.isSimulated ? "Simulated, no real kernel was involved: " : "Answered by ") + trace.identity
                + " · trace from \(trace.start) ns, monotonic clock · MiniVMM", size: 12, fill: Self.soft,
            to: &out)
        out.append("</svg>")
        out.endLine()
        out.flush()
    }

    private static let definitions: StaticString = """
        <defs>
        <pattern id="none" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="#eeece6"/><path d="M0 8L8 0" stroke="#bdb9ae"/></pattern>
        <pattern id="shared" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="#f6cf6a"/><circle cx="2" cy="2" r=".9" fill="#a87400"/><circle cx="6" cy="6" r=".9" fill="#a87400"/></pattern>
        <pattern id="held" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="3" height="3" fill="#9c2f83"/><rect x="3" y="3" width="3" height="3" fill="#9c2f83"/></pattern>
        <pattern id="converting" width="8" height="8" patternUnits="userSpaceOnUse"><path d="M-2 2L2 -2M-2 10L10 -2M6 10L10 6" stroke="#10131a" stroke-width="1.4"/></pattern>
        <pattern id="failed" width="7" height="7" patternUnits="userSpaceOnUse"><path d="M0 0L7 7M7 0L0 7" stroke="#c2280f" stroke-width="1.5"/></pattern>
        <pattern id="hole" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#ffffff"/><circle cx="3" cy="3" r="1.8" fill="none" stroke="#8a857a"/></pattern>
        </defs>

        """

    private static func fill(_ state: Timeline.State) -> String {
        switch state {
        case .unallocated: "url(#none)"
        case .private: "#1f5fa8"
        case .shared: "url(#shared)"
        case .held: "url(#held)"
        case .converting: "url(#converting)"
        case .failed: "url(#failed)"
        case .hole: "url(#hole)"
        }
    }

    private func drawPages(to out: inout OutputBuffer) {
        guard trace.count > 0, !timeline.rows.isEmpty else { return }
        let right = Self.left + plotWidth
        rect(Self.left, pagesTop, plotWidth, grid.height, "url(#none)", to: &out)
        for run in grid.runs() {
            let y = pagesTop + grid.top(run.band)
            let begin = x(run.columns.lowerBound)
            rect(
                begin, y, max(0.6, x(run.columns.upperBound) - begin),
                grid.top(run.band + 1) - grid.top(run.band),
                Self.fill(run.state), to: &out)
        }
        // Words behind the mark of the event that began the state.
        let behind = plotWidth / Double(trace.count) / 2 + 9
        for run in grid.runs() where !run.state.isOverlay {
            let tall = grid.top(run.band + 1) - grid.top(run.band)
            let begin = x(run.columns.lowerBound) + behind
            let wide = x(run.columns.upperBound) - begin - 8
            guard tall >= 12, wide >= 10 else { continue }
            text(
                begin, pagesTop + grid.top(run.band) + tall / 2 + 4.5,
                wide > 50 ? "\(run.state)" : run.state.letter, size: 12, weight: "bold",
                fill: run.state == .private ? "#ffffff" : "#2b2000", to: &out)
        }
        var lastLabel = -20.0
        for band in 0..<grid.bands {
            let y = pagesTop + grid.top(band)
            if grid.isExact {
                out.append(
                    "<path d=\"M\(Self.left) \(Self.round(y))H\(Self.round(right))\" stroke=\"#0003\"/>\n")
            }
            let middle = pagesTop + (grid.top(band) + grid.top(band + 1)) / 2
            if middle - lastLabel >= 14 {
                lastLabel = middle
                text(Self.left - 8, middle + 4.5, grid.label(band), anchor: "end", fill: Self.soft, to: &out)
            }
        }
    }

    private func drawLanes(to out: inout OutputBuffer) {
        for (index, actor) in lanes.enumerated() {
            let y = laneY(index)
            text(
                Self.left - 8, y + 4.5, Self.clipped(trace.actors[actor], 16), weight: "bold", anchor: "end",
                to: &out)
            out.append(
                "<path d=\"M\(Self.left) \(Self.round(y))H\(Self.round(Self.left + plotWidth))\" stroke=\"#d9d6cd\"/>\n"
            )
        }
        var drawn = [Double](repeating: -1, count: trace.actors.count)
        for conversion in timeline.conversions {
            let actor = Int(trace.actorOf[conversion.start])
            guard let lane = lanes.firstIndex(of: actor) else { continue }
            let begin = x(Double(conversion.start) + 0.5)
            let end = max(begin + 1, x(Double(conversion.end) + 0.5))
            guard end > drawn[actor] + 1 else { continue }
            drawn[actor] = end
            let target: Timeline.State =
                trace.text(conversion.start, .target) == "private" ? .private : .shared
            rect(
                begin, laneY(lane) - 7, end - begin, 14, conversion.succeeded ? Self.fill(target) : "#c2280f",
                stroke: end - begin > 5, to: &out)
        }
    }

    private func laneY(_ index: Int) -> Double { Self.top + (Double(index) + 0.5) * Self.laneHeight }

    /// Marks that would touch become one, the weightiest of them.
    private func drawMarks(to out: inout OutputBuffer) {
        struct Cell: Hashable {
            let x, y: Int
        }
        var best: [Cell: (event: Int, x: Double, y: Double)] = [:]
        func put(_ event: Int, _ y: Double) {
            let x = x(Double(event) + 0.5)
            let place = Cell(x: Int(x / 12), y: Int(y / 12))
            if let old = best[place], timeline.kinds[old.event].weight >= timeline.kinds[event].weight {
                return
            }
            best[place] = (event, x, y)
        }
        // Where events are dense the colours tell of what went well, and marks of the rest.
        let least = trace.count > 2000 ? 7 : trace.count > 250 ? 4 : 0
        for event in 0..<trace.count {
            if let lane = lanes.firstIndex(of: Int(trace.actorOf[event])) { put(event, laneY(lane)) }
            let rows = timeline.rowsOf[event]
            guard timeline.kinds[event].marksPages, !rows.isEmpty, timeline.kinds[event].weight >= least
            else { continue }
            put(event, pagesTop + grid.middle(Int(rows.lowerBound)..<Int(rows.upperBound)))
        }
        for mark in best.values.sorted(by: { ($0.event, $0.y) < ($1.event, $1.y) }) {
            out.append("<g>")
            SVGSign.draw(timeline.kinds[mark.event], mark.x, mark.y, to: &out)
            out.append("<title>")
            out.append(markup: "\(mark.event + 1) \(trace.actor(mark.event)) \(trace.name(mark.event))")
            out.append("</title></g>")
            out.endLine()
        }
    }

    private func drawAxis(to out: inout OutputBuffer) {
        guard trace.count > 0 else { return }
        let count = min(10, trace.count)
        for tick in 0..<count {
            let event = count == 1 ? 0 : tick * (trace.count - 1) / (count - 1)
            let place = x(Double(event) + 0.5)
            let nanoseconds = trace.times[event] &- trace.start
            let anchor = tick > 0 && tick == count - 1 ? "end" : "middle"
            text(place, pagesBottom + 16, "\(event + 1)", anchor: anchor, fill: Self.soft, to: &out)
            text(
                place, pagesBottom + 31, Self.duration(nanoseconds), anchor: anchor, fill: Self.soft, to: &out
            )
        }
        text(Self.left - 8 - 30, pagesBottom + 16, "event", anchor: "end", fill: Self.soft, to: &out)
        text(Self.left - 8 - 30, pagesBottom + 31, "at", anchor: "end", fill: Self.soft, to: &out)
    }

    private func drawLegend(y: Double, to out: inout OutputBuffer) {
        var place = 16.0
        var y = y
        let present = Set(timeline.segments.map(\.state))
        for state in [Timeline.State.private, .shared, .held, .converting, .failed, .hole]
        where present.contains(state) {
            rect(place, y - 11, 22, 14, Self.fill(state), stroke: true, to: &out)
            text(place + 27, y + 1, "\(state) (\(state.letter))", size: 12, to: &out)
            place += 50 + Double("\(state)".count + 4) * 6.6
        }
        let kinds = Set(timeline.kinds)
        for kind in EventKind.allCases where kinds.contains(kind) {
            if place > Self.width - 130 {
                place = 16
                y += 19
            }
            SVGSign.draw(kind, place + 6, y - 4, to: &out)
            text(place + 17, y + 1, kind.label, size: 12, to: &out)
            place += 32 + Double(kind.label.count) * 6.6
        }
    }

    // MARK: elements

    private func rect(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ fill: String, stroke: Bool = false,
        to out: inout OutputBuffer
    ) {
        out.append(
            "<rect x=\"\(Self.round(x))\" y=\"\(Self.round(y))\" width=\"\(Self.round(width))\" height=\"\(Self.round(height))\" fill=\"\(fill)\""
        )
        out.append(stroke ? " stroke=\"#15181e\" stroke-width=\".8\"/>" : "/>")
        out.endLine()
    }

    private func text(
        _ x: Double, _ y: Double, _ text: String, size: Int = 13, weight: String = "normal",
        anchor: String = "start",
        fill: String = ink, to out: inout OutputBuffer
    ) {
        out.append(
            "<text x=\"\(Self.round(x))\" y=\"\(Self.round(y))\" font-size=\"\(size)\" font-weight=\"\(weight)\" text-anchor=\"\(anchor)\" fill=\"\(fill)\">"
        )
        out.append(markup: text)
        out.append("</text>")
        out.endLine()
    }

    static func round(_ value: Double) -> Double { (value * 10).rounded() / 10 }

    private static func clipped(_ text: String, _ count: Int) -> String {
        text.count <= count ? text : text.prefix(count - 1) + "…"
    }

    static func duration(_ nanoseconds: UInt64) -> String {
        let value = Double(nanoseconds)
        switch nanoseconds {
        case ..<1000: return "\(nanoseconds) ns"
        case ..<1_000_000: return "\(round(value / 1e3)) µs"
        case ..<1_000_000_000: return "\(round(value / 1e6)) ms"
        default: return "\(round(value / 1e9)) s"
        }
    }
}
