// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A VM of the base backend whose memslots are carved to match the states of its pages.
///
/// Lock order: ``gate``, then ``memory``. A change of memslots needs both.
final class CarvedVM<File: CarvedFile>: Sendable {
    let base: any KVMVirtualMachine
    let gate = VCPUGate()
    let memory: Mutex<CarvedMemory<File>>
    private let slotCount: UInt32

    init(
        _ base: any KVMVirtualMachine, slotLimit: Int?, hasRegion2: Bool, sharedMask: UInt64?
    ) throws(Errno) {
        self.base = base
        slotCount = try UInt32(clamping: base.checkExtension(.memslots))
        memory = Mutex(
            CarvedMemory(
                slots: try BaseSlots(base, limit: slotLimit, hasRegion2: hasRegion2), sharedMask: sharedMask))
    }

    /// Makes the checks that Linux makes, then carves the memslots.
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

    /// If the exit is a memory fault of the base backend, rewrites its address for the caller.
    func translateFault(in runPage: RunPage) {
        guard runPage.exitReason == CKVM_EXIT_MEMORY_FAULT else { return }
        let fault = runPage.memoryFault
        runPage.memoryFault = memory.withLock { $0.translated(fault) }
    }
}

extension CarvedMemory {
    fileprivate mutating func addBound(
        _ region: ckvm_userspace_memory_region2, at range: PageRange
    ) throws(Errno) {
        guard plain[region.slot] == nil, range.end <= sharedMask ?? .max else { throw .invalidArgument }
        // KVM's order: first the guest's addresses, then the file.
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
                userspaceAddress: file.userspaceAddress(of: region),
                chunk: slots.chunk(forRegionOf: bytes.size)))
    }

    /// A region without a guest_memfd: one base slot at the same address; accesses are not trapped.
    fileprivate mutating func setPlain(
        _ region: ckvm_userspace_memory_region2, at range: PageRange
    ) throws(Errno) {
        guard !isTaken(range, except: region.slot) else { throw .fileExists }
        let existing = plain[region.slot]
        var below = region
        if let existing { below.slot = existing.id } else { below.slot = try slots.allocateID() }
        do {
            try slots.set(below)
        } catch {
            if existing == nil { slots.free(below.slot) }
            throw error
        }
        plain[region.slot] = (below.slot, range)
    }

    fileprivate mutating func removePlain(_ slot: UInt32) throws(Errno) {
        guard let existing = plain[slot] else { throw .invalidArgument }
        var below = ckvm_userspace_memory_region2()
        below.slot = existing.id
        try slots.set(below)
        slots.free(existing.id)
        plain[slot] = nil
    }

    /// Whether another region overlaps `range` through either alias.
    private func isTaken(_ range: PageRange, except slot: UInt32) -> Bool {
        let aliases = [range, sharedMask.flatMap { range.advanced(by: $0) }].compactMap { $0 }
        let others =
            regions.map(\.range) + plain.filter { $0.key != slot }.map(\.value.range)
        return others.contains { other in
            let otherAliases = [other, sharedMask.flatMap { other.advanced(by: $0) }].compactMap { $0 }
            return aliases.contains { alias in otherAliases.contains { $0.intersection(alias) != nil } }
        }
    }
}
