// SPDX-License-Identifier: MIT
/// The page size of guest_memfd: 4 KiB.
@inlinable public var pageSize: UInt64 { 4096 }

/// The state of a page of guest memory.
public enum PageState: String, Sendable, CaseIterable {
    /// Accessible to guest and host.
    case shared
    /// Accessible to the guest only. `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
    case `private`

    /// The opposite state.
    public var other: PageState { self == .shared ? .private : .shared }
}

/// A half-open range of bytes on page boundaries: file offsets or guest-physical addresses.
public struct PageRange: Hashable, Sendable {
    /// First byte.
    public let start: UInt64
    /// One past the last byte.
    public let end: UInt64

    /// - Returns: nil if a bound is not page aligned, the range is empty, or it wraps.
    @inlinable
    public init?(start: UInt64, size: UInt64) {
        let (end, overflow) = start.addingReportingOverflow(size)
        guard !overflow, size > 0, start % pageSize == 0, size % pageSize == 0 else { return nil }
        self.start = start
        self.end = end
    }

    /// The pages that `[start, start + size)` overlaps; nil if the range is empty or reaches past the last page.
    @inlinable
    public static func covering(start: UInt64, size: UInt64) -> PageRange? {
        let (end, overflow) = start.addingReportingOverflow(size)
        guard !overflow, size > 0 else { return nil }
        let (padded, past) = end.addingReportingOverflow(pageSize - 1)
        guard !past else { return nil }
        let first = start & ~(pageSize - 1)
        return PageRange(start: first, size: (padded & ~(pageSize - 1)) - first)
    }

    /// Bytes.
    @inlinable
    public var size: UInt64 { end - start }
    /// Pages of ``pageSize`` bytes; at least 1.
    @inlinable
    public var pageCount: UInt64 { size / pageSize }

    /// Whether the byte at this address or offset is in the range.
    @inlinable
    public func contains(_ address: UInt64) -> Bool { start <= address && address < end }
    /// Whether this range contains all pages of the other one.
    @inlinable
    public func contains(_ other: PageRange) -> Bool { start <= other.start && other.end <= end }

    /// The pages that are in both ranges; nil if there are none.
    @inlinable
    public func intersection(_ other: PageRange) -> PageRange? {
        let low = max(start, other.start)
        let high = min(end, other.end)
        return low < high ? PageRange(start: low, size: high - low) : nil
    }

    /// The same pages relative to `origin`; nil if the range starts below it.
    @inlinable
    public func offset(from origin: UInt64) -> PageRange? {
        start >= origin ? PageRange(start: start - origin, size: size) : nil
    }

    /// The range moved up by `distance` bytes; nil on overflow or if the distance is not page aligned.
    @inlinable
    public func advanced(by distance: UInt64) -> PageRange? {
        let (moved, overflow) = start.addingReportingOverflow(distance)
        return overflow ? nil : PageRange(start: moved, size: size)
    }

    /// The range in pieces of at most `size` bytes (a multiple of the page size), ascending.
    @inlinable
    public func chunks(of size: UInt64) -> PageChunks { PageChunks(rest: self, size: size) }
}

/// The sequence that ``PageRange/chunks(of:)`` returns.
public struct PageChunks: Sequence, IteratorProtocol, Sendable {
    @usableFromInline var position: UInt64
    @usableFromInline let end: UInt64
    @usableFromInline let size: UInt64

    @inlinable
    init(rest: PageRange, size: UInt64) {
        (position, end) = (rest.start, rest.end)
        self.size = size
    }

    /// The next piece, or nil at the end. The last piece may be shorter.
    @inlinable
    public mutating func next() -> PageRange? {
        guard position < end else { return nil }
        let piece = Swift.min(size, end - position)
        defer { position += piece }
        return PageRange(start: position, size: piece)
    }
}

extension PageRange: CustomStringConvertible {
    /// Both bounds in hexadecimal: `[0x1000, 0x3000)`.
    public var description: String {
        "[0x\(String(start, radix: 16)), 0x\(String(end, radix: 16)))"
    }
}
