// SPDX-License-Identifier: MIT
import MiniVMM

/// Describes an exit, and what the monitor will do next.
enum StepText {
    /// A hypercall, by instruction or by port.
    struct Call {
        let number: UInt64
        let arguments: (UInt64, UInt64, UInt64)
    }

    private static let callPort: UInt16 = 0xe8
    private static let mapGPARange: UInt64 = 12

    static func call(_ exit: Exit, _ vcpu: any KVMVCPU) -> Call? {
        switch exit {
        case .hypercall(let call): Call(number: call.nr, arguments: (call.args.0, call.args.1, call.args.2))
        case .io(let io) where io.direction == 1 && io.port == callPort:
            (try? vcpu.registers()).map {
                Call(number: $0.rax & 0xffff_ffff, arguments: ($0.rbx, $0.rcx, $0.rdx))
            }
        default: nil
        }
    }

    static func asksForConversion(_ exit: Exit, _ call: Call?) -> Bool {
        if case .memoryFault = exit { return true }
        return call?.number == mapGPARange
    }

    /// The pages that the exit refers to.
    static func pages(_ exit: Exit, _ call: Call?) -> PageRange? {
        switch exit {
        case .memoryFault(let fault, _): return PageRange(start: fault.gpa, size: pageSize)
        case .hypercall, .io:
            guard let call, call.number == mapGPARange,
                case (let size, false) = call.arguments.1.multipliedReportingOverflow(by: pageSize)
            else { return nil }
            return PageRange(start: call.arguments.0, size: size)
        default: return nil
        }
    }

    static func count(_ pages: UInt64) -> String { pages == 1 ? "1 page" : "\(pages) pages" }

    static func what(_ exit: Exit, _ page: RunPage, _ call: Call?) -> String {
        switch exit {
        case .io(let io):
            if let call { return "OUT \(hex(UInt64(io.port))): " + text(call) }
            guard io.direction == 1 else { return "IN \(hex(UInt64(io.port))), \(io.size) bytes" }
            let byte = unsafe page.withIOData(io) { bytes in unsafe bytes.first ?? 0 } ?? 0
            let letter = (0x20..<0x7f).contains(byte) ? " '\(Character(Unicode.Scalar(byte)))'" : ""
            return "OUT \(hex(UInt64(io.port))), \(hex(UInt64(byte)))\(letter)"
        case .mmio(let access):
            return
                "MMIO \(access.is_write != 0 ? "write to" : "read of") \(hex(access.phys_addr)), \(access.len) bytes"
        case .hypercall: return "hypercall: " + (call.map(text) ?? "")
        case .memoryFault(let fault, let errno):
            return
                "memory fault at \(hex(fault.gpa)), page \(fault.gpa / pageSize): the access needs it \(fault.wants.rawValue) "
                + "(KVM_RUN: \(errno.name), flags \(hex(fault.flags)))"
        case .halt: return "HLT"
        case .shutdown: return "shutdown (triple fault)"
        case .interrupted: return "interrupted"
        case .failEntry(let reason): return "the CPU refused to enter, reason \(hex(reason))"
        case .internalError(let suberror): return "KVM internal error, suberror \(suberror)"
        case .systemEvent(let type): return "system event \(type)"
        case .debug(let debug): return "debug exit at \(hex(debug.pc)), DR6 \(hex(debug.dr6))"
        case .failed(let errno): return "KVM_RUN failed: \(errno.name)"
        case .unsupported(let reason): return "exit reason \(reason)"
        }
    }

    private static func text(_ call: Call) -> String {
        let (a, b, c) = call.arguments
        guard call.number == mapGPARange else {
            return "call \(hex(call.number)) (\(hex(a)), \(hex(b)), \(hex(c)))"
        }
        return "KVM_HC_MAP_GPA_RANGE: \(count(b)) from \(hex(a)) to \(c & 0x10 != 0 ? "private" : "shared")"
    }

    static func next(_ exit: Exit, _ call: Call?, _ machine: Machine) -> String {
        switch exit {
        case .io(let io):
            if let call {
                return call.number == mapGPARange
                    ? "Next, the monitor converts the range and returns a result in RAX."
                    : "Next, the monitor returns a result in RAX."
            }
            switch (io.direction, io.port) {
            case (1, 0xf4): return "Next, the monitor ends the machine with that status."
            case (1, 0x3f8), (1, 0xe9): return "Next, the monitor writes the byte to the console."
            case (1, _): return "No device has this port; the write is ignored."
            default: return "Next, the monitor returns a value; all ones if no device has this port."
            }
        case .mmio: return "This address has neither RAM nor a device; the machine ends."
        case .hypercall: return "Next, the monitor converts the range and returns a result in RAX."
        case .memoryFault(let fault, _):
            if machine.memory.state(at: fault.gpa) == fault.wants {
                return
                    "The page already has that state, because of another conversion. The vCPU enters again."
            }
            return machine.configuration.faultPolicy == .convert
                ? "Next, the monitor converts the page to \(fault.wants.rawValue), and the instruction is repeated."
                : "The fault policy is reenter: the vCPU enters again without a conversion."
        case .halt: return "There are no interrupts that could wake this vCPU, so it ends."
        default: return "The machine ends."
        }
    }
}
