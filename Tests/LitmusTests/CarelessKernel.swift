import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// A kernel that says `EBUSY` to every third conversion.
final class CarelessKernel: KVMInterface {
    let base: any KVMInterface
    fileprivate let calls = Atomic<Int>(0)
    init(_ base: any KVMInterface) { self.base = base }

    var identity: KernelIdentity { KernelIdentity(name: "Careless", host: "a test") }
    var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }
    func now() -> UInt64 { base.now() }
    func sleep(nanoseconds: UInt64) { base.sleep(nanoseconds: nanoseconds) }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        CarelessVM(try base.createVM(type, sharedBit: sharedBit), self)
    }
}

private final class CarelessVM: KVMVirtualMachine {
    let base: any KVMVirtualMachine
    let kernel: CarelessKernel
    init(_ base: any KVMVirtualMachine, _ kernel: CarelessKernel) {
        self.base = base
        self.kernel = kernel
    }

    var contentPromise: ContentPromise { base.contentPromise }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        CarelessFile(try base.createGuestMemfd(size: size, flags: flags), kernel)
    }
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try base.setUserMemoryRegion2(region)
    }
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU { try base.createVCPU(id: id) }
}

private final class CarelessFile: KVMGuestMemfd {
    let base: any KVMGuestMemfd
    let kernel: CarelessKernel
    init(_ base: any KVMGuestMemfd, _ kernel: CarelessKernel) {
        self.base = base
        self.kernel = kernel
    }

    var descriptor: Int32 { base.descriptor }
    var size: UInt64 { base.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        if kernel.calls.add(1, ordering: .relaxed).newValue % 3 == 0 { throw .resourceBusy }
        try base.setMemoryAttributes2(&request)
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try base.map(offset: offset, length: length)
    }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try base.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}

/// One that has nothing.
final class NoKernel: KVMInterface {
    var identity: KernelIdentity { KernelIdentity(name: "None", host: "a test") }
    var runsVCPUsInTurns: Bool { false }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    func supportedCPUID() throws(Errno) -> CPUIDTable { throw .noSuchAddressOrDevice }
    func now() -> UInt64 { 0 }
    func sleep(nanoseconds: UInt64) {}
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        throw .noSuchAddressOrDevice
    }
}
