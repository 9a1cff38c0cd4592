// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A VM of ``PerVMAttributesKVM``. One lock guards its files, its slots and every call that changes attributes.
final class PerVMVirtualMachine: KVMVirtualMachine {
    let memory = Mutex(PerVMMemory())
    private let base: any PerVMAttributes
    private let slotCount: UInt32

    init(over base: any PerVMAttributes) throws(Errno) {
        self.base = base
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

    /// The guest_memfd below has no flags. With MMAP (6.18) the kernel would serve shared accesses from it as well,
    /// and it is all private.
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

    /// Checks what the kernel below would check too late, after attributes have changed, and leaves it the rest.
    /// `userspace_addr` of a region with a guest_memfd is not used: the kernel gets a mapping of the shared memory that
    /// is always accessible.
    ///
    /// A slot whose file is closed stays: private accesses through it are then memory faults, and its shared pages
    /// remain what they are until it goes.
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
            // As KVM does: the guest's addresses first, then the file.
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

    /// The attributes come before the slot, so that no private page is shared for a moment.
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
            // Clearing takes no memory, so it does not fail.
            try? set(slot.gpas, to: .shared)
            throw error
        }
        memory.slots[region.slot] = slot
    }

    /// Addresses without a slot have no attributes.
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
        try base.setMemoryAttributes(
            ckvm_memory_attributes(
                address: gpas.start, size: gpas.size,
                attributes: state == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0, flags: 0))
    }
}

/// Files and slots of a VM. Guarded by the lock of ``PerVMVirtualMachine/memory``.
struct PerVMMemory {
    /// What slots and mappings need of a file. Its private memory is not here: it goes with ``PerVMGuestMemfd``.
    final class File: @unchecked Sendable {
        let descriptor: Int32
        let sharedSide: PerVMSharedMemory
        var attributes: AttributeMap
        /// The mappings that were handed out.
        var views: [WeakView] = []

        init(descriptor: Int32, sharedSide: PerVMSharedMemory, attributes: AttributeMap) {
            self.descriptor = descriptor
            self.sharedSide = sharedSide
            self.attributes = attributes
        }

        /// Gives the mappings that were handed out the access that the states of `range` allow.
        func protectViews(_ range: PageRange) throws(Errno) {
            for index in views.indices { try views[index].view?.protect(range, as: attributes) }
        }
    }

    struct WeakView {
        weak var view: PerVMHostMapping?
    }

    struct Slot {
        /// Guest-physical.
        let gpas: PageRange
        /// The file and the bytes of it, for a slot with a guest_memfd.
        let binding: (file: File, bytes: PageRange)?

        /// The addresses of a part of the file, as far as it is bound here.
        func gpas(of range: PageRange) -> PageRange? {
            guard let binding, let part = range.intersection(binding.bytes) else { return nil }
            return part.offset(from: binding.bytes.start)?.advanced(by: gpas.start)
        }
    }

    /// By descriptor: those that are open.
    var files: [Int32: File] = [:]
    var slots: [UInt32: Slot] = [:]

    /// Where a part of a file is in the guest.
    func places(of range: PageRange, in file: File) -> [PageRange] {
        slots.values.compactMap { slot in
            slot.binding?.file === file ? slot.gpas(of: range) : nil
        }
    }
}
