// SPDX-License-Identifier: MIT
/// A set of pages of a file or an address space, kept as runs.
public struct PageSet: Hashable, Sendable {
    private var map: RunMap<Bool>

    /// An empty set.
    ///
    /// - Parameter size: bytes that pages can be in, from 0; a multiple of ``pageSize``.
    public init(size: UInt64) { map = RunMap(size: size, initial: false) }

    /// Bytes that pages can be in.
    public var size: UInt64 { map.size }
    /// True for a set of size 0, too.
    public var isEmpty: Bool { map.runCount == 1 && map.value(at: 0) != true }

    /// Whether the page at a byte offset is in the set.
    public func contains(_ offset: UInt64) -> Bool { map.value(at: offset) == true }
    /// Whether all pages of the range are in the set.
    public func contains(_ range: PageRange) -> Bool { map.uniformValue(of: range) == true }
    /// Whether no page of the range is in the set.
    public func isDisjoint(with range: PageRange) -> Bool { first(in: range) == nil }

    /// Adds all pages of the range. Pages past ``size`` are ignored.
    public mutating func insert(_ range: PageRange) {
        if !contains(range) { map.set(range, to: true) }
    }

    /// Removes all pages of the range, whether they are in the set or not.
    public mutating func remove(_ range: PageRange) {
        if map.uniformValue(of: range) != false { map.set(range, to: false) }
    }

    /// The pages of `range` that are in the set, as ranges in ascending order.
    public func ranges(in range: PageRange) -> [PageRange] {
        var ranges: [PageRange] = []
        for run in map.runs(in: range) where run.value { ranges.append(run.range) }
        return ranges
    }

    /// The pages of `range` that are not in the set, as ranges in ascending order.
    public func gaps(in range: PageRange) -> [PageRange] {
        var ranges: [PageRange] = []
        for run in map.runs(in: range) where !run.value { ranges.append(run.range) }
        return ranges
    }

    /// The lowest page of `range` that is in the set, by its byte offset.
    public func first(in range: PageRange) -> UInt64? {
        for run in map.runs(in: range) where run.value { return run.range.start }
        return nil
    }

    /// The highest page of `range` that is in the set, by its byte offset.
    public func last(in range: PageRange) -> UInt64? {
        var last: UInt64?
        for run in map.runs(in: range) where run.value { last = run.range.end - pageSize }
        return last
    }

    /// How many pages of `range` are in the set.
    public func count(in range: PageRange) -> UInt64 { map.bytes(true, in: range) / pageSize }

    /// How many pages are in the set.
    public var count: UInt64 { all.map { count(in: $0) } ?? 0 }

    /// All pages that can be in the set; nil of size 0.
    public var all: PageRange? { PageRange(start: 0, size: size) }
}
