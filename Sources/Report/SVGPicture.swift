// SPDX-License-Identifier: MIT
public import MiniVMM

/// The page timeline as a drawing for papers and slides. Pages run down, events run across at equal distances.
///
/// The size of the drawing is bounded. A grid cell that several pages or events share shows the state that
/// fills most of it, with overlays such as failed conversions on top.
public struct SVGPicture {
    let trace: RecordedTrace
    let timeline: Timeline
    private let title: String
    let grid: PictureGrid
    /// The actors in the order in which they are drawn.
    let actors: [Int]

    static let width = 1200.0
    static let left = 128.0
    static let actorHeight = 24.0
    static let top = 92.0
    /// The limit for steps in the table of outcomes.
    static let mostSteps = 12

    /// - Parameter title: what was run; the heading of the drawing.
    public init(_ trace: RecordedTrace, _ timeline: Timeline, title: String) {
        self.trace = trace
        self.timeline = timeline
        self.title = title
        grid = PictureGrid(timeline, events: trace.count)
        func rank(_ name: String) -> Int {
            name.hasPrefix("vcpu") ? 0 : name.hasPrefix("host") ? 1 : name.hasPrefix("child") ? 2 : 3
        }
        actors = Array(
            trace.actors.indices.sorted {
                (rank(trace.actors[$0]), trace.actors[$0]) < (rank(trace.actors[$1]), trace.actors[$1])
            }
            .prefix(24))
    }

    var pagesTop: Double { Self.top + Double(actors.count) * Self.actorHeight + 8 }
    var pagesBottom: Double { pagesTop + grid.height }
    var plotWidth: Double { Self.width - Self.left - 16 }
    func x(_ event: Double) -> Double { Self.left + event / Double(max(1, trace.count)) * plotWidth }

    /// Writes the SVG document and flushes the buffer. An error of the descriptor is in
    /// ``OutputBuffer/failure``.
    public func write(to out: inout OutputBuffer) {
        let legend = legendItems()
        let steps = stepRows()
        let legendTop = pagesBottom + 54
        let stepsTop = legendTop + Double(legend.last?.line ?? 0) * 19 + 30
        let height = stepsTop + (steps.isEmpty ? 0 : Double(steps.count + 1) * 18 + 8) + 18
        out.append(
            """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(SVGElement.round(height))" width="\(Self.width)" \
            height="\(SVGElement.round(height))" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13" role="img">

            """)
        out.append("<title>")
        out.append(markup: "\(title): page timeline, \(trace.identity)")
        out.append("</title>\n")
        out.append(Self.definitions)
        out.append("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n")
        drawHeading(to: &out)
        let marks = marks()
        drawPages(avoiding: marks, to: &out)
        drawActors(to: &out)
        draw(marks, to: &out)
        drawAxis(to: &out)
        draw(legend, top: legendTop, to: &out)
        draw(steps, top: stepsTop, to: &out)
        let clock = trace.isSimulated ? "Simulated time" : "Host's monotonic clock"
        SVGElement.text(
            16, height - 12,
            Self.clipped(
                (trace.isSimulated ? "Simulated, no real kernel was involved: " : "Backend: ")
                    + "\(trace.identity). \(clock), starting at \(trace.start) ns. MiniVMM", 150),
            size: 12, fill: SVGElement.soft, to: &out)
        out.append("</svg>")
        out.endLine()
        out.flush()
    }

    private func drawHeading(to out: inout OutputBuffer) {
        SVGElement.text(16, 30, Self.clipped(title, 80), size: 21, weight: "bold", to: &out)
        let verdict = trace.endedWell.map { $0 ? "✓ " : "✗ " } ?? ""
        let failed = timeline.kinds.count { $0 == .failedStep }
        let facts = [
            trace.ending.map { verdict + Self.clipped($0, 90) },
            failed == 0 ? nil : "✗ \(failed) step\(failed == 1 ? "" : "s") not as expected",
            timeline.conversions.isEmpty ? nil : trace.conversions.description,
            duration,
        ]
        SVGElement.text(
            16, 52, Self.clipped(facts.compactMap { $0 }.joined(separator: " · "), 150),
            fill: failed > 0 || trace.endedWell == false ? SVGElement.bad : SVGElement.soft, to: &out)
        SVGElement.text(16, 71, timeline.drawnText(trace), fill: SVGElement.soft, to: &out)
    }

    private var duration: String? {
        guard trace.count > 0 else { return nil }
        let last = Self.duration(trace.times[trace.count - 1] &- trace.times[0])
        return trace.isSimulated ? "\(last) of simulated time" : last
    }

    private static let definitions: StaticString = """
        <defs>
        <pattern id="none" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="#eeece6"/><path d="M0 8L8 0" stroke="#bdb9ae"/></pattern>
        <pattern id="shared" width="8" height="8" patternUnits="userSpaceOnUse"><rect width="8" height="8" fill="#f6cf6a"/><circle cx="2" cy="2" r=".9" fill="#a87400"/><circle cx="6" cy="6" r=".9" fill="#a87400"/></pattern>
        <pattern id="held" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="3" height="3" fill="#9c2f83"/><rect x="3" y="3" width="3" height="3" fill="#9c2f83"/></pattern>
        <pattern id="detached" width="8" height="8" patternUnits="userSpaceOnUse"><rect x="1.5" y="1.5" width="5" height="5" fill="none" stroke="#9c2f83" stroke-width="1.2"/></pattern>
        <pattern id="converting" width="8" height="8" patternUnits="userSpaceOnUse"><path d="M-2 2L2 -2M-2 10L10 -2M6 10L10 6" stroke="#10131a" stroke-width="1.4"/></pattern>
        <pattern id="failed" width="7" height="7" patternUnits="userSpaceOnUse"><path d="M0 0L7 7M7 0L0 7" stroke="#c2280f" stroke-width="1.5"/></pattern>
        <pattern id="hole" width="6" height="4" patternUnits="userSpaceOnUse"><rect width="6" height="2" fill="#eeece6"/></pattern>
        <pattern id="unvalidated" width="8" height="8" patternUnits="userSpaceOnUse"><path d="M-2 6L6 -2M2 10L10 2" stroke="#ffffff" stroke-width="1.6"/></pattern>
        <pattern id="unassigned" width="8" height="8" patternUnits="userSpaceOnUse"><circle cx="4" cy="4" r="1.6" fill="#ffffff"/></pattern>
        <pattern id="pending" width="8" height="8" patternUnits="userSpaceOnUse"><path d="M0 2H8M0 6H8" stroke="#ffffff" stroke-width="1.4"/></pattern>
        <pattern id="blocked" width="8" height="8" patternUnits="userSpaceOnUse"><path d="M0 4H8M4 0V8" stroke="#ffffff" stroke-width="1.4"/></pattern>
        </defs>

        """

    static func fill(_ state: Timeline.State) -> String {
        switch state {
        case .unallocated: "url(#none)"
        case .private: "#1f5fa8"
        case .shared: "url(#shared)"
        case .held: "url(#held)"
        case .converting: "url(#converting)"
        case .failed: "url(#failed)"
        case .hole: "url(#hole)"
        case .detached: "url(#detached)"
        case .unvalidated: "url(#unvalidated)"
        case .unassigned: "url(#unassigned)"
        case .pending: "url(#pending)"
        case .blocked: "url(#blocked)"
        }
    }

    // MARK: pages

    private func drawPages(avoiding marks: [Mark], to out: inout OutputBuffer) {
        guard trace.count > 0, !timeline.rows.isEmpty else { return }
        let right = Self.left + plotWidth
        SVGElement.rect(Self.left, pagesTop, plotWidth, grid.height, "url(#none)", to: &out)
        for run in grid.runs() {
            let y = pagesTop + grid.top(run.band)
            let begin = x(run.columns.lowerBound)
            SVGElement.rect(
                begin, y, max(0.6, x(run.columns.upperBound) - begin),
                grid.top(run.band + 1) - grid.top(run.band),
                Self.fill(run.state), to: &out)
        }
        if grid.isExact {
            for band in 0..<grid.bands {
                let y = SVGElement.round(pagesTop + grid.top(band))
                out.append("<path d=\"M\(Self.left) \(y)H\(SVGElement.round(right))\" stroke=\"#0003\"/>\n")
            }
        }
        drawWords(avoiding: marks, to: &out)
        var lastLabel = -20.0
        for band in 0..<grid.bands {
            let middle = pagesTop + (grid.top(band) + grid.top(band + 1)) / 2
            if middle - lastLabel >= 14 {
                lastLabel = middle
                SVGElement.text(
                    Self.left - 8, middle + 4.5, grid.label(band), anchor: "end", fill: SVGElement.soft,
                    to: &out)
            }
        }
    }

    // MARK: actors

    private func drawActors(to out: inout OutputBuffer) {
        for (index, actor) in actors.enumerated() {
            let y = actorY(index)
            SVGElement.text(
                Self.left - 8, y + 4.5, Self.clipped(trace.actors[actor], 14), weight: "bold", anchor: "end",
                to: &out)
            out.append(
                "<path d=\"M\(Self.left) \(SVGElement.round(y))H\(SVGElement.round(Self.left + plotWidth))\" stroke=\"#d9d6cd\"/>\n"
            )
        }
        var drawn = [Double](repeating: -1, count: trace.actors.count)
        for conversion in timeline.conversions {
            let actor = Int(trace.actorOf[conversion.start])
            guard let row = actors.firstIndex(of: actor) else { continue }
            let begin = x(Double(conversion.start) + 0.5)
            let end = max(begin + 1, x(Double(conversion.end) + 0.5))
            guard end > drawn[actor] + 1 else { continue }
            drawn[actor] = end
            let target: Timeline.State =
                trace.text(conversion.start, .target) == "private" ? .private : .shared
            SVGElement.rect(
                begin, actorY(row) - 7, end - begin, 14,
                conversion.succeeded ? Self.fill(target) : SVGElement.bad,
                stroke: end - begin > 5, to: &out)
        }
    }

    func actorY(_ index: Int) -> Double { Self.top + (Double(index) + 0.5) * Self.actorHeight }

    private func drawAxis(to out: inout OutputBuffer) {
        guard trace.count > 0 else { return }
        let count = min(10, trace.count)
        for tick in 0..<count {
            let event = count == 1 ? 0 : tick * (trace.count - 1) / (count - 1)
            let place = x(Double(event) + 0.5)
            let nanoseconds = trace.times[event] &- trace.start
            let anchor = tick > 0 && tick == count - 1 ? "end" : "middle"
            SVGElement.text(
                place, pagesBottom + 16, "\(event + 1)", anchor: anchor, fill: SVGElement.soft, to: &out)
            SVGElement.text(
                place, pagesBottom + 31, Self.duration(nanoseconds), anchor: anchor, fill: SVGElement.soft,
                to: &out
            )
        }
        SVGElement.text(
            Self.left - 38, pagesBottom + 16, "event", anchor: "end", fill: SVGElement.soft, to: &out)
        SVGElement.text(
            Self.left - 38, pagesBottom + 31, trace.isSimulated ? "sim. time" : "time", anchor: "end",
            fill: SVGElement.soft, to: &out)
    }

    static func clipped(_ text: String, _ count: Int) -> String {
        text.count <= count ? text : text.prefix(count - 1) + "…"
    }

    static func duration(_ nanoseconds: UInt64) -> String {
        let value = Double(nanoseconds)
        switch nanoseconds {
        case ..<1000: return "\(nanoseconds) ns"
        case ..<1_000_000: return "\(SVGElement.round(value / 1e3)) µs"
        case ..<1_000_000_000: return "\(SVGElement.round(value / 1e6)) ms"
        default: return "\(SVGElement.round(value / 1e9)) s"
        }
    }
}
