import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

/// The inode of a guest_memfd: its pages, what each of them is, and who uses them.
///
/// Costs what was touched: the backing is a sparse memfd, the sets are sorted runs. Everything that changes is
/// guarded by the model's lock.
@safe final class GuestFile: @unchecked Sendable {
    let model: Model
    let vmType: VMType
    /// The number of the VM whose file it is: another one cannot bind it.
    let owner: UInt64
    /// Bytes.
    let size: UInt64
    let flags: GuestMemfdFlags
    private let backing: OwnedDescriptor
    /// All of the backing. The model reads and writes pages here, and the engine runs on them.
    private let memory: OwnedMapping
    /// Bytes of a file that have memory behind them: an address space is finite, and a file can be larger. Behind that a page
    /// has its state and nothing else, and nobody can map or bind it.
    static let mostMemory: UInt64 = 1 << 40
    /// Bytes of the backing.
    var memorySize: UInt64 { min(size, Self.mostMemory) }

    let initialState: PageState
    /// Private or shared, by byte offset.
    var attributes: AttributeMap
    /// Pages that exist (`private` stands for yes).
    private(set) var allocated: AttributeMap
    /// The host's mappings, each with what it has faulted in.
    private var hostMappings: [Weak<SoftHostMapping>] = []
    /// Pages whose memory has failed, by offset. Nobody can touch one until it is punched out.
    var poisoned: Set<UInt64> = []
    /// Where pages come from; what is set later goes first.
    var policies: [(range: PageRange, policy: MemoryPolicy)] = []
    /// The node of each page that is not on node 0, by offset.
    var nodes: [UInt64: UInt32] = [:]
    /// Page references beyond the file's own, by page offset.
    private var holds: [UInt64: [SoftPageHold.Reference]] = [:]
    /// Slots that are served from the file. Those with a guest_memfd never share a page of it.
    private var slots: [Memslot] = []
    /// Descriptors and host mappings of the file. A memslot is neither: it does not keep the file open.
    private var openReferences = 0

    init(
        _ model: Model, owner: UInt64, vmType: VMType, size: UInt64, flags: GuestMemfdFlags
    ) throws(Errno) {
        self.model = model
        self.owner = owner
        self.vmType = vmType
        self.size = size
        self.flags = flags
        let number = unsafe ckvm_memfd_create("guest_memfd")
        guard number >= 0 else { throw Errno(rawValue: CInt(truncatingIfNeeded: -number)) }
        backing = OwnedDescriptor(owning: Int32(number))
        let bytes = min(size, Self.mostMemory)
        guard ftruncate(backing.rawValue, Int(bytes)) == 0 else { throw Errno(rawValue: errno) }
        memory = try OwnedMapping(backing, length: bytes, reserve: false)
        initialState = flags.contains(model.faults.initSharedFlag) ? .shared : .private
        attributes = AttributeMap(size: size, initial: initialState)
        allocated = AttributeMap(size: size, initial: .shared)
    }

    var descriptor: Int32 { backing.rawValue }

    /// `mmap` of the backing; past the end of the file it is only address space.
    func mapBacking(offset: UInt64, length: UInt64) throws(Errno) -> OwnedMapping {
        try OwnedMapping(backing, offset: offset, length: length, reserve: false)
    }

    /// Whether there is memory behind all of these bytes, as far as they are in the file.
    func hasMemory(offset: UInt64, length: UInt64) -> Bool {
        let (end, overflow) = offset.addingReportingOverflow(length)
        return size <= Self.mostMemory || !overflow && end <= Self.mostMemory
    }

    /// The page at `offset`, and what follows it in the file. The offset is inside the file.
    func bytes(at offset: UInt64) -> UnsafeMutableRawPointer { unsafe memory.base + Int(offset) }

    // MARK: what the host does

    func add(_ mapping: SoftHostMapping) {
        hostMappings.removeAll { $0.object == nil }
        hostMappings.append(Weak(mapping))
    }

    /// The mappings that have a page in their page tables keep that its memory has failed.
    func noteFailure(of page: PageRange) {
        for case let mapping? in hostMappings.map(\.object) where mapping.mappedPages(in: page) == 1 {
            mapping.failed.insert(page.start - mapping.fileOffset)
        }
    }

    /// Pages of `range` in the page tables of all mappings together.
    func hostMappedPages(in range: PageRange) -> UInt64 {
        hostMappings.reduce(0) { $0 + ($1.object?.mappedPages(in: range) ?? 0) }
    }

    /// How many of `count` bytes at `offset` the host can touch; touching faults the pages in, into the page tables of
    /// `mapping`.
    ///
    /// - Throws: `EFAULT` if the first page is private or past the end.
    func faultInForHost(
        _ offset: UInt64, _ count: UInt64, evenPrivate: Bool, through mapping: SoftHostMapping?
    ) throws(Errno) -> UInt64 {
        guard offset < size, let pages = PageRange.covering(start: offset, size: min(count, size - offset))
        else {
            throw .badAddress
        }
        var shared = pages
        if !evenPrivate, attributes.uniformState(of: pages) != .shared {
            guard let run = attributes.run(containing: pages.start), run.state == .shared,
                let readable = run.range.intersection(pages)
            else { throw .badAddress }
            shared = readable
        }
        if !poisoned.isEmpty {
            guard let sound = soundRun(of: shared, around: shared.start) else { throw .badAddress }
            shared = sound
        }
        mapping?.noteMapped(shared)
        noteAllocated(shared)
        return min(count, shared.end - offset)
    }

    func noteAllocated(_ range: PageRange) {
        if !policies.isEmpty { place(range) }
        if allocated.uniformState(of: range) != .private { allocated.set(range, to: .private) }
    }

    /// `fallocate` with `FALLOC_FL_KEEP_SIZE`.
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        guard length > 0, offset <= UInt64(Int64.max), length <= UInt64(Int64.max) else {
            throw .invalidArgument
        }
        guard offset + length <= UInt64(Int64.max) else { throw .fileTooLarge }
        let rounding = plants(.unalignedPunchAccepted) ? ~(pageSize - 1) : .max
        guard let range = PageRange(start: offset & rounding, size: length & rounding) else {
            throw .invalidArgument
        }
        guard punchHole else {
            guard range.end <= size else { throw .invalidArgument }
            guard hasMemory(offset: range.start, length: range.size) else { throw SoftKVM.noMemoryBehind }
            return noteAllocated(range)
        }
        guard let range = range.intersection(PageRange(start: 0, size: size) ?? range) else { return }
        if !plants(.punchKeepsHolders) { detachHolds(in: range) }
        if plants(.punchChangesState) { attributes.set(range, to: .shared) }
        if plants(.punchKeepsContents) { return }
        if let part = PageRange(start: 0, size: Self.mostMemory)?.intersection(range) {
            let result = ckvm_fallocate(backing.rawValue, true, Int64(part.start), Int64(part.size))
            guard result == 0 else { throw Errno(rawValue: CInt(truncatingIfNeeded: -result)) }
        }
        zapGuest(range)
        dropHostMappings(of: range, zaps: false)
        allocated.set(range, to: .shared)
        // The fresh page has other memory.
        poisoned = poisoned.filter { !range.contains($0) }
        nodes = nodes.filter { !range.contains($0.key) }
    }

    // MARK: page references

    func addHold(_ reference: SoftPageHold.Reference, page: UInt64) {
        holds[page, default: []].append(reference)
    }

    func dropHold(_ reference: SoftPageHold.Reference, page: UInt64) {
        if plants(.releaseForgotten) { return }
        holds[page]?.removeAll { $0 === reference }
        if holds[page]?.isEmpty == true { holds[page] = nil }
    }

    /// Ascending.
    func heldPages() -> [(offset: UInt64, count: Int)] {
        holds.keys.sorted().map { ($0, holds[$0]?.count ?? 0) }
    }

    func lowestPageInUse(in range: PageRange) -> UInt64? {
        if holds.isEmpty { return nil }
        if range.pageCount == 1 { return holds[range.start] == nil ? nil : range.start }
        return holds.keys.lazy.filter { range.contains($0) }.min()
    }

    /// For a planted fault.
    func highestPageInUse(in range: PageRange) -> UInt64? {
        holds.keys.lazy.filter { range.contains($0) }.max()
    }

    /// vCPUs that were about to map the page have done so.
    func endFault(on page: UInt64) {
        holds[page]?.removeAll(where: \.isFault)
        if holds[page]?.isEmpty == true { holds[page] = nil }
    }

    /// A punched page leaves the file; whoever holds it keeps the old one (hazard A11).
    private func detachHolds(in range: PageRange) {
        for page in holds.keys.filter({ range.contains($0) }) {
            let old = unsafe [UInt8](UnsafeRawBufferPointer(start: bytes(at: page), count: Int(pageSize)))
            for reference in holds.removeValue(forKey: page) ?? [] { reference.detached = old }
        }
    }

    // MARK: who has it open

    /// A memslot outlives the last of these; every access through it is then a memory fault.
    var isClosed: Bool { openReferences == 0 }

    func noteOpened() { openReferences += 1 }

    func noteClosed() {
        openReferences -= 1
        guard isClosed else { return }
        for slot in slots where slot.isGuestMemfd { slot.zapAll() }
    }

    // MARK: what the guest sees

    func bind(_ slot: Memslot) { slots.append(slot) }
    func unbind(_ slot: Memslot) { slots.removeAll { $0 === slot } }

    /// Whether a page of the range is bound to a slot.
    func isBound(_ range: PageRange) -> Bool {
        slots.contains { $0.isGuestMemfd && $0.fileRange?.intersection(range) != nil }
    }

    /// Takes the range out of all second-stage tables.
    func zapGuest(_ range: PageRange) {
        forEachSlot(serving: range) { slot, part in slot.zap(part, deleted: false) }
    }

    /// The host wrote to these pages: code that was translated from them is stale.
    func noteHostWrite(_ range: PageRange) {
        forEachSlot(serving: range) { slot, part in slot.codeChanged(part) }
    }

    /// The host's mappings of the range are gone, and with them what a slot shows the guest whose `userspace_addr` leads
    /// into one of them (the MMU notifier): it does not ask whether the slot has a file.
    ///
    /// - Parameters:
    ///   - mapping: only this one is; nil is all of them.
    ///   - zaps: as of ``SoftHostMapping/noteUnmapped(_:zaps:)``.
    func dropHostMappings(of range: PageRange, only mapping: SoftHostMapping? = nil, zaps: Bool = true) {
        if let mapping {
            mapping.noteUnmapped(range)
        } else {
            for mapping in hostMappings { mapping.object?.noteUnmapped(range, zaps: zaps) }
        }
        zapGuest(through: mapping, range)
    }

    /// Takes the range out of the second-stage tables of slots that lead into a mapping, or into any (nil).
    func zapGuest(through mapping: SoftHostMapping?, _ range: PageRange) {
        forEachSlot(serving: range) { slot, part in
            let isInside =
                mapping.map {
                    $0.address <= slot.userspaceAddress && slot.userspaceAddress - $0.address < $0.length
                }
                ?? (slot.userspaceAddress != 0)
            if isInside { slot.zap(part, deleted: false) }
        }
    }

    func forEachSlot(serving range: PageRange, _ body: (Memslot, _ inSlot: PageRange) -> Void) {
        for slot in slots {
            if let part = slot.fileRange?.intersection(range), let inSlot = part.offset(from: slot.fileOffset)
            {
                body(slot, inSlot)
            }
        }
    }

    /// What a conversion does to contents. Where they are not preserved, a page that changes state comes out with other
    /// bytes: from the seed where nothing is promised, zeros where they stay behind. Where the call says it, that holds
    /// for all pages of its range. Pages that do not exist have none to lose.
    func settleContents(of range: PageRange, changingTo state: PageState, _ mode: ContentMode) {
        if model.configuration.contentDesign != nil {
            if mode.isEmpty { overwriteChanging(range, to: state) { model.generator.next() } }
            return
        }
        switch state == .private ? model.contentFate.toPrivate : model.contentFate.toShared {
        case .preserved: return
        case .undefined: overwriteChanging(range, to: state) { model.generator.next() }
        case .lost: overwriteChanging(range, to: state) { 0 }
        case .byFlag where mode == .preserve: return
        case .byFlag where mode == .zero: overwrite(range) { 0 }
        case .byFlag: overwrite(range) { model.generator.next() }
        }
    }

    private func overwriteChanging(_ range: PageRange, to state: PageState, with word: () -> UInt64) {
        for (changing, old) in attributes.runs(in: range) where old != state {
            overwrite(changing, with: word)
        }
    }

    /// Overwrites the pages of the range that exist.
    func overwrite(_ range: PageRange, with word: () -> UInt64) {
        guard let range = PageRange(start: 0, size: Self.mostMemory)?.intersection(range) else { return }
        for (part, exists) in allocated.runs(in: range) where exists == .private {
            let words = unsafe bytes(at: part.start).assumingMemoryBound(to: UInt64.self)
            for index in 0..<Int(part.size / 8) { unsafe words[index] = word() }
            noteHostWrite(part)
        }
    }
}

extension PlantedFaults {
    /// The flag without which a file starts private.
    fileprivate var initSharedFlag: GuestMemfdFlags {
        // No file has the unknown flag, and every one has none at all.
        contains(.initSharedIgnored)
            ? GuestMemfdFlags(rawValue: 1 << 63) : contains(.startsShared) ? [] : .initShared
    }
}
