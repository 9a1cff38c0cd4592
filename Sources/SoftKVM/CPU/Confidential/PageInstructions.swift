// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM

// SNP: PVALIDATE and RMPADJUST. On every other CPU both are #UD.
extension SoftVCPU {
    private static let carry: UInt64 = 1

    /// RAX = linear address, ECX = 0 (4 KiB) or 1 (2 MiB), EDX = 1 to validate, 0 to rescind.
    func validatePage(_ instruction: PrivilegedInstruction) -> Step {
        guard vm.type == .snp else { return invalidOpcode() }
        guard currentRing == 0 else { return generalProtection() }
        let size: ValidationSize = registersNow.rcx & 0xffff_ffff == 1 ? .large : .small
        // The documents do not say what other bits of EDX do; only bit 0 counts here.
        let isValid = registersNow.rdx & 1 == 1
        return onPage(instruction) { gpa, linear in
            guard registersNow.rcx & 0xffff_ffff <= 1 else { return .invalid }
            // An operand of 2 MiB must be aligned, whatever page its table entry has.
            if size == .large, linear % (2 << 20) != 0 { return .invalid }
            return vm.model.kernel.validate(vm.number, gpa, isValid, size)
        }
    }

    /// RAX = linear address, RCX = size, RDX = VMPL and permissions. The guests here have one VMPL, so nothing changes for a
    /// less privileged one.
    func adjustPage(_ instruction: PrivilegedInstruction) -> Step {
        guard vm.type == .snp else { return invalidOpcode() }
        guard currentRing == 0 else { return generalProtection() }
        let permission: UInt64 = 2
        var isRefused = false
        let step = onPage(instruction) { gpa, _ in
            guard registersNow.rcx <= 1 else { return .invalid }
            guard registersNow.rcx == 0 else { return .sizeMismatch }
            switch vm.resolve(gpa, isWrite: false) {
            case .stopped(let access): return .stopped(access)
            case .memory:
                isRefused = registersNow.rdx & 0xff == 0
                return .done
            }
        }
        if isRefused { registersNow.rax = permission }
        return step
    }

    /// Translates the operand, and reports the answer in EAX and CF. RIP is past the instruction only if it completed.
    private func onPage(
        _ instruction: PrivilegedInstruction, _ perform: (_ gpa: UInt64, _ linear: UInt64) -> ValidationAnswer
    ) -> Step {
        let linear = registersNow.rax & ~(pageSize - 1)
        let leaf: GuestPage
        do {
            leaf = try vm.walk(linear, AccessKind(isWrite: false, isFetch: false, isUser: false), special)
        } catch {
            return walkFailed(error, linear, AccessKind(isWrite: false, isFetch: false, isUser: false))
        }
        // The instruction reaches the page's entry whatever the C-bit of the mapping is.
        let gpa = vm.withoutSharedBit(leaf.gpa + (linear - leaf.linear))
        let answer = perform(gpa, linear)
        vm.model.applyEffects()
        registersNow.rflags &= ~Self.carry
        switch answer {
        case .done: registersNow.rax = 0
        case .unchanged:
            registersNow.rax = 0
            registersNow.rflags |= Self.carry
        case .invalid: registersNow.rax = 1
        case .sizeMismatch: registersNow.rax = 6
        case .stopped(let access): return stopped(access, linear, gpa, isWrite: false)
        }
        registersNow.rip &+= instruction.length
        return .proceed
    }
}
