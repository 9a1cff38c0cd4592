// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// A guest_memfd of an adapter that splits a region into memslots by page state. Guarded by
/// ``CarvedVM/memory``'s lock.
protocol CarvedFile: AnyObject, Sendable {
    /// Whether the alias that does not match a page's state has a memslot too, a shut one. Otherwise it has none,
    /// and an access there is MMIO.
    static var shutsOtherAlias: Bool { get }

    /// The descriptor by which a region names the file.
    var descriptor: Int32 { get }
    /// The descriptor that its memslots are bound to; nil for a memfd, which no slot names.
    var boundDescriptor: Int32? { get }
    var attributes: AttributeMap { get set }

    /// The host address that the kernel uses for its own accesses to the first byte of a region.
    func userspaceAddress(of region: ckvm_userspace_memory_region2) -> UInt64
}

/// Files, regions and page states of a VM, from which the memslots of the base backend are carved.
///
/// A value without a lock of its own; ``CarvedVM/memory`` guards it.
struct CarvedMemory<File: CarvedFile> {
    /// A memslot as the caller sees it: one region, however many slots it is split into in the base backend.
    struct Region {
        let slot: UInt32
        /// Guest-physical address, without the shared bit.
        let range: PageRange
        let file: File
        /// The region's bytes in the file.
        let bytes: PageRange
        /// The host address that the kernel uses for its own accesses to the first byte.
        let userspaceAddress: UInt64
        /// A power of two. No base slot crosses a multiple of this offset in the file. Creating a slot costs KVM about 0.4 ms per GiB
        /// of its size, and a conversion recreates the slots around it.
        let chunk: UInt64
    }

    /// Nil for a guest that converts explicitly: one alias, one plain slot.
    let sharedMask: UInt64?
    /// Open files. A closed file stays alive in its regions and mappings.
    var files: [File] = []
    /// Ascending by address.
    private(set) var regions: [Region] = []
    var slots: BaseSlots
    /// Regions without a guest_memfd: the base slot number and the guest-physical range.
    var plain: [UInt32: (id: UInt32, range: PageRange)] = [:]

    init(slots: BaseSlots, sharedMask: UInt64?) {
        self.slots = slots
        self.sharedMask = sharedMask
    }

    func file(descriptor: Int32) -> File? { files.first { $0.descriptor == descriptor } }

    // MARK: regions

    mutating func insert(_ region: Region) throws(Errno) {
        var change = BaseSlots.Change()
        carve(region, region.bytes, into: &change.created)
        try slots.apply(change)
        let place = regions.firstIndex { $0.range.start > region.range.start } ?? regions.endIndex
        regions.insert(region, at: place)
    }

    mutating func remove(_ region: Region) throws(Errno) {
        var change = BaseSlots.Change()
        carve(region, region.bytes, into: &change.deleted)
        try slots.apply(change)
        regions.removeAll { $0.slot == region.slot }
    }

    /// Appends the base slots for `bytes` of a region: each run of one state becomes one slot, at the matching alias.
    /// The other alias gets a shut slot or none.
    private func carve(_ region: Region, _ bytes: PageRange, into slots: inout [BaseSlot]) {
        let file = region.file
        let descriptor = file.boundDescriptor
        func slot(_ bytes: PageRange, _ alias: UInt64) -> BaseSlot {
            BaseSlot(
                gpa: region.range.start + (bytes.start - region.bytes.start) | alias, size: bytes.size,
                userspaceAddress: region.userspaceAddress + (bytes.start - region.bytes.start),
                guestMemfd: descriptor, offset: bytes.start)
        }
        guard let sharedMask else {
            slots.append(slot(region.bytes, 0))
            return
        }
        // Usually three slots: a page, and the runs before and after it.
        slots.reserveCapacity(slots.count + 3)
        for run in file.attributes.runs(in: bytes) {
            let alias = run.value == .shared ? sharedMask : 0
            var position = run.range.start
            while position < run.range.end {
                let length = min(region.chunk - position & (region.chunk - 1), run.range.end - position)
                if let piece = PageRange(start: position, size: length) {
                    let open = slot(piece, alias)
                    slots.append(open)
                    if File.shutsOtherAlias {
                        slots.append(
                            .shut(gpa: open.gpa ^ sharedMask, size: length, offset: open.gpa & ~sharedMask))
                    }
                }
                position += length
            }
        }
    }

    /// Whether the memslots of a file depend on its page states.
    func isCarved(_ file: File) -> Bool { sharedMask != nil && regions.contains { $0.file === file } }

    /// Sets the states of `range` of a file.
    ///
    /// - Returns: the base slots to change.
    func set(_ range: PageRange, of file: File, to state: PageState) -> BaseSlots.Change {
        var change = BaseSlots.Change()
        guard isCarved(file) else {
            file.attributes.set(range, to: state)
            return change
        }
        // A file page is bound to at most one region, so the regions are independent of each other.
        var places: [(region: Int, bytes: PageRange)] = []
        for index in regions.indices where regions[index].file === file {
            if let bytes = affected(by: range, regions[index]) { places.append((index, bytes)) }
        }
        for place in places { carve(regions[place.region], place.bytes, into: &change.deleted) }
        file.attributes.set(range, to: state)
        for place in places { carve(regions[place.region], place.bytes, into: &change.created) }
        change.dropCommon()
        return change
    }

    /// The bytes of a region whose slots may change with the states of `range`. Includes the neighbouring runs up to
    /// the end of their chunks, because a slot that grows or shrinks has to be recreated.
    private func affected(by range: PageRange, _ region: Region) -> PageRange? {
        guard let touched = range.intersection(region.bytes) else { return nil }
        let attributes = region.file.attributes
        let before = touched.start - min(touched.start, 1)
        let floor = touched.start & ~(region.chunk - 1)
        let ceiling = touched.end + (0 &- touched.end) & (region.chunk - 1)
        let low = max(attributes.run(containing: before)?.range.start ?? 0, floor)
        let high = min(attributes.run(containing: touched.end)?.range.end ?? touched.end, ceiling)
        return PageRange(start: low, size: high - low)?.intersection(region.bytes)
    }

    // MARK: accesses

    /// A memory fault of the base backend in the caller's terms: without the shared bit, wanting the alias's state.
    func translated(_ fault: ckvm_run_memory_fault) -> ckvm_run_memory_fault {
        guard let place = place(of: fault.gpa, length: 1), let alias = place.alias else { return fault }
        var fault = fault
        fault.gpa = place.gpa
        fault.flags &= ~CKVM_MEMORY_EXIT_FLAG_PRIVATE
        if alias == .private { fault.flags |= CKVM_MEMORY_EXIT_FLAG_PRIVATE }
        return fault
    }

    /// The target of a guest-physical access.
    struct Target {
        let file: File
        /// Byte offset in the file.
        let offset: UInt64
        /// Guest-physical address without the shared bit.
        let gpa: UInt64
        /// The page state that the access requires; nil accepts either.
        let alias: PageState?
    }

    /// - Returns: nil unless the whole access is in one region with a guest_memfd.
    func place(of address: UInt64, length: UInt64) -> Target? {
        let gpa = address & ~(sharedMask ?? 0)
        guard let region = regions.last(where: { $0.range.start <= gpa }), gpa < region.range.end,
            length <= region.range.end - gpa
        else { return nil }
        return Target(
            file: region.file, offset: region.bytes.start + (gpa - region.range.start), gpa: gpa,
            alias: sharedMask.map { address & $0 != 0 ? .shared : .private })
    }
}
