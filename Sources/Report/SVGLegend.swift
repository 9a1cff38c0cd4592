// SPDX-License-Identifier: MIT
import MiniVMM

// The texts below the drawing: the legend, and the table of expected and seen outcomes.
extension SVGPicture {
    struct LegendItem {
        let x: Double
        let line: Int
        let text: String
        let state: Timeline.State?
        let kind: EventKind?
    }

    func legendItems() -> [LegendItem] {
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
        for state in [
            Timeline.State.private, .shared, .unvalidated, .unassigned, .pending, .blocked, .held, .detached,
            .converting, .failed, .hole,
        ]
        where states.contains(state) {
            add("\(state) (\(state.letter))", state, nil)
        }
        let kinds = Set(timeline.kinds)
        for kind in EventKind.allCases where kinds.contains(kind) { add(kind.label, nil, kind) }
        return items
    }

    func draw(_ legend: [LegendItem], top: Double, to out: inout OutputBuffer) {
        for item in legend {
            let y = top + Double(item.line) * 19
            if let state = item.state {
                // The page's own state shows through.
                if [.unassigned, .unvalidated, .pending, .blocked].contains(state) {
                    SVGElement.rect(item.x, y - 11, 22, 14, Self.fill(.private), to: &out)
                }
                SVGElement.rect(item.x, y - 11, 22, 14, Self.fill(state), stroke: true, to: &out)
                SVGElement.text(item.x + 27, y + 1, item.text, size: 12, to: &out)
            } else if let kind = item.kind {
                SVGSign.draw(kind, item.x + 6, y - 4, to: &out)
                SVGElement.text(item.x + 17, y + 1, item.text, size: 12, to: &out)
            }
        }
    }

    // MARK: expected and seen outcomes

    struct StepRow {
        let step, expected, seen: String
        let isOK: Bool
    }

    /// The steps of a litmus test. If there are too many, the first ones that failed.
    func stepRows() -> [StepRow] {
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

    func draw(_ steps: [StepRow], top: Double, to out: inout OutputBuffer) {
        guard !steps.isEmpty else { return }
        let columns = [34.0, 620, 910]
        for (x, title) in zip(columns, ["Step", "Expected", "Seen"]) {
            SVGElement.text(x, top, title, size: 12, weight: "bold", to: &out)
        }
        for (index, row) in steps.enumerated() {
            let y = top + Double(index + 1) * 18
            SVGSign.draw(row.isOK ? .step : .failedStep, 22, y - 4, to: &out)
            let cells = zip(columns, [(row.step, 76), (row.expected, 37), (row.seen, 37)])
            for (x, (words, length)) in cells {
                SVGElement.text(
                    x, y, Self.clipped(words, length), size: 12, weight: row.isOK ? "normal" : "bold",
                    fill: row.isOK ? SVGElement.ink : SVGElement.bad, to: &out)
            }
        }
    }
}
