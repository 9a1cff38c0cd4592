// SPDX-License-Identifier: MIT
import MiniVMM

/// What lies on top of the pages' states while a trace is walked: holds, conversions under way, holes.
struct Overlays {
    private var holds: [(rows: Range<Int>, since: Int, name: String?)] = []
    private var holes: [(rows: Range<Int>, since: Int)] = []
    /// By actor: it converts one range at a time.
    private var converting: [UInt8: Int] = [:]
    private var rowsOfConversion: [Int: Range<Int>] = [:]
    /// By actor: the last fault or call that has not been answered.
    private var fault: [UInt8: Int] = [:]
    private var ended: [UInt8: Int] = [:]
    /// Holds and holes at a time; more are not drawn.
    private static let most = 4096
    private let tellsReleases: Bool

    init(_ trace: RecordedTrace) { tellsReleases = trace.shapes.contains { $0.event == .release } }

    mutating func take(
        _ event: Int, _ kind: EventKind, _ rows32: Range<Int32>, _ trace: RecordedTrace,
        _ found: inout [Timeline.Segment], _ conversions: inout [Timeline.Conversion]
    ) {
        let rows = Int(rows32.lowerBound)..<Int(rows32.upperBound)
        let actor = trace.actorOf[event]
        switch kind {
        case .fault, .race:
            fault[actor] = event
            // Its conversion, if there will be one, is yet to come.
            ended[actor] = nil
            touch(rows, event, &found)
        case .convert:
            converting[actor] = conversions.count
            rowsOfConversion[conversions.count] = rows
            conversions.append(Timeline.Conversion(start: event, end: event, cause: fault[actor]))
        case .converted, .notConverted:
            guard let index = converting.removeValue(forKey: actor) else { break }
            conversions[index].end = event
            conversions[index].hasEnded = true
            conversions[index].succeeded = kind == .converted
            ended[actor] = index
            close(index, event, kind == .converted ? .converting : .failed, conversions, &found)
        case .hypercall:
            // The call is written when it returns, after what it did.
            if let index = ended.removeValue(forKey: actor), conversions[index].cause == nil {
                conversions[index].cause = event
                conversions[index].resume = event
            }
            fault[actor] = nil
        case .resume:
            if let index = ended.removeValue(forKey: actor), conversions[index].cause == fault[actor] {
                conversions[index].resume = event
            }
            fault[actor] = nil
        case .hold where holds.count < Self.most && !rows.isEmpty:
            holds.append((rows, event, trace.text(event, .name)))
        case .release, .ask: release(event, rows, trace, &found)
        case .punch where holes.count < Self.most && !rows.isEmpty: holes.append((rows, event))
        case .access: touch(rows, event, &found)
        default: break
        }
    }

    private func close(
        _ index: Int, _ event: Int, _ state: Timeline.State, _ conversions: [Timeline.Conversion],
        _ found: inout [Timeline.Segment]
    ) {
        guard let rows = rowsOfConversion[index], !rows.isEmpty, conversions[index].start < event else {
            return
        }
        found.append(Timeline.Segment(state: state, rows: rows, events: conversions[index].start..<event))
    }

    private mutating func release(
        _ event: Int, _ rows: Range<Int>, _ trace: RecordedTrace, _ found: inout [Timeline.Segment]
    ) {
        let name = trace.text(event, .name)
        var gone: [Int] = []
        switch trace.shape(event).event {
        case .releaseHolds: gone = Array(holds.indices)
        case .askHolders:
            // Older traces do not tell which; newer ones have told already.
            guard !tellsReleases, trace.number(event, .released) ?? 0 > 0 else { return }
            gone = holds.indices.filter { holds[$0].rows.overlaps(rows) }
        default:
            if let one = holds.firstIndex(where: { name != nil ? $0.name == name : $0.rows == rows }) {
                gone = [one]
            }
        }
        for index in gone.reversed() {
            let hold = holds.remove(at: index)
            found.append(Timeline.Segment(state: .held, rows: hold.rows, events: hold.since..<event))
        }
    }

    private mutating func touch(_ rows: Range<Int>, _ event: Int, _ found: inout [Timeline.Segment]) {
        guard !holes.isEmpty else { return }
        holes.removeAll { hole in
            guard hole.rows.overlaps(rows) else { return false }
            found.append(Timeline.Segment(state: .hole, rows: hole.rows, events: hole.since..<event))
            return true
        }
    }

    /// What is still so at the end.
    mutating func end(
        _ event: Int, _ found: inout [Timeline.Segment], _ conversions: inout [Timeline.Conversion]
    ) {
        for hold in holds {
            found.append(Timeline.Segment(state: .held, rows: hold.rows, events: hold.since..<event))
        }
        for hole in holes {
            found.append(Timeline.Segment(state: .hole, rows: hole.rows, events: hole.since..<event))
        }
        for index in converting.values.sorted() {
            conversions[index].end = max(event - 1, conversions[index].start)
            close(index, event, .failed, conversions, &found)
        }
    }
}
