// SPDX-License-Identifier: MIT
/// The parts of RAM that are in use before the guest starts, and room between them.
struct MemoryPlacement {
    private var taken: [Range<UInt64>] = []

    /// Segments outside of the address space are ignored; ``GuestLayout`` refuses them.
    init(_ segments: [BootImage.Segment]) {
        for segment in segments {
            let (end, overflow) = segment.gpa.addingReportingOverflow(segment.size)
            if !overflow { take(segment.gpa..<end) }
        }
    }

    mutating func take(_ range: Range<UInt64>) {
        if !range.isEmpty { taken.append(range) }
    }

    func isFree(_ range: Range<UInt64>) -> Bool { !taken.contains { $0.overlaps(range) } }

    /// The lowest page-aligned address in `bounds` with `size` free bytes; nil if there is none.
    func lowest(_ size: UInt64, in bounds: Range<UInt64>) -> UInt64? {
        var start = aligned(bounds.lowerBound)
        while let end = fitting(start, size, bounds) {
            guard let clash = taken.first(where: { $0.overlaps(start..<end) }) else { return start }
            start = aligned(clash.upperBound)
        }
        return nil
    }

    /// The highest page-aligned address in `bounds` with `size` free bytes; nil if there is none.
    func highest(_ size: UInt64, in bounds: Range<UInt64>) -> UInt64? {
        var end = bounds.upperBound
        while end >= bounds.lowerBound, end - bounds.lowerBound >= size {
            let start = (end - size) & ~(pageSize - 1)
            guard start >= bounds.lowerBound else { return nil }
            guard let clash = taken.first(where: { $0.overlaps(start..<start + size) }) else { return start }
            end = clash.lowerBound
        }
        return nil
    }

    private func aligned(_ address: UInt64) -> UInt64 {
        let (sum, overflow) = address.addingReportingOverflow(pageSize - 1)
        return overflow ? .max : sum & ~(pageSize - 1)
    }

    private func fitting(_ start: UInt64, _ size: UInt64, _ bounds: Range<UInt64>) -> UInt64? {
        let (end, overflow) = start.addingReportingOverflow(size)
        return overflow || end > bounds.upperBound ? nil : end
    }
}
