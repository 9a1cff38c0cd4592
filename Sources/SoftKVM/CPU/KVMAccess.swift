// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

// KVM's own accesses when it emulates an instruction. They go through `userspace_addr`, like any host access, and
// so cannot reach private pages. If the walk of the guest's page tables fails, the guest gets a page fault, which
// without an IDT is a triple fault. Code that cannot be fetched is KVM_EXIT_INTERNAL_ERROR. Data that cannot be
// read or written is treated as MMIO.
extension SoftVCPU {
    /// The exit if KVM cannot fetch the instruction at RIP; nil if it can.
    func failedFetch() -> Step? {
        guard vm.model.kernel.kvmUsesHostMapping(vm.number) else { return nil }
        let kind = AccessKind(isWrite: false, isFetch: true, isUser: currentRing == 3)
        let code: GuestPage
        do {
            code = try vm.walk(codeAddress, kind, special, through: vm.isReadable)
        } catch {
            return walkFailed(error, codeAddress, kind)
        }
        return vm.isReadable(code.gpa + (codeAddress - code.linear)) ? nil : internalError()
    }

    /// The exit if KVM cannot tell the length of the instruction at RIP; nil if it can read it or the CPU reports
    /// the length.
    func failedStepOver() -> Step? {
        guard !vm.model.configuration.nextRIPSaved, failedFetch() != nil else { return nil }
        return internalError()
    }

    /// Resolves an operand as KVM's emulator would: memory that KVM cannot access itself is MMIO.
    func mmioForKVM(_ linear: UInt64, _ kind: AccessKind) -> Reach {
        guard vm.model.kernel.kvmUsesHostMapping(vm.number) else { return .memory }
        let leaf: GuestPage
        do {
            leaf = try vm.walk(linear, kind, special, through: vm.isReadable)
        } catch {
            return .stop(walkFailed(error, linear, kind))
        }
        let gpa = leaf.gpa + (linear - leaf.linear)
        guard case .memory = vm.resolve(gpa, isWrite: kind.isWrite), !vm.isReadable(gpa) else {
            return .memory
        }
        return .mmio(gpa)
    }
}
