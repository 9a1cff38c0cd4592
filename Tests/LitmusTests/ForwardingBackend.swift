// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

/// A backend that forwards to another one. Subclasses of its VMs change some answers.
class ForwardingBackend: Backend, @unchecked Sendable {
    let base: any Backend
    init(_ base: any Backend) { self.base = base }

    var identity: BackendIdentity { BackendIdentity(name: "Forwarding", host: "a test", kind: .simulated) }
    var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }
    func now() -> UInt64 { base.now() }
    func sleep(for duration: Duration) { base.sleep(for: duration) }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        ForwardingVM(try base.createVM(type, sharedBit: sharedBit))
    }
}

class ForwardingVM: KVMVirtualMachine, @unchecked Sendable {
    let base: any KVMVirtualMachine
    init(_ base: any KVMVirtualMachine) { self.base = base }

    var contentPromise: ContentPromise { base.contentPromise }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        try base.createGuestMemfd(size: size, flags: flags)
    }
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try base.setUserMemoryRegion2(region)
    }
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU { try base.createVCPU(id: id) }
}
