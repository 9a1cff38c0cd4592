// SPDX-License-Identifier: MIT
/// A set of pages of a file or an address space, stored as sorted runs.
public struct PageSet: Hashable, Sendable {
    private var map: RunMap<Bool>

    /// An empty set.
    ///
    /// - Parameter size: the address range that pages can be in, in bytes from 0; a multiple of ``pageSize``.
    public init(size: UInt64) { map = RunMap(size: size, initial: false) }

    /// The address range that pages can be in, in bytes from 0.
    public var size: UInt64 { map.size }
    /// Also true for a set of size 0.
    public var isEmpty: Bool { map.runCount == 1 && map.value(at: 0) != true }

    /// Whether the set contains the page at this byte offset.
    public func contains(_ offset: UInt64) -> Bool { map.value(at: offset) == true }
    /// Whether the set contains all pages of the range.
    public func contains(_ range: PageRange) -> Bool { map.uniformValue(of: range) == true }
    /// Whether the set contains no page of the range.
    public func isDisjoint(with range: PageRange) -> Bool { first(in: range) == nil }

    /// Adds all pages of the range. Pages past ``size`` are ignored.
    public mutating func insert(_ range: PageRange) {
        if !contains(range) { map.set(range, to: true) }
    }

    /// Removes all pages of the range. Pages that are not in the set are ignored.
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

    /// Byte offset of the lowest page of `range` in the set.
    public func first(in range: PageRange) -> UInt64? {
        for run in map.runs(in: range) where run.value { return run.range.start }
        return nil
    }

    /// Byte offset of the highest page of `range` in the set.
    public func last(in range: PageRange) -> UInt64? {
        var last: UInt64?
        for run in map.runs(in: range) where run.value { last = run.range.end - pageSize }
        return last
    }

    /// Number of pages of `range` in the set.
    public func count(in range: PageRange) -> UInt64 { map.bytes(true, in: range) / pageSize }

    /// Number of pages in the set.
    public var count: UInt64 { all.map { count(in: $0) } ?? 0 }

    /// All pages that the set can contain; nil for a set of size 0.
    public var all: PageRange? { PageRange(start: 0, size: size) }
}
