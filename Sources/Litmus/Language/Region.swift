// SPDX-License-Identifier: MIT
import MiniVMM

/// A file as the monitor has it: a part of the guest's memory, or the whole of it.
struct Region: Sendable, Hashable {
    let name: Name
    /// Guest-physical; of a file that is asked for by its own name, the file.
    let gpa: PageRange

    /// The pages of the file at these guest-physical addresses.
    func extent(at part: PageRange) -> Extent {
        Extent(name, offset: part.start - gpa.start, size: part.size)
    }
}

extension [Memory] {
    /// The guest's memory: every memory that is bound, one after the other from guest-physical 0. The place
    /// of a region is the number of its memslot.
    var regions: [Region] {
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
    /// The regions of a guest-physical range, with the parts of it that lie in them.
    func parts(of range: PageRange) -> [(region: Region, gpa: PageRange)] {
        compactMap { region in region.gpa.intersection(range).map { (region, $0) } }
    }

    /// The region of a guest-physical address.
    func region(at gpa: UInt64) -> Region? { first { $0.gpa.contains(gpa) } }

    /// The files' parts that a step is about: one, unless it names the guest's memory.
    func extents(_ extent: Extent) -> [Extent] {
        guard extent.name == .guest else { return [extent] }
        guard let range = PageRange.covering(start: extent.offset, size: extent.size) else { return [] }
        return parts(of: range).map { region, part in region.extent(at: part) }
    }
}
