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
    private let grid: PictureGrid
    /// The actors in the order in which they are drawn.
    let actors: [Int]

    static let width = 1200.0
    static let left = 128.0
    static let actorHeight = 24.0
    static let top = 92.0
    private static let ink = "#15181e"
    private static let soft = "#59606c"
    private static let bad = "#c2280f"
    /// The limit for steps in the table of outcomes.
    private static let mostSteps = 12

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

    private var pagesTop: Double { Self.top + Double(actors.count) * Self.actorHeight + 8 }
    private var pagesBottom: Double { pagesTop + grid.height }
    private var plotWidth: Double { Self.width - Self.left - 16 }
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
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(Self.round(height))" width="\(Self.width)" \
            height="\(Self.round(height))" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13" role="img">

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
        text(
            16, height - 12,
            Self.clipped(
                (trace.isSimulated ? "Simulated, no real kernel was involved: " : "Backend: ")
                    + "\(trace.identity). \(clock), starting at \(trace.start) ns. MiniVMM", 150),
            size: 12, fill: Self.soft, to: &out)
        out.append("</svg>")
        out.endLine()
        out.flush()
    }

    private func drawHeading(to out: inout OutputBuffer) {
        text(16, 30, Self.clipped(title, 80), size: 21, weight: "bold", to: &out)
        let verdict = trace.endedWell.map { $0 ? "✓ " : "✗ " } ?? ""
        let failed = timeline.kinds.count { $0 == .failedStep }
        let facts = [
            trace.ending.map { verdict + Self.clipped($0, 90) },
            failed == 0 ? nil : "✗ \(failed) step\(failed == 1 ? "" : "s") not as expected",
            timeline.conversions.isEmpty ? nil : trace.conversions.description,
            duration,
        ]
        text(
            16, 52, Self.clipped(facts.compactMap { $0 }.joined(separator: " · "), 150),
            fill: failed > 0 || trace.endedWell == false ? Self.bad : Self.soft, to: &out)
        text(16, 71, timeline.drawnText(trace), fill: Self.soft, to: &out)
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
        case .detached: "url(#detached)"
        }
    }

    // MARK: pages

    private func drawPages(avoiding marks: [Mark], to out: inout OutputBuffer) {
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
        if grid.isExact {
            for band in 0..<grid.bands {
                let y = Self.round(pagesTop + grid.top(band))
                out.append("<path d=\"M\(Self.left) \(y)H\(Self.round(right))\" stroke=\"#0003\"/>\n")
            }
        }
        drawWords(avoiding: marks, to: &out)
        var lastLabel = -20.0
        for band in 0..<grid.bands {
            let middle = pagesTop + (grid.top(band) + grid.top(band + 1)) / 2
            if middle - lastLabel >= 14 {
                lastLabel = middle
                text(Self.left - 8, middle + 4.5, grid.label(band), anchor: "end", fill: Self.soft, to: &out)
            }
        }
    }

    /// Writes the name of each state, or its letter, where it overlaps no sign and no other name.
    private func drawWords(avoiding marks: [Mark], to out: inout OutputBuffer) {
        var boxes = TextBoxes()
        for mark in marks {
            boxes.add(.init(left: mark.x - 8, top: mark.y - 8, right: mark.x + 8, bottom: mark.y + 8))
        }
        let runs = grid.runs().filter { $0.state != .converting }
        let overlays = runs.filter(\.state.isOverlay)
        var named: Set<PictureGrid.Run> = []
        var bandsWithPrivate: Set<Int> = []
        for run in overlays + runs.filter({ !$0.state.isOverlay }) {
            let tall = grid.top(run.band + 1) - grid.top(run.band)
            let begin = x(run.columns.lowerBound) + 4
            let end = x(run.columns.upperBound) - 2
            guard tall >= 12 else { continue }
            // Most pages are private most of the time: naming them more than once would only be noise.
            if run.state == .private, !bandsWithPrivate.insert(run.band).inserted { continue }
            // The name in the band above is enough.
            if named.contains(PictureGrid.Run(band: run.band - 1, columns: run.columns, state: run.state)) {
                named.insert(run)
                continue
            }
            let y = pagesTop + grid.top(run.band) + tall / 2 + 4.5
            for word in ["\(run.state)", run.state.letter] {
                let box = TextBoxes.box(word, begin, y, size: 12, isBold: true)
                guard let place = boxes.place(box, before: end) else { continue }
                let right = place + box.right - box.left
                let isCovered = overlays.contains { other in
                    other.band == run.band && x(other.columns.lowerBound) < right
                        && place < x(other.columns.upperBound)
                }
                text(
                    place, y, word, size: 12, weight: "bold",
                    fill: run.state == .private && !isCovered ? "#ffffff" : "#2b2000",
                    hasOutline: isCovered, to: &out)
                named.insert(run)
                break
            }
        }
    }

    // MARK: actors

    private func drawActors(to out: inout OutputBuffer) {
        for (index, actor) in actors.enumerated() {
            let y = actorY(index)
            text(
                Self.left - 8, y + 4.5, Self.clipped(trace.actors[actor], 14), weight: "bold", anchor: "end",
                to: &out)
            out.append(
                "<path d=\"M\(Self.left) \(Self.round(y))H\(Self.round(Self.left + plotWidth))\" stroke=\"#d9d6cd\"/>\n"
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
            rect(
                begin, actorY(row) - 7, end - begin, 14, conversion.succeeded ? Self.fill(target) : Self.bad,
                stroke: end - begin > 5, to: &out)
        }
    }

    private func actorY(_ index: Int) -> Double { Self.top + (Double(index) + 0.5) * Self.actorHeight }

    // MARK: signs of events

    private struct Mark {
        let event: Int
        let x, y: Double
    }

    /// The signs to draw. Of signs that would touch, only the one with the highest weight is kept.
    private func marks() -> [Mark] {
        var candidates: [Mark] = []
        // In a long trace, only refused and failed events are marked on the pages: colours show the rest.
        let least = trace.count > 2000 ? 7 : trace.count > 250 ? 4 : 0
        for event in 0..<trace.count {
            let x = x(Double(event) + 0.5)
            if let row = actors.firstIndex(of: Int(trace.actorOf[event])) {
                candidates.append(Mark(event: event, x: x, y: actorY(row)))
            }
            let rows = timeline.rowsOf[event]
            guard timeline.kinds[event].marksPages, !rows.isEmpty, timeline.kinds[event].weight >= least
            else { continue }
            let y = pagesTop + grid.middle(Int(rows.lowerBound)..<Int(rows.upperBound))
            candidates.append(Mark(event: event, x: x, y: y))
        }
        struct Cell: Hashable {
            let x, y: Int
        }
        let size = 12.0
        var taken: [Cell: Mark] = [:]
        let byWeight = candidates.enumerated().sorted {
            let weights = (timeline.kinds[$0.element.event].weight, timeline.kinds[$1.element.event].weight)
            return weights.0 != weights.1 ? weights.0 > weights.1 : $0.offset < $1.offset
        }
        for (_, mark) in byWeight {
            let cell = Cell(x: Int(mark.x / size), y: Int(mark.y / size))
            let isFree = (-1...1).allSatisfy { dx in
                (-1...1).allSatisfy { dy in
                    guard let other = taken[Cell(x: cell.x + dx, y: cell.y + dy)] else { return true }
                    return abs(other.x - mark.x) >= size || abs(other.y - mark.y) >= size
                }
            }
            if isFree { taken[cell] = mark }
        }
        return taken.values.sorted { ($0.event, $0.y) < ($1.event, $1.y) }
    }

    private func draw(_ marks: [Mark], to out: inout OutputBuffer) {
        for mark in marks {
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
        text(Self.left - 38, pagesBottom + 16, "event", anchor: "end", fill: Self.soft, to: &out)
        text(
            Self.left - 38, pagesBottom + 31, trace.isSimulated ? "sim. time" : "time", anchor: "end",
            fill: Self.soft, to: &out)
    }

    // MARK: the legend

    private struct LegendItem {
        let x: Double
        let line: Int
        let text: String
        let state: Timeline.State?
        let kind: EventKind?
    }

    private func legendItems() -> [LegendItem] {
        var items: [LegendItem] = []
        var (x, line) = (16.0, 0)
        func add(_ text: String, _ state: Timeline.State?, _ kind: EventKind?) {
            let width = (state == nil ? 17 : 27) + TextBoxes.width(text, size: 12) + 14
            if x + width > Self.width {
                x = 16
                line += 1
            }
            items.append(LegendItem(x: x, line: line, text: text, state: state, kind: kind))
            x += width
        }
        let states = Set(timeline.segments.map(\.state))
        for state in [Timeline.State.private, .shared, .held, .detached, .converting, .failed, .hole]
        where states.contains(state) {
            add("\(state) (\(state.letter))", state, nil)
        }
        let kinds = Set(timeline.kinds)
        for kind in EventKind.allCases where kinds.contains(kind) { add(kind.label, nil, kind) }
        return items
    }

    private func draw(_ legend: [LegendItem], top: Double, to out: inout OutputBuffer) {
        for item in legend {
            let y = top + Double(item.line) * 19
            if let state = item.state {
                rect(item.x, y - 11, 22, 14, Self.fill(state), stroke: true, to: &out)
                text(item.x + 27, y + 1, item.text, size: 12, to: &out)
            } else if let kind = item.kind {
                SVGSign.draw(kind, item.x + 6, y - 4, to: &out)
                text(item.x + 17, y + 1, item.text, size: 12, to: &out)
            }
        }
    }

    // MARK: expected and seen outcomes

    private struct StepRow {
        let step, expected, seen: String
        let isOK: Bool
    }

    /// The steps of a litmus test. If there are too many, the first ones that failed.
    private func stepRows() -> [StepRow] {
        let steps = (0..<trace.count).filter {
            trace.shape($0).event == .step
        }
        guard steps.contains(where: { trace.text($0, .expected) != nil }) else { return [] }
        let failed = steps.filter { timeline.kinds[$0] == .failedStep }
        let drawn = steps.count <= Self.mostSteps ? steps : Array(failed.prefix(Self.mostSteps))
        return drawn.map { event in
            let line = trace.number(event, .line) ?? 0
            return StepRow(
                step: (line > 0 ? "line \(line): " : "") + (trace.text(event, .text) ?? ""),
                expected: trace.text(event, .expected) ?? "–", seen: trace.text(event, .outcome) ?? "",
                isOK: timeline.kinds[event] != .failedStep)
        }
    }

    private func draw(_ steps: [StepRow], top: Double, to out: inout OutputBuffer) {
        guard !steps.isEmpty else { return }
        let columns = [34.0, 620, 910]
        for (x, title) in zip(columns, ["Step", "Expected", "Seen"]) {
            text(x, top, title, size: 12, weight: "bold", to: &out)
        }
        for (index, row) in steps.enumerated() {
            let y = top + Double(index + 1) * 18
            SVGSign.draw(row.isOK ? .step : .failedStep, 22, y - 4, to: &out)
            let cells = zip(columns, [(row.step, 76), (row.expected, 37), (row.seen, 37)])
            for (x, (words, length)) in cells {
                text(
                    x, y, Self.clipped(words, length), size: 12, weight: row.isOK ? "normal" : "bold",
                    fill: row.isOK ? Self.ink : Self.bad, to: &out)
            }
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
        anchor: String = "start", fill: String = ink, hasOutline: Bool = false, to out: inout OutputBuffer
    ) {
        out.append(
            "<text x=\"\(Self.round(x))\" y=\"\(Self.round(y))\" font-size=\"\(size)\" font-weight=\"\(weight)\" text-anchor=\"\(anchor)\" fill=\"\(fill)\""
        )
        out.append(hasOutline ? " stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\">" : ">")
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
