// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

/// An instruction whose effect is the kernel's business, taken apart.
///
/// The engine stops before each of these; which they are is `cuc_is_privileged` in the shim.
struct PrivilegedInstruction: Equatable {
    enum Operation: Equatable {
        /// IN, OUT, INS, OUTS; `port` is nil where DX says it. `size` in bytes.
        case port(isOut: Bool, size: Int, port: UInt16?, isString: Bool)
        case halt
        case hypercall
        /// MOV between a control register and a general one, by their numbers.
        case controlRegister(isWrite: Bool, number: Int, general: Int)
        /// MOV between a debug register and a general one, by their numbers.
        case debugRegister(isWrite: Bool, number: Int, general: Int)
        case swapGSBase
        case readMSR
        case writeMSR
        case readTimeStamp(withProcessor: Bool)
        case cpuid
        case invalidatePage
        /// An instruction that this CPU does not have.
        case undefined
    }

    var operation: Operation
    /// Bytes, with prefixes.
    var length: UInt64
    /// REP or REPNE.
    var isRepeated = false
    /// 32-bit addresses: ESI, EDI, ECX.
    var hasShortAddresses = false
    /// 0x64 or 0x65 where FS or GS was asked for.
    var segment: UInt8?

    /// - Returns: nil if this is none of them, or longer than what is there.
    init?(_ bytes: [UInt8]) {
        var rest = bytes[...]
        var hasShortOperands = false
        var rex: UInt8 = 0
        while let byte = rest.first {
            // A REX prefix counts only directly before the opcode.
            let precedingREX = rex
            rex = 0
            switch byte {
            case 0x66: hasShortOperands = true
            case 0x67: hasShortAddresses = true
            case 0xf2, 0xf3: isRepeated = true
            case 0x64, 0x65: segment = byte
            case 0xf0, 0x26, 0x2e, 0x36, 0x3e: break
            case 0x40...0x4f: rex = byte
            default:
                guard let code = rest.popFirst() else { return nil }
                operation = .undefined
                length = 0
                guard decode(code, precedingREX, hasShortOperands, &rest) else { return nil }
                length = UInt64(bytes.count - rest.count)
                return
            }
            rest = rest.dropFirst()
        }
        return nil
    }

    private mutating func decode(
        _ code: UInt8, _ rex: UInt8, _ hasShortOperands: Bool, _ rest: inout ArraySlice<UInt8>
    ) -> Bool {
        let size = code & 1 == 0 ? 1 : hasShortOperands ? 2 : 4
        switch code {
        case 0x6c...0x6f: operation = .port(isOut: code >= 0x6e, size: size, port: nil, isString: true)
        case 0xe4...0xe7:
            guard let port = rest.popFirst() else { return false }
            operation = .port(isOut: code >= 0xe6, size: size, port: UInt16(port), isString: false)
        case 0xec...0xef: operation = .port(isOut: code >= 0xee, size: size, port: nil, isString: false)
        case 0xf4: operation = .halt
        case 0x0f:
            guard let second = rest.popFirst() else { return false }
            return decodeTwoBytes(second, rex, &rest)
        default: return false
        }
        return true
    }

    private mutating func decodeTwoBytes(
        _ code: UInt8, _ rex: UInt8, _ rest: inout ArraySlice<UInt8>
    ) -> Bool {
        switch code {
        case 0x20...0x23:
            guard let modrm = rest.popFirst() else { return false }
            let isWrite = code >= 0x22
            let number = Int(modrm >> 3 & 7) | Int(rex & 4) << 1
            let general = Int(modrm & 7) | Int(rex & 1) << 3
            operation =
                code & 1 == 0
                ? .controlRegister(isWrite: isWrite, number: number, general: general)
                : .debugRegister(isWrite: isWrite, number: number, general: general)
        case 0x30: operation = .writeMSR
        case 0x31: operation = .readTimeStamp(withProcessor: false)
        case 0x32: operation = .readMSR
        case 0xa2: operation = .cpuid
        case 0x01:
            guard let modrm = rest.popFirst() else { return false }
            switch modrm {
            case 0xc1, 0xd9: operation = .hypercall
            case 0xf8: operation = .swapGSBase
            case 0xf9: operation = .readTimeStamp(withProcessor: true)
            case _ where modrm >> 3 & 7 == 7 && modrm < 0xc0:
                operation = .invalidatePage
                return skipMemoryOperand(modrm, &rest)
            default: operation = .undefined
            }
        default: operation = .undefined
        }
        return true
    }

    /// What follows a ModRM byte that names memory: SIB and displacement.
    private func skipMemoryOperand(_ modrm: UInt8, _ rest: inout ArraySlice<UInt8>) -> Bool {
        var displacement = [0, 1, 4][Int(min(modrm >> 6, 2))]
        var base = modrm & 7
        if base == 4 {
            guard let sib = rest.popFirst() else { return false }
            base = sib & 7
        }
        if base == 5 && modrm >> 6 == 0 { displacement = 4 }
        guard rest.count >= displacement else { return false }
        rest = rest.dropFirst(displacement)
        return true
    }
}
