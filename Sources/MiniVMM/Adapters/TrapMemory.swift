import CKVMShim
import SystemPackage

/// Files, regions and page states of a VM: the map that the memslots below are carved after.
///
/// A value without a lock of its own; ``TrapVM/memory`` guards it.
struct TrapMemory {
    /// A guest_memfd as the caller knows it.
    struct File {
        let backing: any KVMGuestMemfd
        /// The mapping that the kernel's own accesses use: all of the file, never protected, handed to nobody.
        let kernelView: any HostMapping
        /// Memslots may be bound to the file itself.
        let isGuestMemfd: Bool
        var attributes: AttributeMap
        /// The mappings that were handed out.
        var views: [WeakView] = []
        /// The pages each hold has, by file offset.
        var holds: [Int: [UInt64]] = [:]
        /// Nobody has the file any more; it goes with its last region.
        var isClosed = false

        /// The lowest page in `range` that somebody holds.
        func lowestHeldPage(in range: PageRange) -> UInt64? {
            holds.values.joined().filter(range.contains).min()
        }
    }

    struct WeakView {
        weak var view: TrapHostMapping?
    }

    /// A memslot as the caller sees it: one region, whatever is carved out below.
    struct Region {
        let slot: UInt32
        /// Guest-physical, without the shared bit.
        let range: PageRange
        let file: Int
        /// The bytes of the file.
        let bytes: PageRange
        /// No slot below crosses a multiple of this in the file. KVM's bookkeeping of a slot grows with it
        /// (0.4 ms a GiB each time one is made), and a conversion makes the slots around it anew.
        let chunk: UInt64
    }

    /// Nil for a guest that asks explicitly: one door, one plain slot.
    let sharedMask: UInt64?
    var files: [Int: File] = [:]
    /// Ascending by address.
    private(set) var regions: [Region] = []
    var slots: BaseSlots
    /// Regions without a guest_memfd: the number below, and where.
    var plain: [UInt32: (id: UInt32, range: PageRange)] = [:]
    private var nextNumber = 0

    init(slots: BaseSlots, sharedMask: UInt64?) {
        self.slots = slots
        self.sharedMask = sharedMask
    }

    /// A number that was never used before.
    mutating func number() -> Int {
        defer { nextNumber += 1 }
        return nextNumber
    }

    func file(descriptor: Int32) -> Int? { files.first { $0.value.backing.descriptor == descriptor }?.key }

    mutating func close(_ file: Int) {
        files[file]?.isClosed = true
        if !regions.contains(where: { $0.file == file }) { files[file] = nil }
    }

    // MARK: regions

    mutating func insert(_ region: Region) throws(Errno) {
        guard let file = files[region.file] else { throw .badFileDescriptor }
        var change = BaseSlots.Change()
        change.new = carve(region, region.bytes, file, file.attributes)
        try slots.apply(change)
        let place = regions.firstIndex { $0.range.start > region.range.start } ?? regions.endIndex
        regions.insert(region, at: place)
    }

    mutating func remove(_ region: Region) throws(Errno) {
        guard let file = files[region.file] else { return }
        var change = BaseSlots.Change()
        change.gone = carve(region, region.bytes, file, file.attributes)
        try slots.apply(change)
        regions.removeAll { $0.slot == region.slot }
        if file.isClosed { close(region.file) }
    }

    /// The slots below that stand for `bytes` of a region: a run of one state is one slot, at its door.
    private func carve(
        _ region: Region, _ bytes: PageRange, _ file: File, _ attributes: AttributeMap
    ) -> [BaseSlot] {
        func slot(_ bytes: PageRange, _ door: UInt64) -> BaseSlot {
            BaseSlot(
                gpa: region.range.start + (bytes.start - region.bytes.start) | door, size: bytes.size,
                userspaceAddress: file.kernelView.address + bytes.start,
                guestMemfd: file.isGuestMemfd ? file.backing.descriptor : nil, offset: bytes.start)
        }
        guard let sharedMask else { return [slot(region.bytes, 0)] }
        return attributes.runs(in: bytes).flatMap { run in
            run.range.pieces(between: region.chunk).map { slot($0, run.state == .shared ? sharedMask : 0) }
        }
    }

    /// What has to change below for `range` of a file to have the states of `after`.
    func change(of file: File, _ key: Int, _ range: PageRange, to after: AttributeMap) -> BaseSlots.Change {
        var change = BaseSlots.Change()
        guard sharedMask != nil else { return change }
        for region in regions where region.file == key {
            guard let touched = range.intersection(region.bytes) else { continue }
            // The neighbours as well, up to the end of their chunks: a slot that grows or is cut is another.
            let before = touched.start - min(touched.start, 1)
            let floor = touched.start - touched.start % region.chunk
            let ceiling = touched.end + (region.chunk - touched.end % region.chunk) % region.chunk
            let low = max(file.attributes.run(containing: before)?.range.start ?? 0, floor)
            let high = min(file.attributes.run(containing: touched.end)?.range.end ?? touched.end, ceiling)
            guard let bytes = PageRange(start: low, size: high - low)?.intersection(region.bytes)
            else { continue }
            change.add(
                from: carve(region, bytes, file, file.attributes), to: carve(region, bytes, file, after))
        }
        return change
    }

    // MARK: accesses

    /// Where a guest-physical access lands.
    struct Place {
        let file: Int
        /// Byte in the file.
        let offset: UInt64
        /// Without the shared bit.
        let gpa: UInt64
        /// What the access wants the page to be; nil takes what it is.
        let door: PageState?
    }

    /// - Returns: nil if not all of the access is in one region of a guest_memfd.
    func place(of address: UInt64, length: UInt64) -> Place? {
        let gpa = address & ~(sharedMask ?? 0)
        guard let region = regions.last(where: { $0.range.start <= gpa }), gpa < region.range.end,
            length <= region.range.end - gpa
        else { return nil }
        return Place(
            file: region.file, offset: region.bytes.start + (gpa - region.range.start), gpa: gpa,
            door: sharedMask.map { address & $0 != 0 ? .shared : .private })
    }

    /// The memory fault of an access: its first page whose state is not that of its door.
    func fault(at place: Place, length: UInt64) -> MemoryFault? {
        guard let door = place.door, let file = files[place.file],
            let pages = PageRange.covering(start: place.offset, size: length)
        else { return nil }
        for page in pages.chunks(of: pageSize) where file.attributes.state(at: page.start) != door {
            let gpa = (place.gpa - place.offset % pageSize) + (page.start - pages.start)
            return MemoryFault(
                gpa: gpa, size: pageSize, flags: door == .private ? CKVM_MEMORY_EXIT_FLAG_PRIVATE : 0)
        }
        return nil
    }
}

extension PageRange {
    /// The range, cut at the multiples of `size`.
    fileprivate func pieces(between size: UInt64) -> [PageRange] {
        var pieces: [PageRange] = []
        var position = start
        while position < end {
            let length = min(size - position % size, end - position)
            if let piece = PageRange(start: position, size: length) { pieces.append(piece) }
            position += length
        }
        return pieces
    }
}
