// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import ConversionModel
import MiniVMM
import SystemPackage

/// What TDG.VP.VEINFO.GET returns about a #VE.
struct VirtualizationInformation {
    /// The VMX exit reason.
    let reason: UInt64
    var qualification: UInt64 = 0
    /// The linear address of an EPT violation.
    var linear: UInt64 = 0
    /// The guest-physical address of an EPT violation, with the shared bit.
    var gpa: UInt64 = 0
    /// The length of the instruction; not valid for an EPT violation.
    var length: UInt64 = 0

    /// An EPT violation.
    static let violation: UInt64 = 48
}

/// Exit codes of SVM that #VC has as its error code.
enum VCReason {
    static let cpuid: UInt64 = 0x72
    static let halt: UInt64 = 0x78
    static let port: UInt64 = 0x7b
    static let msr: UInt64 = 0x7c
    static let hypercall: UInt64 = 0x81
    /// A page without memory: the guest asks for emulation.
    static let mmio: UInt64 = 0x400
    /// A page that is not validated.
    static let notValidated: UInt64 = 0x404
}

// Exceptions that the CPU raises in a guest of an SNP or TDX VM: #VC, #VE and #GP, with their codes, through the guest's own IDT.
// Every other exception, and every exception of other guests, is a triple fault (KVM_EXIT_SHUTDOWN).
extension SoftVCPU {
    private enum Vector {
        static let generalProtection: UInt64 = 13
        static let ve: UInt64 = 20
        static let vc: UInt64 = 29
    }

    /// #GP(0); a triple fault in other guests.
    func generalProtection() -> Step {
        vm.encryptionBit == nil ? shutdown() : raise(Vector.generalProtection, 0)
    }

    /// #VC with this error code.
    func raiseVC(_ code: UInt64) -> Step { raise(Vector.vc, code) }

    /// #VE. A second one before the guest has read the information of the first is a double fault, and there is no handler for
    /// that here.
    func raiseVE(_ information: VirtualizationInformation) -> Step {
        guard virtualization == nil else { return shutdown() }
        virtualization = information
        return raise(Vector.ve, nil)
    }

    /// The exit or exception with which a guest's access to memory ends.
    func stopped(
        _ access: KernelModel.Access, _ linear: UInt64, _ address: UInt64, isWrite: Bool
    ) -> Step {
        switch access {
        case .fault(let fault), .poisoned(let fault): return memoryFault(fault)
        case .exception(.vc):
            special.cr2 = linear
            return raiseVC(VCReason.notValidated)
        case .exception(.ve), .mmio: return noPage(linear, address, isWrite: isWrite)
        case .error(let error): return .fail(Errno(error))
        case .noPage, .byte: return memoryFault(nil)
        }
    }

    /// An access without memory, which the guest itself must ask the hypervisor to emulate.
    private func noPage(_ linear: UInt64, _ address: UInt64, isWrite: Bool) -> Step {
        if vm.type == .snp {
            special.cr2 = linear
            return raiseVC(VCReason.mmio)
        }
        return raiseVE(
            VirtualizationInformation(
                reason: VirtualizationInformation.violation, qualification: isWrite ? 2 : 1, linear: linear,
                gpa: vm.guestAddress(address)))
    }

    /// Enters the guest's handler in ring 0. Gates with an IST are not supported; nor are exceptions in ring 3, which need a
    /// TSS.
    ///
    /// - Parameter code: the error code; nil for an exception without one.
    private func raise(_ vector: UInt64, _ code: UInt64?) -> Step {
        storeSpecial()
        guard currentRing == 0, vector * 16 + 15 <= UInt64(special.idt.limit),
            let low = readWord(special.idt.base &+ vector * 16),
            let high = readWord(special.idt.base &+ vector * 16 &+ 8)
        else { return shutdown() }
        let (isPresent, type, stack) = (low >> 47 & 1 == 1, low >> 40 & 0xf, low >> 32 & 7)
        guard isPresent, type == 0xe || type == 0xf, stack == 0 else { return shutdown() }
        let handler = low & 0xffff | (low >> 48) << 16 | high << 32
        var frame = [
            UInt64(special.ss.selector), registersNow.rsp, registersNow.rflags, UInt64(special.cs.selector),
            registersNow.rip,
        ]
        if let code { frame.append(code) }
        var top = registersNow.rsp & ~0xf
        for word in frame {
            top &-= 8
            guard writeWord(top, word) else { return shutdown() }
        }
        registersNow.rsp = top
        registersNow.rip = handler
        // IF stays for a trap gate; TF, NT and RF are cleared by both.
        registersNow.rflags &= ~(type == 0xe ? 0x1_4300 : 0x1_4100)
        return .proceed
    }

    // MARK: the guest's memory, in ring 0

    /// Eight bytes, aligned; nil if the guest could not read them without an exit or an exception.
    private func readWord(_ linear: UInt64) -> UInt64? {
        guard let bytes = unsafe wordAddress(linear, isWrite: false) else { return nil }
        return unsafe bytes.load(as: UInt64.self)
    }

    private func writeWord(_ linear: UInt64, _ value: UInt64) -> Bool {
        guard let bytes = unsafe wordAddress(linear, isWrite: true) else { return false }
        unsafe bytes.storeBytes(of: value, as: UInt64.self)
        return true
    }

    private func wordAddress(_ linear: UInt64, isWrite: Bool) -> UnsafeMutableRawPointer? {
        let kind = AccessKind(isWrite: isWrite, isFetch: false, isUser: false)
        guard linear % 8 == 0, let leaf = try? vm.walk(linear, kind, special) else { return nil }
        let address = leaf.gpa + (linear - leaf.linear)
        guard case .memory(let backing) = vm.resolve(address, isWrite: isWrite), !backing.isCiphertext,
            !(isWrite && backing.isReadOnly)
        else { return nil }
        _ = vm.model.kernel.noteGuestTouch(vm.number, at: address, isWrite: isWrite)
        if isWrite { vm.model.kernel.noteGuestWrite(vm.number, at: address) }
        return unsafe vm.bytes(in: backing, at: address)
    }
}
