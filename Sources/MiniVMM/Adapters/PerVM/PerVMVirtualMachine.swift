// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A VM of ``PerVMAttributesKVM``. One lock guards its files, its slots and every call that changes attributes.
final class PerVMVirtualMachine: AdapterVM {
    let memory = Mutex(PerVMMemory())
    private let attributes: any PerVMAttributes
    var base: any KVMVirtualMachine { attributes }
    private let slotCount: UInt32

    init(over base: any PerVMAttributes) throws(Errno) {
        attributes = base
        slotCount = try UInt32(clamping: base.checkExtension(.memslots))
    }

    var contentPromise: ContentPromise { .lost }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }

    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        PerVMVCPU(over: try base.createVCPU(id: id), of: self)
    }

    /// The base guest_memfd gets no flags. With MMAP (6.18) the kernel would serve shared accesses from it as well,
    /// but it holds private memory only.
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        _ = try flags.newFile(size: size)
        let privateSide = try base.createGuestMemfd(size: size, flags: [])
        let sharedSide = try PerVMSharedMemory(size: size)
        let file = PerVMMemory.File(
            descriptor: privateSide.descriptor, sharedSide: sharedSide,
            attributes: AttributeMap(size: size, initial: flags.initialState))
        memory.withLock { $0.files[privateSide.descriptor] = file }
        return PerVMGuestMemfd(file, privateSide, isMappable: flags.contains(.mmap), of: self)
    }

    /// Makes the checks that the base backend would make too late, after attributes have changed, and leaves the rest
    /// to it. `userspace_addr` of a region with a guest_memfd is ignored: the base backend gets a mapping of the shared
    /// memory that is always accessible.
    ///
    /// A slot whose file is closed stays: private accesses through it become memory faults, and its shared pages
    /// stay shared until the slot is deleted.
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        guard region.slot < slotCount, region.userspace_addr % pageSize == 0 else { throw .invalidArgument }
        try memory.withLock { memory throws(Errno) in
            if region.memory_size == 0 { return try delete(region.slot, from: &memory) }
            guard let gpas = PageRange(start: region.guest_phys_addr, size: region.memory_size) else {
                throw .invalidArgument
            }
            let others = memory.slots.filter { $0.key != region.slot }.map(\.value.gpas)
            let isTaken = others.contains { $0.intersection(gpas) != nil }
            guard region.flags & CKVM_MEM_GUEST_MEMFD != 0 else {
                guard memory.slots[region.slot]?.binding == nil else { throw .invalidArgument }
                guard !isTaken else { throw .fileExists }
                try base.setUserMemoryRegion2(region)
                memory.slots[region.slot] = PerVMMemory.Slot(gpas: gpas, binding: nil)
                return
            }
            // A slot with a guest_memfd is never modified, only deleted.
            guard memory.slots[region.slot] == nil else { throw .invalidArgument }
            // KVM's order: first the guest's addresses, then the file.
            guard !isTaken else { throw .fileExists }
            guard let file = memory.files[Int32(bitPattern: region.guest_memfd)] else {
                throw .noGuestMemfd(region.guest_memfd)
            }
            guard let bytes = PageRange(start: region.guest_memfd_offset, size: region.memory_size),
                bytes.end <= file.attributes.size
            else { throw .invalidArgument }
            try bind(region, PerVMMemory.Slot(gpas: gpas, binding: (file, bytes)), in: &memory)
        }
    }

    /// Sets the attributes before creating the slot, so that no private page is shared even briefly.
    private func bind(
        _ region: ckvm_userspace_memory_region2, _ slot: PerVMMemory.Slot, in memory: inout PerVMMemory
    ) throws(Errno) {
        guard let (file, bytes) = slot.binding else { return }
        var below = region
        below.userspace_addr = file.sharedSide.address + bytes.start
        do throws(Errno) {
            for run in file.attributes.runs(in: bytes) where run.value == .private {
                if let gpas = slot.gpas(of: run.range) { try set(gpas, to: .private) }
            }
            try base.setUserMemoryRegion2(below)
        } catch {
            // Clearing allocates no memory, so it does not fail.
            try? set(slot.gpas, to: .shared)
            throw error
        }
        memory.slots[region.slot] = slot
    }

    /// Also clears the attributes: addresses without a slot have none.
    private func delete(_ number: UInt32, from memory: inout PerVMMemory) throws(Errno) {
        guard let slot = memory.slots[number] else { throw .invalidArgument }
        var deletion = ckvm_userspace_memory_region2()
        deletion.slot = number
        try base.setUserMemoryRegion2(deletion)
        memory.slots[number] = nil
        if slot.binding != nil { try set(slot.gpas, to: .shared) }
    }

    /// One `KVM_SET_MEMORY_ATTRIBUTES`.
    func set(_ gpas: PageRange, to state: PageState) throws(Errno) {
        try attributes.setMemoryAttributes(
            ckvm_memory_attributes(
                address: gpas.start, size: gpas.size,
                attributes: state == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0, flags: 0))
    }
}

/// Files and slots of a VM. Guarded by the lock of ``PerVMVirtualMachine/memory``.
struct PerVMMemory {
    /// The part of a file that slots and mappings need. The private memory is not here: ``PerVMGuestMemfd`` owns it.
    final class File: @unchecked Sendable {
        let descriptor: Int32
        let sharedSide: PerVMSharedMemory
        var attributes: AttributeMap
        /// Mappings that were handed out.
        var mappings: [WeakMapping] = []

        init(descriptor: Int32, sharedSide: PerVMSharedMemory, attributes: AttributeMap) {
            self.descriptor = descriptor
            self.sharedSide = sharedSide
            self.attributes = attributes
        }

        /// Gives the mappings that were handed out the access that the states of `range` allow.
        func protectMappings(_ range: PageRange) throws(Errno) {
            for index in mappings.indices { try mappings[index].mapping?.protect(range, as: attributes) }
        }
    }

    struct WeakMapping {
        weak var mapping: PerVMHostMapping?
    }

    struct Slot {
        /// Guest-physical range.
        let gpas: PageRange
        /// The file and the bound bytes, for a slot with a guest_memfd.
        let binding: (file: File, bytes: PageRange)?

        /// The guest-physical addresses at which this slot binds a part of the file.
        func gpas(of range: PageRange) -> PageRange? {
            guard let binding, let part = range.intersection(binding.bytes) else { return nil }
            return part.offset(from: binding.bytes.start)?.advanced(by: gpas.start)
        }
    }

    /// Open files, by descriptor.
    var files: [Int32: File] = [:]
    var slots: [UInt32: Slot] = [:]

    /// The guest-physical ranges at which a part of a file is bound.
    func places(of range: PageRange, in file: File) -> [PageRange] {
        slots.values.compactMap { slot in
            slot.binding?.file === file ? slot.gpas(of: range) : nil
        }
    }
}
