// SPDX-License-Identifier: MIT
import MiniVMM

/// Pages over time: which state each was in, from which event to which.
///
/// Pages that nothing tells apart share a row, and a state that lasts is one segment: a terabyte that becomes private
/// at once is one rectangle, and 10⁶ conversions are at most some 10⁶ of them.
public struct Timeline: Sendable {
    /// Neighbouring pages that are never treated differently.
    public struct Row: Sendable, Equatable {
        public let page: UInt64
        public let pages: UInt64

        /// How much height it is worth: a few pages count each, of many only that they are many.
        public var weight: Double {
            pages <= 4 ? Double(pages) : pages <= 16 ? 4 : 4.5
        }
    }

    /// What a rectangle of the picture says. The first three are what a page is, the others lie on top of that.
    public enum State: UInt8, Sendable, CaseIterable {
        case unallocated, shared, `private`, held, converting, failed
        /// A hole was punched; unallocated until somebody touches it.
        case hole

        public var isOverlay: Bool { rawValue > State.private.rawValue }
        /// The letter that stands for it.
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

    public struct Segment: Sendable, Equatable {
        public let state: State
        public let rows: Range<Int>
        /// The event since which, and the first at which no longer.
        public let events: Range<Int>
    }

    /// A conversion with what led to it and what came of it.
    public struct Conversion: Sendable, Equatable {
        public let start: Int
        /// Its last event; the trace's last where it never ended.
        public var end: Int
        /// The memory fault or hypercall that asked for it.
        public var cause: Int?
        /// Where the vCPU went back into the guest.
        public var resume: Int?
        public var succeeded = false
    }

    public private(set) var rows: [Row] = []
    public private(set) var segments: [Segment] = []
    public private(set) var conversions: [Conversion] = []
    /// The rows that each event is about; empty for none.
    public private(set) var rowsOf: [Range<Int32>] = []
    public private(set) var kinds: [EventKind] = []

    /// The pages of an event: first and count.
    private var pagesOf: [(page: UInt64, pages: UInt64)] = []

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

    /// Bytes, in pages, of a state at the end of each event; for counters.
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
