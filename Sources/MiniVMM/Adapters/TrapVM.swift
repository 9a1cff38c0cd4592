import CKVMShim
import Synchronization
import SystemPackage

/// A VM of ``MemslotTrapKVM``.
///
/// Lock order: ``gate``, then ``memory``. A change of memslots needs both.
final class TrapVM: KVMVirtualMachine {
    let base: any KVMVirtualMachine
    let gate = VCPUGate()
    let memory: Mutex<TrapMemory>
    private let backing: TrapBacking
    private let slotCount: UInt32

    init(
        over base: any KVMVirtualMachine, backing: TrapBacking, slotLimit: Int?, hasRegion2: Bool,
        sharedMask: UInt64?
    ) throws(Errno) {
        self.base = base
        self.backing = backing
        slotCount = try UInt32(clamping: base.checkExtension(.memslots))
        memory = Mutex(
            TrapMemory(
                slots: try BaseSlots(base, limit: slotLimit, hasRegion2: hasRegion2), sharedMask: sharedMask))
    }

    /// The same page stays, in both directions, unless the kernel below has it otherwise.
    var contentPromise: ContentPromise { backing == .inPlace ? base.contentPromise : .preserved }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if backing != .inPlace, let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }

    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        TrapVCPU(over: try base.createVCPU(id: id), of: self)
    }

    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        guard flags.isSubset(of: [.mmap, .initShared]), size <= UInt64(Int64.max),
            let bytes = PageRange(start: 0, size: size)
        else { throw .invalidArgument }
        let below = try backing.create(on: base, size: size, flags: flags)
        let file = TrapMemory.File(
            backing: below, kind: backing,
            kernelView: backing == .inPlace ? nil : try below.map(offset: 0, length: size),
            attributes: AttributeMap(
                size: bytes.size, initial: flags.contains(.initShared) ? .shared : .private))
        memory.withLock { $0.files.append(file) }
        return TrapGuestMemfd(file, flags: flags, of: self)
    }

    /// Checks as Linux does, then carves. `userspace_addr` of a region with a guest_memfd is not used unless the kernel
    /// below converts: else that gets a mapping that is always accessible.
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        let hasFile = region.flags & CKVM_MEM_GUEST_MEMFD != 0
        let end = region.guest_phys_addr.addingReportingOverflow(region.memory_size)
        guard region.slot < slotCount, !end.overflow,
            (region.guest_phys_addr | region.memory_size | region.userspace_addr) % pageSize == 0,
            !hasFile || region.flags == CKVM_MEM_GUEST_MEMFD
        else { throw .invalidArgument }
        try gate.withClosed { () throws(Errno) in
            try memory.withLock { memory throws(Errno) in
                let existing = memory.regions.first { $0.slot == region.slot }
                if region.memory_size == 0 {
                    if let existing { return try memory.remove(existing) }
                    return try memory.removePlain(region.slot)
                }
                // A slot with a guest_memfd is never modified, only deleted.
                guard existing == nil,
                    let range = PageRange(start: region.guest_phys_addr, size: region.memory_size)
                else { throw .invalidArgument }
                if hasFile {
                    try memory.addBound(region, at: range)
                } else {
                    try memory.setPlain(region, at: range)
                }
            }
        }
    }
}

extension TrapMemory {
    fileprivate mutating func addBound(
        _ region: ckvm_userspace_memory_region2, at range: PageRange
    ) throws(Errno) {
        guard plain[region.slot] == nil, range.end <= sharedMask ?? .max else { throw .invalidArgument }
        // As KVM does: the guest's addresses first, then the file.
        guard !isTaken(range, except: region.slot) else { throw .fileExists }
        guard let file = file(descriptor: Int32(bitPattern: region.guest_memfd)) else {
            throw .noGuestMemfd(region.guest_memfd)
        }
        guard let bytes = PageRange(start: region.guest_memfd_offset, size: region.memory_size),
            bytes.end <= file.attributes.size
        else { throw .invalidArgument }
        guard !regions.contains(where: { $0.file === file && $0.bytes.intersection(bytes) != nil })
        else { throw .fileExists }
        try insert(
            Region(
                slot: region.slot, range: range, file: file, bytes: bytes,
                userspaceAddress: file.kernelView.map { $0.address + bytes.start } ?? region.userspace_addr,
                chunk: slots.chunk(forRegionOf: bytes.size)))
    }

    /// A region without a guest_memfd: one slot below, at its address, nothing trapped.
    fileprivate mutating func setPlain(
        _ region: ckvm_userspace_memory_region2, at range: PageRange
    ) throws(Errno) {
        guard !isTaken(range, except: region.slot) else { throw .fileExists }
        let existing = plain[region.slot]
        var below = region
        if let existing { below.slot = existing.id } else { below.slot = try slots.takeID() }
        do {
            try slots.set(below)
        } catch {
            if existing == nil { slots.giveBack(below.slot) }
            throw error
        }
        plain[region.slot] = (below.slot, range)
    }

    fileprivate mutating func removePlain(_ slot: UInt32) throws(Errno) {
        guard let existing = plain[slot] else { throw .invalidArgument }
        var below = ckvm_userspace_memory_region2()
        below.slot = existing.id
        try slots.set(below)
        slots.giveBack(existing.id)
        plain[slot] = nil
    }

    /// Whether another region has part of `range`, through either door.
    private func isTaken(_ range: PageRange, except slot: UInt32) -> Bool {
        let doors = [range, sharedMask.flatMap { range.advanced(by: $0) }].compactMap { $0 }
        let others =
            regions.map(\.range) + plain.filter { $0.key != slot }.map(\.value.range)
        return others.contains { other in
            let otherDoors = [other, sharedMask.flatMap { other.advanced(by: $0) }].compactMap { $0 }
            return doors.contains { door in otherDoors.contains { $0.intersection(door) != nil } }
        }
    }
}
