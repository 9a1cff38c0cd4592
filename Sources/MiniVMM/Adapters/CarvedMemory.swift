// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// A guest_memfd of an adapter whose memslots follow the states of its pages. Guarded by the lock of
/// ``CarvedVM/memory``.
protocol CarvedFile: AnyObject, Sendable {
    /// The alias that does not match a page's state has a memslot as well, one that is shut. Elsewhere it has none,
    /// and an access there is MMIO.
    static var shutsOtherAlias: Bool { get }

    /// The number by which a region names the file.
    var descriptor: Int32 { get }
    /// What its memslots are bound to; nil for a memfd, which none names.
    var boundDescriptor: Int32? { get }
    var attributes: AttributeMap { get set }

    /// Where the kernel's own accesses to the first byte of a region go.
    func userspaceAddress(of region: ckvm_userspace_memory_region2) -> UInt64
}

/// Files, regions and page states of a VM: the map that the memslots below are carved after.
///
/// A value without a lock of its own; ``CarvedVM/memory`` guards it.
struct CarvedMemory<File: CarvedFile> {
    /// A memslot as the caller sees it: one region, whatever is carved out below.
    struct Region {
        let slot: UInt32
        /// Guest-physical, without the shared bit.
        let range: PageRange
        let file: File
        /// The bytes of the file.
        let bytes: PageRange
        /// Where the kernel's own accesses to the first byte go.
        let userspaceAddress: UInt64
        /// No slot below crosses a multiple of this in the file. KVM's bookkeeping of a slot grows with it
        /// (0.4 ms a GiB each time one is made), and a conversion makes the slots around it anew.
        let chunk: UInt64
    }

    /// Nil for a guest that asks explicitly: one alias, one plain slot.
    let sharedMask: UInt64?
    /// Those that somebody has open. A closed one lives on in its regions and mappings.
    var files: [File] = []
    /// Ascending by address.
    private(set) var regions: [Region] = []
    var slots: BaseSlots
    /// Regions without a guest_memfd: the number below, and where.
    var plain: [UInt32: (id: UInt32, range: PageRange)] = [:]

    init(slots: BaseSlots, sharedMask: UInt64?) {
        self.slots = slots
        self.sharedMask = sharedMask
    }

    func file(descriptor: Int32) -> File? { files.first { $0.descriptor == descriptor } }

    // MARK: regions

    mutating func insert(_ region: Region) throws(Errno) {
        var change = BaseSlots.Change()
        carve(region, region.bytes, into: &change.new)
        try slots.apply(change)
        let place = regions.firstIndex { $0.range.start > region.range.start } ?? regions.endIndex
        regions.insert(region, at: place)
    }

    mutating func remove(_ region: Region) throws(Errno) {
        var change = BaseSlots.Change()
        carve(region, region.bytes, into: &change.gone)
        try slots.apply(change)
        regions.removeAll { $0.slot == region.slot }
    }

    /// Appends the slots below that stand for `bytes` of a region: a run of one state is one slot, at its alias. The
    /// other alias has none, or one that is shut.
    private func carve(_ region: Region, _ bytes: PageRange, into slots: inout [BaseSlot]) {
        let file = region.file
        func slot(_ bytes: PageRange, _ alias: UInt64) -> BaseSlot {
            BaseSlot(
                gpa: region.range.start + (bytes.start - region.bytes.start) | alias, size: bytes.size,
                userspaceAddress: region.userspaceAddress + (bytes.start - region.bytes.start),
                guestMemfd: file.boundDescriptor, offset: bytes.start)
        }
        guard let sharedMask else {
            slots.append(slot(region.bytes, 0))
            return
        }
        // A page and what is before and after it, mostly.
        slots.reserveCapacity(slots.count + 3)
        for run in file.attributes.runs(in: bytes) {
            let alias = run.value == .shared ? sharedMask : 0
            var position = run.range.start
            while position < run.range.end {
                let length = min(region.chunk - position % region.chunk, run.range.end - position)
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

    /// Whether memslots follow the states of a file.
    func isCarved(_ file: File) -> Bool { sharedMask != nil && regions.contains { $0.file === file } }

    /// Sets the states of `range` of a file.
    ///
    /// - Returns: what has to change below.
    func set(_ range: PageRange, of file: File, to state: PageState) -> BaseSlots.Change {
        var change = BaseSlots.Change()
        guard isCarved(file) else {
            file.attributes.set(range, to: state)
            return change
        }
        // A file page is bound to one region at most, so the regions do not disturb each other.
        var places: [(region: Region, bytes: PageRange)] = []
        for region in regions where region.file === file {
            if let bytes = affected(by: range, region) { places.append((region, bytes)) }
        }
        for place in places { carve(place.region, place.bytes, into: &change.gone) }
        file.attributes.set(range, to: state)
        for place in places { carve(place.region, place.bytes, into: &change.new) }
        change.dropCommon()
        return change
    }

    /// The bytes of a region whose slots may change with the states of `range`: the neighbours as well, up to the
    /// end of their chunks, for a slot that grows or is cut is another.
    private func affected(by range: PageRange, _ region: Region) -> PageRange? {
        guard let touched = range.intersection(region.bytes) else { return nil }
        let attributes = region.file.attributes
        let before = touched.start - min(touched.start, 1)
        let floor = touched.start - touched.start % region.chunk
        let ceiling = touched.end + (region.chunk - touched.end % region.chunk) % region.chunk
        let low = max(attributes.run(containing: before)?.range.start ?? 0, floor)
        let high = min(attributes.run(containing: touched.end)?.range.end ?? touched.end, ceiling)
        return PageRange(start: low, size: high - low)?.intersection(region.bytes)
    }

    // MARK: accesses

    /// A memory fault of the kernel below as the caller knows it: without the shared bit, wanting what the alias says.
    func throughAlias(_ fault: ckvm_run_memory_fault) -> ckvm_run_memory_fault {
        guard let place = place(of: fault.gpa, length: 1), let alias = place.alias else { return fault }
        var fault = fault
        fault.gpa = place.gpa
        fault.flags &= ~CKVM_MEMORY_EXIT_FLAG_PRIVATE
        if alias == .private { fault.flags |= CKVM_MEMORY_EXIT_FLAG_PRIVATE }
        return fault
    }

    /// Where a guest-physical access lands.
    struct Target {
        let file: File
        /// Byte in the file.
        let offset: UInt64
        /// Without the shared bit.
        let gpa: UInt64
        /// What the access wants the page to be; nil takes what it is.
        let alias: PageState?
    }

    /// - Returns: nil if not all of the access is in one region of a guest_memfd.
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
