// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

/// /dev/kvm with vCPUs that never complete an access.
final class HangingBackend: ForwardingBackend, @unchecked Sendable {
    override func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        HangingVM(try base.createVM(type, sharedBit: sharedBit))
    }
}

private final class HangingVM: ForwardingVM, @unchecked Sendable {
    override func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {}
    override func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        HangingVCPU(try base.createVCPU(id: id))
    }
}

/// A vCPU that stays in the guest until it is kicked.
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
