// SPDX-License-Identifier: MIT
import MiniVMM

/// The overlays of a trace while its events are visited in order: holds, conversions in progress, holes.
struct Overlays {
    /// The references of one hold.
    private struct Hold {
        /// All rows that were held when the hold began.
        let rows: Range<Int>
        let name: String?
        /// The rows in parts. The parts on pages that were punched are detached.
        var parts: [Part]
    }

    private struct Part {
        let rows: Range<Int>
        /// The event that began this state.
        let since: Int
        let isDetached: Bool

        func segment(until event: Int) -> Timeline.Segment {
            Timeline.Segment(state: isDetached ? .detached : .held, rows: rows, events: since..<event)
        }
    }

    private var holds: [Hold] = []
    private var holes: [(rows: Range<Int>, since: Int)] = []
    /// Private pages that a guest on SNP or TDX has not taken.
    private var untaken: [(rows: Range<Int>, since: Int, state: Timeline.State)] = []
    /// The conversion in progress of each actor. An actor converts one range at a time.
    private var converting: [UInt8: Int] = [:]
    private var rowsOfConversion: [Int: Range<Int>] = [:]
    /// The last memory fault of each actor that has not been answered.
    private var fault: [UInt8: Int] = [:]
    private var ended: [UInt8: Int] = [:]
    /// The limit for simultaneous holds, parts of one hold, and holes. Further ones are not drawn.
    private static let most = 4096
    private let hasReleaseEvents: Bool

    init(_ trace: RecordedTrace) { hasReleaseEvents = trace.shapes.contains { $0.event == .release } }

    mutating func visit(
        _ event: Int, _ kind: EventKind, _ rows32: Range<Int32>, _ trace: RecordedTrace,
        _ found: inout [Timeline.Segment], _ conversions: inout [Timeline.Conversion]
    ) {
        let rows = Int(rows32.lowerBound)..<Int(rows32.upperBound)
        let actor = trace.actorOf[event]
        switch kind {
        case .fault, .race:
            fault[actor] = event
            // A conversion before the fault was not requested by it.
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
            // The hypercall event is written when the call returns, after the conversion that it requested.
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
            let part = Part(rows: rows, since: event, isDetached: false)
            holds.append(Hold(rows: rows, name: trace.text(event, .name), parts: [part]))
        case .release, .ask: release(event, rows, trace, &found)
        case .punch where !rows.isEmpty:
            if holes.count < Self.most { holes.append((rows, event)) }
            detach(rows, event, &found)
        case .access: touch(rows, event, &found)
        case .guestPages:
            endUntaken(rows, event, &found)
            let state = trace.text(event, .state).flatMap(GuestPageState.init(rawValue:))
            if let state = state.flatMap(Timeline.State.init), untaken.count < Self.most, !rows.isEmpty {
                untaken.append((rows, event, state))
            }
        case .ioctl where trace.text(event, .target) == PageState.shared.rawValue:
            endUntaken(rows, event, &found)
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

    /// Detaches holds from pages that were punched: the holder keeps the old pages, and new pages in their
    /// place are not held.
    private mutating func detach(_ hole: Range<Int>, _ event: Int, _ found: inout [Timeline.Segment]) {
        for index in holds.indices where holds[index].rows.overlaps(hole) {
            guard holds[index].parts.count < Self.most else { continue }
            var parts: [Part] = []
            for part in holds[index].parts {
                let middle = part.rows.clamped(to: hole)
                guard !part.isDetached, !middle.isEmpty else {
                    parts.append(part)
                    continue
                }
                if part.since < event { found.append(part.segment(until: event)) }
                for rows in [
                    part.rows.lowerBound..<middle.lowerBound, middle,
                    middle.upperBound..<part.rows.upperBound,
                ] where !rows.isEmpty {
                    parts.append(Part(rows: rows, since: event, isDetached: rows == middle))
                }
            }
            holds[index].parts = parts
        }
    }

    private mutating func release(
        _ event: Int, _ rows: Range<Int>, _ trace: RecordedTrace, _ found: inout [Timeline.Segment]
    ) {
        let name = trace.text(event, .name)
        var released: [Int] = []
        switch trace.shape(event).event {
        case .releaseHolds: released = Array(holds.indices)
        case .askHolders:
            // Older traces have no `release` events. In newer traces the release was handled already.
            guard !hasReleaseEvents, trace.number(event, .released) ?? 0 > 0 else { return }
            released = holds.indices.filter { holds[$0].rows.overlaps(rows) }
        default:
            if let index = holds.firstIndex(where: { name != nil ? $0.name == name : $0.rows == rows }) {
                released = [index]
            }
        }
        for index in released.reversed() {
            for part in holds.remove(at: index).parts { found.append(part.segment(until: event)) }
        }
    }

    /// Ends the state of private pages that the guest has not taken.
    private mutating func endUntaken(_ rows: Range<Int>, _ event: Int, _ found: inout [Timeline.Segment]) {
        guard !untaken.isEmpty, !rows.isEmpty else { return }
        var rest: [(rows: Range<Int>, since: Int, state: Timeline.State)] = []
        for old in untaken {
            guard old.rows.overlaps(rows) else {
                rest.append(old)
                continue
            }
            let middle = old.rows.clamped(to: rows)
            if old.since < event {
                found.append(Timeline.Segment(state: old.state, rows: middle, events: old.since..<event))
            }
            for part in [old.rows.lowerBound..<middle.lowerBound, middle.upperBound..<old.rows.upperBound]
            where !part.isEmpty {
                rest.append((part, old.since, old.state))
            }
        }
        untaken = rest
    }

    /// Ends the holes on rows that are accessed.
    private mutating func touch(_ rows: Range<Int>, _ event: Int, _ found: inout [Timeline.Segment]) {
        guard !holes.isEmpty else { return }
        holes.removeAll { hole in
            guard hole.rows.overlaps(rows) else { return false }
            found.append(Timeline.Segment(state: .hole, rows: hole.rows, events: hole.since..<event))
            return true
        }
    }

    /// Ends all overlays at the end of the trace.
    mutating func end(
        _ event: Int, _ found: inout [Timeline.Segment], _ conversions: inout [Timeline.Conversion]
    ) {
        for hold in holds { found += hold.parts.map { $0.segment(until: event) } }
        for hole in holes {
            found.append(Timeline.Segment(state: .hole, rows: hole.rows, events: hole.since..<event))
        }
        for pages in untaken {
            found.append(Timeline.Segment(state: pages.state, rows: pages.rows, events: pages.since..<event))
        }
        for index in converting.values.sorted() {
            conversions[index].end = max(event - 1, conversions[index].start)
            close(index, event, .failed, conversions, &found)
        }
    }
}

extension Timeline.State {
    /// How private pages are drawn that a guest on SNP or TDX has not taken; nil if it has.
    fileprivate init?(_ state: GuestPageState) {
        switch state {
        case .taken: return nil
        case .unvalidated: self = .unvalidated
        case .unassigned: self = .unassigned
        case .pending: self = .pending
        case .blocked: self = .blocked
        }
    }
}
