// SPDX-License-Identifier: MIT
import MiniVMM

/// The states of pages over time, in units of events.
///
/// Neighbouring pages with the same history share a row, and consecutive events in the same state are one
/// segment. A terabyte that becomes private at once is one rectangle; 10⁶ conversions are at most about 10⁶
/// rectangles.
public struct Timeline: Sendable {
    /// Neighbouring pages with the same history: each event is about all of them or none of them.
    public struct Row: Sendable, Equatable {
        /// Number of the first page: its guest-physical address in units of 4096 bytes.
        public let page: UInt64
        /// Number of pages, at least 1.
        public let pages: UInt64
        /// Whether no event is about these pages after the machine was set up. False for all rows if it would
        /// be true for all, or if there are at most 16 pages.
        public internal(set) var isQuiet = false

        /// Relative height in a picture: 1 for each page up to 4, then 4, and 4.5 for more than 16 pages; 1
        /// for a quiet row.
        public var weight: Double {
            isQuiet ? 1 : pages <= 4 ? Double(pages) : pages <= 16 ? 4 : 4.5
        }
    }

    /// The state that a rectangle of the picture shows. The first three are states of a page; overlays are drawn on top
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
        /// Overlay: the pages were held when a hole was punched. The holder keeps the old pages; new pages in
        /// their place are not held.
        case detached
        /// Overlay on private: SNP: the guest has not validated the pages (guest-invalid).
        case unvalidated
        /// Overlay on private: SNP and TDX: no host page belongs to the guest there yet.
        case unassigned
        /// Overlay on private: TDX: the guest has not accepted the pages.
        case pending
        /// Overlay on private: TDX: the host has blocked the pages.
        case blocked

        /// Whether the state is drawn on top of the state of a page.
        public var isOverlay: Bool { rawValue > State.private.rawValue }
        /// One character for the state, for rectangles that are too small for its name. No event uses the same
        /// letter as its sign.
        public var letter: String {
            switch self {
            case .unallocated: "·"
            case .shared: "s"
            case .private: "P"
            case .held: "H"
            case .converting: "c"
            case .failed: "!"
            case .hole: "○"
            case .detached: "D"
            case .unvalidated: "v"
            case .unassigned: "u"
            case .pending: "n"
            case .blocked: "k"
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

    /// The rows in ascending order, without gaps: pages between those of events are rows too.
    public private(set) var rows: [Row] = []
    /// The rectangles in no fixed order; overlays may cover page states.
    public private(set) var segments: [Segment] = []
    /// The conversions in the order in which they began.
    public private(set) var conversions: [Conversion] = []
    /// For each event the rows that it is about; empty if it is about no page.
    public private(set) var rowsOf: [Range<Int32>] = []
    /// For each event how a picture shows it.
    public private(set) var kinds: [EventKind] = []

    /// The first page and the number of pages of each event.
    private var pagesOf: [(page: UInt64, pages: UInt64)] = []

    /// Finds the rows, segments and conversions of a trace.
    public init(_ trace: RecordedTrace) {
        kinds = (0..<trace.count).map(trace.kind)
        pagesOf = (0..<trace.count).map { trace.pages($0, kinds[$0]) }
        findRows()
        findSegments(trace)
        findQuietRows(trace)
        pagesOf = []
    }

    /// The pages of all rows, and of the rows that are not quiet with the number of their contiguous blocks.
    public var pageCounts: (all: UInt64, active: UInt64, blocks: Int) {
        var counts: (all: UInt64, active: UInt64, blocks: Int) = (0, 0, 0)
        var wasQuiet = true
        for row in rows {
            counts.all &+= row.pages
            if !row.isQuiet {
                counts.active &+= row.pages
                if wasQuiet { counts.blocks += 1 }
            }
            wasQuiet = row.isQuiet
        }
        return counts
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

    /// Finds the rows without an event after the machine was set up: in a trace with a `boot` event, before the
    /// first event of a vCPU. Few pages have room enough, so that no row of them is quiet.
    private mutating func findQuietRows(_ trace: RecordedTrace) {
        guard pageCounts.all > 16 else { return }
        let hasBoot = kinds.contains(.boot)
        var isSetUp = !hasBoot
        // By row: how many events begin there less how many have ended.
        var change = [Int](repeating: 0, count: rows.count + 1)
        for event in 0..<trace.count {
            if !isSetUp { isSetUp = trace.isVCPU(event) }
            guard isSetUp, !rowsOf[event].isEmpty, kinds[event] != .boot, kinds[event] != .file else {
                continue
            }
            change[Int(rowsOf[event].lowerBound)] += 1
            change[Int(rowsOf[event].upperBound)] -= 1
        }
        var depth = 0
        let isActive = rows.indices.map { row in
            depth += change[row]
            return depth > 0
        }
        guard isActive.contains(true) else { return }
        for row in rows.indices { rows[row].isQuiet = !isActive[row] }
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
            overlays.visit(event, kinds[event], rows, trace, &found, &conversions)
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

    /// The number of pages in a state at each event. A page that two holders hold counts once.
    ///
    /// - Parameter events: number of events in the trace.
    public func counts(of state: State, events: Int) -> [Int64] {
        var begins = [[Int]](repeating: [], count: events + 1)
        var ends = begins
        for (index, segment) in segments.enumerated() where segment.state == state {
            begins[segment.events.lowerBound].append(index)
            ends[segment.events.upperBound].append(index)
        }
        var covered = CoveredPages(rows)
        return (0..<events).map { event in
            for index in ends[event] { covered.change(segments[index].rows, by: -1) }
            for index in begins[event] { covered.change(segments[index].rows, by: 1) }
            return Int64(truncatingIfNeeded: covered.count)
        }
    }
}

extension RecordedTrace {
    /// The first page and the number of pages that an event is about; no pages if it is about none.
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
            case .peek, .poke, .state, .hostActs: return covering(number(event, .a0), 1)
            case .release, .yield, nil: return (0, 0)
            }
        case .resume, .wait: return (0, 0)
        default:
            // An MMIO address has no page.
            if shape(event).event == .mmio { return (0, 0) }
            return covering(number(event, .gpa), number(event, .size) ?? number(event, .bytes) ?? 1)
        }
    }
}
