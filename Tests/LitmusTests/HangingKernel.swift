import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

/// /dev/kvm with vCPUs that do nothing but run: no access ever ends.
final class HangingKernel: KVMInterface {
    let base: LinuxKVM
    init(_ base: LinuxKVM) { self.base = base }

    var identity: KernelIdentity { KernelIdentity(name: "Hanging", host: "a test") }
    var runsVCPUsInTurns: Bool { false }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }
    func now() -> UInt64 { base.now() }
    func sleep(nanoseconds: UInt64) { base.sleep(nanoseconds: nanoseconds) }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        HangingVM(try base.createVM(type, sharedBit: sharedBit))
    }
}

private final class HangingVM: KVMVirtualMachine {
    let base: any KVMVirtualMachine
    init(_ base: any KVMVirtualMachine) { self.base = base }

    var contentPromise: ContentPromise { base.contentPromise }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {}
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        try base.createGuestMemfd(size: size, flags: flags)
    }
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try base.setUserMemoryRegion2(region)
    }
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU { HangingVCPU(try base.createVCPU(id: id)) }
}

/// In the guest for ever, until it is kicked.
private final class HangingVCPU: KVMVCPU {
    let base: any KVMVCPU
    init(_ base: any KVMVCPU) { self.base = base }

    var id: Int { base.id }
    var runPage: RunPage { base.runPage }
    func run() throws(Errno) {
        while !runPage.immediateExit { usleep(1000) }
        throw .interrupted
    }
    func registers() throws(Errno) -> ckvm_regs { try base.registers() }
    func setRegisters(_ registers: ckvm_regs) throws(Errno) { try base.setRegisters(registers) }
    func specialRegisters() throws(Errno) -> ckvm_sregs { try base.specialRegisters() }
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {
        try base.setSpecialRegisters(registers)
    }
    func setCPUID(_ table: CPUIDTable) throws(Errno) { try base.setCPUID(table) }
    func kick() { runPage.setImmediateExit() }
}
