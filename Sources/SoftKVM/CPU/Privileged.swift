// SPDX-License-Identifier: MIT
import CUnicornShim

/// A decoded instruction that SoftKVM emulates, not the engine.
///
/// The CPU process stops before each of these and reports only that. The guest's bytes are decoded again here, by
/// the same function, because the process is not trusted.
struct PrivilegedInstruction: Equatable {
    enum Operation: Equatable {
        /// IN, OUT, INS, OUTS; `port` is nil if the port is in DX. `size` in bytes.
        case port(isOut: Bool, size: Int, port: UInt16?, isString: Bool)
        case halt
        case hypercall
        /// MOV between a control register and a general one, by their numbers.
        case controlRegister(isWrite: Bool, number: Int, general: Int)
        /// MOV between a debug register and a general one, by their numbers.
        case debugRegister(isWrite: Bool, number: Int, general: Int)
        /// LMSW from a general register.
        case machineStatus(general: Int)
        case swapGSBase
        case readMSR
        case writeMSR
        case readTimeStamp(withProcessor: Bool)
        case cpuid
        case invalidatePage
        /// PVALIDATE.
        case validatePage
        /// RMPADJUST.
        case adjustPage
        /// VMGEXIT.
        case exitToHypervisor
        /// TDCALL.
        case callModule
    }

    let operation: Operation
    /// Bytes, including prefixes.
    let length: UInt64
    /// REP or REPNE.
    let isRepeated: Bool
    /// The bits of SI, DI and CX that count: of 16, 32 or 64.
    let addressMask: UInt64
    /// The segment prefix, as its byte; only FS (0x64) and GS (0x65) in 64-bit code.
    let segment: UInt8?

    /// - Parameter bits: the size of code, 16, 32 or 64.
    /// - Returns: nil if the instruction is not privileged, is incomplete, or does not exist on this CPU.
    init?(_ bytes: [UInt8], bits: Int) {
        let decoded = unsafe cuc_decode(
            bytes, UInt32(truncatingIfNeeded: bytes.count), UInt32(truncatingIfNeeded: bits))
        guard decoded.length > 0, let operation = Operation(decoded) else { return nil }
        self.operation = operation
        length = UInt64(decoded.length)
        isRepeated = decoded.is_repeated
        addressMask = .max >> (64 - UInt64(decoded.address_size) * 8)
        segment = decoded.segment == 0 ? nil : decoded.segment
    }
}

extension PrivilegedInstruction.Operation {
    fileprivate init?(_ decoded: cuc_instruction) {
        func port(isOut: Bool, isString: Bool) -> Self {
            .port(
                isOut: isOut, size: Int(decoded.size), port: decoded.has_port ? UInt16(decoded.port) : nil,
                isString: isString)
        }
        func control(isWrite: Bool) -> Self {
            .controlRegister(isWrite: isWrite, number: Int(decoded.number), general: Int(decoded.general))
        }
        func debug(isWrite: Bool) -> Self {
            .debugRegister(isWrite: isWrite, number: Int(decoded.number), general: Int(decoded.general))
        }
        switch decoded.kind {
        case CUC_INSTRUCTION_IN: self = port(isOut: false, isString: false)
        case CUC_INSTRUCTION_OUT: self = port(isOut: true, isString: false)
        case CUC_INSTRUCTION_INS: self = port(isOut: false, isString: true)
        case CUC_INSTRUCTION_OUTS: self = port(isOut: true, isString: true)
        case CUC_INSTRUCTION_HALT: self = .halt
        case CUC_INSTRUCTION_HYPERCALL: self = .hypercall
        case CUC_INSTRUCTION_READ_CONTROL: self = control(isWrite: false)
        case CUC_INSTRUCTION_WRITE_CONTROL: self = control(isWrite: true)
        case CUC_INSTRUCTION_READ_DEBUG: self = debug(isWrite: false)
        case CUC_INSTRUCTION_WRITE_DEBUG: self = debug(isWrite: true)
        case CUC_INSTRUCTION_WRITE_MACHINE_STATUS: self = .machineStatus(general: Int(decoded.general))
        case CUC_INSTRUCTION_READ_MSR: self = .readMSR
        case CUC_INSTRUCTION_WRITE_MSR: self = .writeMSR
        case CUC_INSTRUCTION_SWAP_GS: self = .swapGSBase
        case CUC_INSTRUCTION_READ_TIME: self = .readTimeStamp(withProcessor: false)
        case CUC_INSTRUCTION_READ_TIME_AND_PROCESSOR: self = .readTimeStamp(withProcessor: true)
        case CUC_INSTRUCTION_CPUID: self = .cpuid
        case CUC_INSTRUCTION_INVALIDATE_PAGE: self = .invalidatePage
        case CUC_INSTRUCTION_VALIDATE_PAGE: self = .validatePage
        case CUC_INSTRUCTION_ADJUST_PAGE: self = .adjustPage
        case CUC_INSTRUCTION_EXIT_TO_HYPERVISOR: self = .exitToHypervisor
        case CUC_INSTRUCTION_CALL_MODULE: self = .callModule
        default: return nil
        }
    }
}
