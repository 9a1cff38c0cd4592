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

// #VC and #VE: the exceptions by which an SNP or TDX guest learns that the hypervisor, or the guest itself, has something to do.
extension SoftVCPU {
    /// #VC with this error code.
    func raiseVC(_ code: UInt64) -> Step {
        raise(CPUException(CPUException.vmmCommunication, errorCode: UInt32(truncatingIfNeeded: code)))
    }

    /// #VE. A second one before the guest has read the information of the first is a double fault.
    func raiseVE(_ information: VirtualizationInformation) -> Step {
        guard virtualization == nil else { return raise(CPUException(CPUException.doubleFault)) }
        virtualization = information
        return raise(CPUException(CPUException.virtualization))
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
}
