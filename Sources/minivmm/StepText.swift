import MiniVMM

/// What an exit is, in a line, and what the monitor is about to do with it.
enum StepText {
    /// A call of the guest that the exit is.
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
                "memory fault at \(hex(fault.gpa)), page \(fault.gpa / pageSize): wants it \(fault.wants.rawValue) "
                + "(KVM_RUN: \(errno.name), flags \(hex(fault.flags)))"
        case .halt: return "HLT"
        case .shutdown: return "shutdown: a triple fault"
        case .interrupted: return "interrupted"
        case .failEntry(let reason): return "the CPU refused to enter, reason \(hex(reason))"
        case .internalError(let suberror): return "internal error of KVM, suberror \(suberror)"
        case .systemEvent(let type): return "system event \(type)"
        case .failed(let errno): return "KVM_RUN failed: \(errno.name)"
        case .unsupported(let reason): return "exit reason \(reason)"
        }
    }

    private static func text(_ call: Call) -> String {
        let (a, b, c) = call.arguments
        guard call.number == mapGPARange else {
            return "call \(hex(call.number)) (\(hex(a)), \(hex(b)), \(hex(c)))"
        }
        return "KVM_HC_MAP_GPA_RANGE: \(b) pages from \(hex(a)) to \(c & 0x10 != 0 ? "private" : "shared")"
    }

    static func next(_ exit: Exit, _ call: Call?, _ machine: Machine) -> String {
        switch exit {
        case .io(let io):
            if let call {
                return call.number == mapGPARange
                    ? "The monitor converts the range, and answers in RAX." : "The monitor answers in RAX."
            }
            switch (io.direction, io.port) {
            case (1, 0xf4): return "The monitor ends the machine with that status."
            case (1, 0x3f8), (1, 0xe9): return "The monitor gives it to the console."
            case (1, _): return "Nobody listens there."
            default: return "The monitor answers; where nobody does, with all ones."
            }
        case .mmio: return "There is neither RAM nor a device: the machine ends."
        case .hypercall: return "The monitor converts the range, and answers in RAX."
        case .memoryFault(let fault, _):
            if machine.memory.state(at: fault.gpa) == fault.wants {
                return "The page is that already: somebody was quicker. The vCPU enters again."
            }
            return machine.configuration.faultPolicy == .convert
                ? "The monitor converts the page to \(fault.wants.rawValue), and the same instruction is done again."
                : "The monitor was told to enter again without converting."
        case .halt: return "Nothing can wake it: this vCPU is done."
        default: return "The machine ends."
        }
    }
}

/// The first instruction in some bytes, where it is one of the few that leave a guest or convert its memory.
struct Instruction {
    let text: String

    init(_ bytes: [UInt8]) {
        let shown = bytes.prefix(8).map(Self.hexByte).joined(separator: " ")
        text = shown + (Self.name(bytes).map { "   " + $0 } ?? "")
    }

    static func hexByte(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    private static func name(_ bytes: [UInt8]) -> String? {
        guard let first = bytes.first else { return nil }
        // REX prefixes only widen what follows.
        if (0x40..<0x50).contains(first) { return name(Array(bytes.dropFirst())) }
        let second = bytes.count > 1 ? bytes[1] : 0
        let third = bytes.count > 2 ? bytes[2] : 0
        let port = "$0x" + String(second, radix: 16)
        switch (first, second, third) {
        case (0xe4, _, _): return "in \(port), %al"
        case (0xe5, _, _): return "in \(port), %eax"
        case (0xe6, _, _): return "out %al, \(port)"
        case (0xe7, _, _): return "out %eax, \(port)"
        case (0xec, _, _): return "in (%dx), %al"
        case (0xed, _, _): return "in (%dx), %eax"
        case (0xee, _, _): return "out %al, (%dx)"
        case (0xef, _, _): return "out %eax, (%dx)"
        case (0xf4, _, _): return "hlt"
        case (0x0f, 0x01, 0xc1): return "vmcall"
        case (0x0f, 0x01, 0xd9): return "vmmcall"
        case (0xf3, 0xa4, _): return "rep movsb"
        case (0xf3, 0xaa, _): return "rep stosb"
        case (0xf3, 0x48, 0xa5): return "rep movsq"
        case (0xf3, 0x48, 0xab): return "rep stosq"
        case (0x88, _, _), (0x89, _, _): return "mov to memory or a register"
        case (0x8a, _, _), (0x8b, _, _): return "mov from memory or a register"
        case (0xc6, _, _), (0xc7, _, _): return "mov of a number to memory or a register"
        case (0xc3, _, _): return "ret"
        case (0xe8, _, _): return "call"
        case (0xeb, _, _), (0xe9, _, _): return "jmp"
        default: return nil
        }
    }
}
