// SPDX-License-Identifier: MIT
import MiniVMM

/// The states of pages over time, from which event to which.
///
/// Neighbouring pages that no event tells apart share a row, and a state that lasts is one segment: a
/// terabyte that becomes private at once is one rectangle, and 10⁶ conversions are about 10⁶ rectangles at
/// most.
public struct Timeline: Sendable {
    /// Neighbouring pages that no event tells apart.
    public struct Row: Sendable, Equatable {
        /// Number of the first page: its guest-physical address in units of 4096 bytes.
        public let page: UInt64
        /// Number of pages, at least 1.
        public let pages: UInt64

        /// Relative height in a picture: 1 for each page up to 4, then 4, and 4.5 for more than 16 pages.
        public var weight: Double {
            pages <= 4 ? Double(pages) : pages <= 16 ? 4 : 4.5
        }
    }

    /// What a rectangle of the picture shows. The first three are states of a page; overlays are drawn on top
    /// of them.
    public enum State: UInt8, Sendable, CaseIterable {
        /// No event has given the pages a state yet.
        case unallocated
        /// The host may access the pages.
        case shared
        /// Only the guest may access the pages.
        case `private`
        /// Overlay: the host holds references on the pages.
        case held
        /// Overlay: a conversion that succeeded is in progress.
        case converting
        /// Overlay: a conversion that failed, or did not end in this trace, is in progress.
        case failed
        /// Overlay: a hole was punched, and no event has accessed the pages since.
        case hole

        /// Whether the state is drawn on top of the state of a page.
        public var isOverlay: Bool { rawValue > State.private.rawValue }
        /// One character for the state, for rectangles that are too small for its name.
        public var letter: String {
            switch self {
            case .unallocated: "·"
            case .shared: "s"
            case .private: "P"
            case .held: "H"
            case .converting: "c"
            case .failed: "✕"
            case .hole: "○"
            }
        }
    }

    /// One rectangle of the picture: neighbouring rows in one state during consecutive events.
    public struct Segment: Sendable, Equatable {
        /// The state of a page, or an overlay on it.
        public let state: State
        /// Indices into ``Timeline/rows``.
        public let rows: Range<Int>
        /// Indices of events: from the one that began the state up to, but not including, the first after it
        /// ended.
        public let events: Range<Int>
    }

    /// A conversion with the event that requested it and its result. All events are given by their index.
    public struct Conversion: Sendable, Equatable {
        /// The `convert` event.
        public let start: Int
        /// The `converted` or `not-converted` event; the last event of the trace if the conversion never
        /// ended.
        public var end: Int
        /// The memory fault or hypercall that requested it; nil if the monitor did, or if it is unknown.
        public var cause: Int?
        /// The event with which the vCPU returned to the guest; nil if there is none.
        public var resume: Int?
        /// Whether it has an event with its result.
        public var hasEnded = false
        /// Whether it ended with `converted`. False if it never ended.
        public var succeeded = false
    }

    /// The rows in ascending order, without gaps: pages between those that events name are rows too.
    public private(set) var rows: [Row] = []
    /// The rectangles in no fixed order; overlays may cover page states.
    public private(set) var segments: [Segment] = []
    /// The conversions in the order in which they began.
    public private(set) var conversions: [Conversion] = []
    /// For each event the rows that it is about; empty for an event about no page.
    public private(set) var rowsOf: [Range<Int32>] = []
    /// For each event how a picture shows it.
    public private(set) var kinds: [EventKind] = []

    /// The pages of an event: first and count.
    private var pagesOf: [(page: UInt64, pages: UInt64)] = []

    /// Finds the rows, segments and conversions of a trace.
    public init(_ trace: RecordedTrace) {
        kinds = (0..<trace.count).map(trace.kind)
        pagesOf = (0..<trace.count).map { trace.pages($0, kinds[$0]) }
        findRows()
        findSegments(trace)
        pagesOf = []
    }

    // MARK: rows

    private mutating func findRows() {
        var bounds: [UInt64] = []
        bounds.reserveCapacity(pagesOf.count)
        for (page, pages) in pagesOf where pages > 0 {
            bounds.append(page)
            bounds.append(page + pages)
        }
        bounds.sort()
        var unique: [UInt64] = []
        for bound in bounds where unique.last != bound { unique.append(bound) }
        rows = zip(unique, unique.dropFirst()).map { Row(page: $0, pages: $1 - $0) }
        rowsOf = pagesOf.map { page, pages in
            guard pages > 0 else { return 0..<0 }
            let low = Self.place(of: page, in: unique)
            let high = pages == 1 ? low + 1 : Self.place(of: page + pages, in: unique)
            return Int32(low)..<Int32(high)
        }
    }

    private static func place(of bound: UInt64, in bounds: [UInt64]) -> Int {
        var low = 0
        var high = bounds.count
        while low < high {
            let middle = (low + high) / 2
            if bounds[middle] < bound { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: segments

    private mutating func findSegments(_ trace: RecordedTrace) {
        var runs = PageRuns(rows: rows.count)
        var overlays = Overlays(trace)
        var found: [Segment] = []
        func set(_ rows: Range<Int32>, _ state: PageRuns.PageState, _ event: Int) {
            runs.set(Int(rows.lowerBound)..<Int(rows.upperBound), to: state, at: Int32(event)) {
                rows, old, since in
                guard Int(since) < event else { return }
                found.append(
                    Segment(
                        state: State(rawValue: old.rawValue) ?? .unallocated, rows: rows,
                        events: Int(since)..<event))
            }
        }
        for event in 0..<trace.count {
            let rows = rowsOf[event]
            switch kinds[event] {
            case .boot: set(rows, .shared, event)
            case .file:
                set(rows, trace.text(event, .state) == PageState.private.rawValue ? .private : .shared, event)
            case .ioctl:
                set(
                    rows, trace.text(event, .target) == PageState.private.rawValue ? .private : .shared, event
                )
            default: break
            }
            overlays.take(event, kinds[event], rows, trace, &found, &conversions)
        }
        overlays.end(trace.count, &found, &conversions)
        runs.visit { rows, state, since in
            guard Int(since) < trace.count else { return }
            found.append(
                Segment(
                    state: State(rawValue: state.rawValue) ?? .unallocated, rows: rows,
                    events: Int(since)..<trace.count))
        }
        segments = found
    }

    /// For a counter: the number of pages in a state at each event. Pages held twice count twice.
    ///
    /// - Parameter events: number of events in the trace.
    public func counts(of state: State, events: Int) -> [Int64] {
        var change = [Int64](repeating: 0, count: events + 1)
        var before = [UInt64](repeating: 0, count: rows.count + 1)
        for (index, row) in rows.enumerated() { before[index + 1] = before[index] &+ row.pages }
        for segment in segments where segment.state == state {
            let pages = Int64(
                truncatingIfNeeded: before[segment.rows.upperBound] &- before[segment.rows.lowerBound])
            change[segment.events.lowerBound] &+= pages
            change[segment.events.upperBound] &-= pages
        }
        var sum: Int64 = 0
        return change.dropLast().map {
            sum &+= $0
            return sum
        }
    }
}

extension RecordedTrace {
    /// The pages that an event is about, none for those about no page.
    func pages(_ event: Int, _ kind: EventKind) -> (page: UInt64, pages: UInt64) {
        func covering(_ start: UInt64?, _ size: UInt64?) -> (page: UInt64, pages: UInt64) {
            guard let start, let size, size > 0 else { return (0, 0) }
            let last = start.addingReportingOverflow(size - 1)
            guard !last.overflow else { return (0, 0) }
            return (start >> 12, last.partialValue >> 12 - start >> 12 + 1)
        }
        switch kind {
        case .boot: return covering(0, number(event, .ramBytes))
        case .ioctl, .busy, .failedCall:
            return covering(number(event, .gpa) ?? number(event, .offset), number(event, .size))
        case .hypercall:
            switch number(event, .number).flatMap(GuestCallNumber.init(rawValue:)) {
            case .mapGPARange, .hold:
                let size = number(event, .a1)?.multipliedReportingOverflow(by: pageSize)
                return covering(number(event, .a0), size.flatMap { $0.overflow ? nil : $0.partialValue })
            case .peek, .poke, .state: return covering(number(event, .a0), 1)
            case .release, .yield, nil: return (0, 0)
            }
        case .resume, .wait: return (0, 0)
        default:
            // Where there is neither RAM nor a page.
            if shape(event).event == .mmio { return (0, 0) }
            return covering(number(event, .gpa), number(event, .size) ?? number(event, .bytes) ?? 1)
        }
    }
}
