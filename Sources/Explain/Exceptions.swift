// SPDX-License-Identifier: MIT
import MiniVMM

extension CPUException {
    /// The causes of this exception, in one or two sentences.
    var cause: String {
        switch vector {
        case Self.divideError: "The divisor is 0, or the quotient does not fit into its register."
        case 1: "A debug exception: single step, a breakpoint in DR0 to DR3, or INT1."
        case Self.breakpoint: "The guest executed INT3."
        case 4: "The guest executed INTO with the overflow flag set."
        case Self.invalidOpcode:
            "The bytes are no instruction of this CPU, or one that is not enabled, such as AVX without CR4.OSXSAVE."
        case 7: "The guest used the FPU, which CR0.EM or CR0.TS disables."
        case Self.doubleFault: "An exception was raised while the CPU delivered another one."
        case 10: "A task state segment is not valid."
        case 11: "The guest loaded a segment, or used a gate, that is not present."
        case 12: "The stack segment cannot be loaded, or the stack pointer is not canonical."
        case Self.generalProtection:
            errorCode ?? 0 == 0
                ? "The address is not canonical, an SSE operand is not aligned, or the guest used an MSR or a bit of a register that does not exist, or a privileged "
                    + "instruction outside ring 0."
                : "The guest used a selector or a gate that is not valid: \(selector)."
        case Self.pageFault: pageFaultCause
        case 16: "An unmasked x87 floating-point exception."
        case 17: "An access was not aligned, and CR0.AM and RFLAGS.AC are set."
        case 19: "An unmasked SSE floating-point exception."
        case Self.virtualization: "The TDX module asks the guest to handle this itself."
        case Self.vmmCommunication: "The guest must ask the hypervisor for this, or handle it itself."
        default: "The guest has no handler for it."
        }
    }

    /// The selector in an error code.
    private var selector: String {
        let code = errorCode ?? 0
        let table = code & 2 != 0 ? "the IDT" : code & 4 != 0 ? "the LDT" : "the GDT"
        return "entry \(code >> 3) of \(table)"
    }

    private var pageFaultCause: String {
        let code = PageFaultCode(rawValue: errorCode ?? 0)
        let access =
            code.contains(.fetch)
            ? "fetched an instruction from" : code.contains(.write) ? "wrote to" : "read"
        let ring = code.contains(.user) ? " in ring 3" : ""
        let why =
            if code.contains(.reserved) {
                "A reserved bit is set in the page-table entry of that address."
            } else if code.contains(.present) {
                "The page is mapped, and this kind of access is not allowed."
            } else {
                "No page is mapped there."
            }
        return "The guest \(access) that address\(ring). \(why)"
    }

    /// A page fault that KVM itself raises, when it emulates an instruction.
    var causeUnderKVM: String {
        guard vector == Self.pageFault, !PageFaultCode(rawValue: errorCode ?? 0).contains(.present) else {
            return ""
        }
        return
            " If one is: KVM had to emulate the instruction, and cannot read page tables in private memory "
            + "(minivmm explain emulation)."
    }
}
