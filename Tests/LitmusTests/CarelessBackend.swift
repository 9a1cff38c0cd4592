// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// A kernel that fails every third conversion with `EBUSY`.
final class CarelessBackend: ForwardingBackend, @unchecked Sendable {
    fileprivate let calls = Atomic<Int>(0)

    override func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        CarelessVM(try base.createVM(type, sharedBit: sharedBit), self)
    }
}

private final class CarelessVM: ForwardingVM, @unchecked Sendable {
    let backend: CarelessBackend
    init(_ base: any KVMVirtualMachine, _ backend: CarelessBackend) {
        self.backend = backend
        super.init(base)
    }

    override func createGuestMemfd(
        size: UInt64, flags: GuestMemfdFlags
    ) throws(Errno) -> any KVMGuestMemfd {
        CarelessFile(try base.createGuestMemfd(size: size, flags: flags), backend)
    }
}

private final class CarelessFile: KVMGuestMemfd {
    let base: any KVMGuestMemfd
    let backend: CarelessBackend
    init(_ base: any KVMGuestMemfd, _ backend: CarelessBackend) {
        self.base = base
        self.backend = backend
    }

    var descriptor: Int32 { base.descriptor }
    var size: UInt64 { base.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        if backend.calls.add(1, ordering: .relaxed).newValue % 3 == 0 { throw .resourceBusy }
        try base.setMemoryAttributes2(&request)
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try base.map(offset: offset, length: length)
    }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try base.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}

/// A kernel that supports nothing.
final class NoKernel: Backend {
    var identity: BackendIdentity { BackendIdentity(name: "None", host: "a test", kind: .simulated) }
    var runsVCPUsInTurns: Bool { false }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    func supportedCPUID() throws(Errno) -> CPUIDTable { throw .noSuchAddressOrDevice }
    func now() -> UInt64 { 0 }
    func sleep(for duration: Duration) {}
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        throw .noSuchAddressOrDevice
    }
}
