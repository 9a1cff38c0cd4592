import CKVMShim
import MiniVMM
import SystemPackage

/// One memslot: a range of guest-physical addresses and the file that serves it.
///
/// Guarded by the model's lock.
final class Memslot: @unchecked Sendable {
    let id: UInt32
    /// Of these dirty logging can be switched on and off, without a guest_memfd.
    fileprivate(set) var flags: UInt32
    /// Guest-physical, without the shared bit.
    let range: PageRange
    let userspaceAddress: UInt64
    let file: GuestFile
    /// Where in the file the slot begins, bytes.
    let fileOffset: UInt64
    /// Nil while it goes: another thread may still be in the file.
    private weak var vm: SoftVM?
    /// Pages in the second-stage tables, by byte offset in the slot (`private` stands for yes).
    private(set) var mapped: AttributeMap
    /// Pages that the guest has written, or faulted in, since the log was last taken, likewise; nil without
    /// `KVM_MEM_LOG_DIRTY_PAGES`.
    private var written: AttributeMap?
    /// KVM_MEMSLOT_INVALID: its pages are out of the tables, and the slot itself is still to go.
    var isInvalid = false

    init(
        _ vm: SoftVM, region: ckvm_userspace_memory_region2, range: PageRange, file: GuestFile,
        fileOffset: UInt64
    ) {
        self.vm = vm
        id = region.slot
        flags = region.flags
        self.range = range
        userspaceAddress = region.userspace_addr
        self.file = file
        self.fileOffset = fileOffset
        mapped = AttributeMap(size: range.size, initial: .shared)
        if region.flags & CKVM_MEM_LOG_DIRTY_PAGES != 0 { written = mapped }
    }

    /// Whether the file itself is the memory; otherwise it is what is mmapped at `userspace_addr`.
    var isGuestMemfd: Bool { flags & CKVM_MEM_GUEST_MEMFD != 0 }
    /// Writes are MMIO.
    var isReadOnly: Bool { flags & CKVM_MEM_READONLY != 0 }
    /// The pages of the file, bytes.
    var fileRange: PageRange? { PageRange(start: fileOffset, size: range.size) }

    /// The guest touched the page at this offset: it is in the tables now, and it exists.
    ///
    /// - Returns: whether it was not before.
    @discardableResult
    func noteMapped(_ offset: UInt64) -> Bool {
        let page = offset & ~(pageSize - 1)
        guard mapped.state(at: page) == .shared, let pages = PageRange(start: page, size: pageSize) else {
            return false
        }
        mapped.set(pages, to: .private)
        // It is mapped writable, whatever the access was.
        noteWritten(page)
        if let inFile = pages.advanced(by: fileOffset) { file.noteAllocated(inFile) }
        return true
    }

    /// Takes a part of the slot, by offset, out of the tables of all vCPUs.
    func zap(_ part: PageRange, deleted: Bool) {
        if mapped.uniformState(of: part) != .shared { mapped.set(part, to: .shared) }
        guard let gpas = part.advanced(by: range.start), let vm else { return }
        // Where the attribute itself says what an access is, none can mismatch, and the memory stays the same:
        // only the accounting starts again.
        vm.zap(gpas, keepingAccess: !deleted && isGuestMemfd && vm.takesKindFromPage)
    }

    /// The slot, or the file that it is bound to, goes.
    func zapAll() {
        if let all = PageRange(start: 0, size: range.size) { zap(all, deleted: true) }
    }

    var isOfDefaultVM: Bool { vm?.type == .default }

    /// The guest is about to write the page at this offset, or has.
    func noteWritten(_ offset: UInt64) {
        if let page = PageRange.covering(start: offset, size: 1) { written?.set(page, to: .private) }
    }

    /// The first 64 pages that were written, one bit each; all count as unwritten afterwards.
    func takeWritten() -> UInt64? {
        guard let log = written else { return nil }
        written = AttributeMap(size: range.size, initial: .shared)
        return (0..<64).reduce(0) { bits, page in
            log.state(at: UInt64(page) * pageSize) == .private ? bits | 1 << UInt64(page) : bits
        }
    }

    var isLogging: Bool { written != nil }

    /// A log that is switched on begins empty.
    fileprivate func setFlags(_ new: UInt32) {
        let isLogged = new & CKVM_MEM_LOG_DIRTY_PAGES != 0
        if isLogged != isLogging {
            written = isLogged ? AttributeMap(size: range.size, initial: .shared) : nil
        }
        flags = new
    }

    /// For whoever compares states.
    var writtenPages: AttributeMap? { written }

    func codeChanged(_ part: PageRange) {
        if let gpas = part.advanced(by: range.start) { vm?.codeChanged(gpas) }
    }
}

/// The slots of a VM, ascending by address: the rules of `KVM_SET_USER_MEMORY_REGION2`.
struct Memslots {
    private(set) var ascending: [Memslot] = []

    /// `KVM_CAP_NR_MEMSLOTS`.
    static let limit: UInt32 = 32764
    /// KVM_MEM_MAX_NR_PAGES, in bytes.
    private static let largest = (UInt64(1) << 31 - 1) * pageSize

    func slot(at gpa: UInt64) -> Memslot? {
        var low = 0
        var high = ascending.count
        while low < high {
            let middle = (low + high) / 2
            if ascending[middle].range.end <= gpa { low = middle + 1 } else { high = middle }
        }
        return low < ascending.count && ascending[low].range.contains(gpa) ? ascending[low] : nil
    }

    /// Creates, moves or deletes a slot.
    mutating func set(_ region: ckvm_userspace_memory_region2, of vm: SoftVM) throws(Errno) {
        try Self.checkFlags(region.flags)
        guard region.slot < Self.limit, region.memory_size <= Self.largest else { throw .invalidArgument }
        guard region.memory_size % pageSize == 0, region.guest_phys_addr % pageSize == 0,
            region.userspace_addr % pageSize == 0
        else { throw .invalidArgument }
        let old = ascending.first { $0.id == region.slot }
        guard region.memory_size > 0 else {
            guard let old else { throw .invalidArgument }
            return delete(old)
        }
        guard let range = PageRange(start: region.guest_phys_addr, size: region.memory_size),
            range.end <= UInt64(1) << (vm.sharedBit ?? GuestPhysical.bits)
        else { throw .invalidArgument }
        if let old {
            // A slot with a guest_memfd cannot change; it can only be deleted. Others can move, or be logged.
            let fixed = CKVM_MEM_READONLY | CKVM_MEM_GUEST_MEMFD
            guard (region.flags ^ old.flags) & fixed == 0, !old.isGuestMemfd, range.size == old.range.size,
                region.userspace_addr == old.userspaceAddress
            else { throw .invalidArgument }
            if range == old.range {
                old.setFlags(region.flags)
                vm.model.lastRunner = nil
                return
            }
        }
        guard !ascending.contains(where: { $0 !== old && $0.range.intersection(range) != nil }) else {
            throw .fileExists
        }
        let new = try Self.make(region, range, of: vm)
        if let old { delete(old) }
        ascending.insert(new, at: ascending.firstIndex { $0.range.start > range.start } ?? ascending.endIndex)
        new.file.bind(new)
    }

    /// Says of a slot that it is on its way out, or that it is not.
    ///
    /// - Returns: false without such a slot.
    func invalidate(_ id: UInt32, isInvalid: Bool) -> Bool {
        guard let slot = ascending.first(where: { $0.id == id }) else { return false }
        slot.isInvalid = isInvalid
        if isInvalid { zap(slot) }
        return true
    }

    /// On a default VM the tables of all slots go (`KVM_X86_QUIRK_SLOT_ZAP_ALL`), on others those of the slot.
    private func zap(_ slot: Memslot) {
        guard !slot.file.plants(.deletedSlotStaysMapped) else { return }
        slot.zapAll()
        if slot.isOfDefaultVM { for other in ascending { other.zapAll() } }
    }

    private mutating func delete(_ slot: Memslot) {
        zap(slot)
        if slot.file.plants(.attributesLostWithSlot), let pages = slot.fileRange {
            slot.file.attributes.set(pages, to: slot.file.initialState)
        }
        slot.file.unbind(slot)
        ascending.removeAll { $0 === slot }
    }

    private static func checkFlags(_ flags: UInt32) throws(Errno) {
        // Dirty logging and read-only are refused with a guest_memfd.
        let known =
            flags & CKVM_MEM_GUEST_MEMFD != 0
            ? CKVM_MEM_GUEST_MEMFD : CKVM_MEM_LOG_DIRTY_PAGES | CKVM_MEM_READONLY
        guard flags & ~known == 0 else { throw .invalidArgument }
    }

    private static func make(
        _ region: ckvm_userspace_memory_region2, _ range: PageRange, of vm: SoftVM
    ) throws(Errno) -> Memslot {
        guard region.flags & CKVM_MEM_GUEST_MEMFD != 0 else {
            guard let mapping = vm.model.mapping(covering: region.userspace_addr, size: range.size) else {
                throw .badAddress
            }
            let offset = mapping.fileOffset + (region.userspace_addr - mapping.address)
            return Memslot(vm, region: region, range: range, file: mapping.file, fileOffset: offset)
        }
        guard let file = vm.model.file(Int32(bitPattern: region.guest_memfd)) else {
            throw .badFileDescriptor
        }
        guard file.owner == vm.number || file.plants(.foreignFileBound),
            let inFile = PageRange(start: region.guest_memfd_offset, size: range.size),
            inFile.end <= file.size
        else { throw .invalidArgument }
        guard file.hasMemory(offset: inFile.start, length: inFile.size) else { throw SoftKVM.noMemoryBehind }
        guard !file.isBound(inFile) || file.plants(.pageBoundTwice) else { throw .fileExists }
        return Memslot(vm, region: region, range: range, file: file, fileOffset: inFile.start)
    }
}
