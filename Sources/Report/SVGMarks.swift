// SPDX-License-Identifier: MIT
import MiniVMM

// The signs of events in the drawing, and the names of states between them.
extension SVGPicture {
    struct Mark {
        let event: Int
        let x, y: Double
    }

    /// The signs to draw. Of signs that would touch, only the one with the highest weight is kept.
    func marks() -> [Mark] {
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

    func draw(_ marks: [Mark], to out: inout OutputBuffer) {
        for mark in marks {
            out.append("<g>")
            SVGSign.draw(timeline.kinds[mark.event], mark.x, mark.y, to: &out)
            out.append("<title>")
            out.append(markup: "\(mark.event + 1) \(trace.actor(mark.event)) \(trace.name(mark.event))")
            out.append("</title></g>")
            out.endLine()
        }
    }

    /// Writes the name of each state, or its letter, where it overlaps no sign and no other name.
    func drawWords(avoiding marks: [Mark], to out: inout OutputBuffer) {
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
                SVGElement.text(
                    place, y, word, size: 12, weight: "bold",
                    fill: run.state == .private && !isCovered ? "#ffffff" : "#2b2000",
                    hasOutline: isCovered, to: &out)
                named.insert(run)
                break
            }
        }
    }
}
