// SPDX-License-Identifier: MIT
import ConversionModel

/// A file of the monitor: a part of the guest's memory, or all of it.
package struct Region: Sendable, Hashable {
    package let name: Name
    /// Guest-physical; for a file that is requested by its own name, offsets in the file.
    package let gpa: PageRange

    package init(name: Name, gpa: PageRange) {
        self.name = name
        self.gpa = gpa
    }

    /// The pages of the file at these guest-physical addresses.
    package func extent(at part: PageRange) -> Extent {
        Extent(name, offset: part.start - gpa.start, size: part.size)
    }
}

extension [Memory] {
    /// The guest's memory: every bound memory, one after the other from guest-physical 0. The index of a region is the
    /// number of its memslot.
    package var regions: [Region] {
        var end: UInt64 = 0
        return filter { !$0.isUnbound }.compactMap { memory in
            let (size, overflow) = memory.pages.multipliedReportingOverflow(by: pageSize)
            guard !overflow, let gpa = PageRange(start: end, size: size) else { return nil }
            end = gpa.end
            return Region(name: memory.name, gpa: gpa)
        }
    }
}

extension [Region] {
    /// The regions that overlap a guest-physical range, with the overlapping parts.
    package func parts(of range: PageRange) -> [(region: Region, gpa: PageRange)] {
        compactMap { region in region.gpa.intersection(range).map { (region, $0) } }
    }

    /// The region of a guest-physical address.
    package func region(at gpa: UInt64) -> Region? { first { $0.gpa.contains(gpa) } }

    /// The parts of files that a step accesses: one, unless it names the guest's memory.
    package func extents(_ extent: Extent) -> [Extent] {
        guard extent.name == .guest else { return [extent] }
        guard let range = PageRange.covering(start: extent.offset, size: extent.size) else { return [] }
        return parts(of: range).map { region, part in region.extent(at: part) }
    }
}
