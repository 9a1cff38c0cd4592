// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A VM of ``MemslotTrapKVM``: software-protected, on top of a default VM.
final class TrapVM: AdapterVM {
    private let carved: CarvedVM<TrapFile>
    private let backing: TrapBacking
    var base: any KVMVirtualMachine { carved.base }

    init(
        over base: any KVMVirtualMachine, backing: TrapBacking, slotLimit: Int?, hasRegion2: Bool,
        sharedMask: UInt64?
    ) throws(Errno) {
        self.backing = backing
        carved = try CarvedVM(base, slotLimit: slotLimit, hasRegion2: hasRegion2, sharedMask: sharedMask)
    }

    /// A conversion keeps the same page in both directions.
    var contentPromise: ContentPromise { .preserved }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }

    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        TrapVCPU(over: try base.createVCPU(id: id), of: carved)
    }

    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        let bytes = try flags.newFile(size: size)
        let below = try backing.create(on: base, size: size)
        let file = TrapFile(
            backing: below, kind: backing, kernelMapping: try below.map(offset: 0, length: size),
            attributes: AttributeMap(size: bytes.size, initial: flags.initialState))
        carved.memory.withLock { $0.files.append(file) }
        return TrapGuestMemfd(file, isMappable: flags.contains(.mmap), of: carved)
    }

    /// `userspace_addr` of a region with a guest_memfd is ignored: the base backend gets a mapping that is always
    /// accessible.
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try carved.setUserMemoryRegion2(region)
    }
}

extension TrapVM: PrivateMemoryAccess {
    func readPrivate(gpa: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) {
        try carved.memory.withLock { memory throws(Errno) in
            guard let place = memory.place(of: gpa, length: UInt64(buffer.count)),
                unsafe try place.file.kernelMapping.read(at: place.offset, into: buffer) == buffer.count
            else { throw .badAddress }
        }
    }

    func writePrivate(gpa: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) {
        try carved.memory.withLock { memory throws(Errno) in
            guard let place = memory.place(of: gpa, length: UInt64(buffer.count)),
                unsafe try place.file.kernelMapping.write(at: place.offset, from: buffer) == buffer.count
            else { throw .badAddress }
        }
    }
}
