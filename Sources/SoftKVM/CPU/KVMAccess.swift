// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

// What KVM reads and writes by itself when it emulates an instruction: through `userspace_addr`, like anybody on the host, so
// that it gets no private page. Its own walk of the guest's tables that meets one is a page fault in the guest, which without an
// IDT is a triple fault; code that it cannot fetch is KVM_EXIT_INTERNAL_ERROR; data that it cannot read or write it takes for MMIO.
extension SoftVCPU {
    /// What ends the emulation of the instruction at RIP; nil where KVM can fetch it.
    func failedFetch() -> Step? {
        guard vm.model.kernel.isReadByKVM(vm.number) else { return nil }
        let kind = AccessKind(isWrite: false, isFetch: true, isUser: currentRing == 3)
        guard let code = try? vm.walk(registersNow.rip, kind, special, through: vm.isReadable) else {
            return shutdown()
        }
        return vm.isReadable(code.gpa + (registersNow.rip - code.linear)) ? nil : internalError()
    }

    /// What ends the instruction at RIP because KVM cannot tell how long it is: nil where it can, or the CPU says so.
    func failedStepOver() -> Step? {
        guard !vm.model.configuration.nextRIPSaved, failedFetch() != nil else { return nil }
        return internalError()
    }

    /// The guest-physical address of an operand that KVM cannot read or write itself, and takes for MMIO.
    ///
    /// - Throws: what ends the emulation, where it cannot walk the tables.
    func unreadable(_ linear: UInt64, _ kind: AccessKind) -> Reach {
        guard vm.model.kernel.isReadByKVM(vm.number) else { return .memory }
        guard let leaf = try? vm.walk(linear, kind, special, through: vm.isReadable) else {
            return .stop(shutdown())
        }
        let gpa = leaf.gpa + (linear - leaf.linear)
        guard case .memory = vm.target(of: gpa), !vm.isReadable(gpa) else { return .memory }
        return .mmio(gpa)
    }
}
