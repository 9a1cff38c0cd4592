// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// A vCPU on which a page table of the guest can be missing without the guest's doing, so that the guest gets a page fault.
protocol PageFaultingVCPU: KVMVCPU {
    /// The memory fault on a page-table page that the walk to this linear address needs; nil if there is none.
    func memoryFault(walkingTo linear: UInt64) -> MemoryFault?
}

/// A vCPU of an adapter. Registers and CPUID go to the vCPU of the base backend.
protocol AdapterVCPU: KVMVCPU {
    var base: any KVMVCPU { get }
}

extension AdapterVCPU {
    var id: Int { base.id }
    func registers() throws(Errno) -> ckvm_regs { try base.registers() }
    func setRegisters(_ registers: ckvm_regs) throws(Errno) { try base.setRegisters(registers) }
    func specialRegisters() throws(Errno) -> ckvm_sregs { try base.specialRegisters() }
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {
        try base.setSpecialRegisters(registers)
    }
    func setGuestDebug(_ request: ckvm_guest_debug) throws(Errno) { try base.setGuestDebug(request) }
    func setCPUID(_ table: CPUIDTable) throws(Errno) { try base.setCPUID(table) }
}
