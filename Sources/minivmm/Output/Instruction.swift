// SPDX-License-Identifier: MIT
import CDisassembler
import CKVMShim
import MiniVMM

/// A disassembled instruction, in AT&T syntax.
///
/// ``text`` is nil if there is no disassembler or the bytes are no valid instruction.
struct Instruction {
    /// A memory operand.
    struct Operand {
        /// General registers, by their numbers in instruction encodings.
        var base: Int?
        var index: Int?
        var scale: UInt64 = 1
        var displacement: Int64 = 0
        /// Whether the displacement is relative to the next instruction.
        var isRelative = false
        /// Whether the address is truncated to 32 bits.
        var hasShortAddress = false
        /// Bytes.
        var size: UInt64
    }

    let bytes: [UInt8]
    /// The linear address of the first byte.
    let address: UInt64
    /// Nil if unknown.
    let text: String?
    /// The operation as in the processor manuals, `out` for `outl`; empty if unknown.
    let name: String
    /// The memory operands.
    let operands: [Operand]
    /// The first immediate operand.
    let immediate: Int64?

    /// - Parameter bytes: at least the bytes of the instruction; the rest is ignored.
    init(_ bytes: [UInt8], at address: UInt64, by disassembler: Disassembler?) {
        self.address = address
        guard let decoded = disassembler?.decode(bytes, at: address) else {
            self.bytes = Array(bytes.prefix(8))
            (text, name, operands, immediate) = (nil, "", [], nil)
            return
        }
        self.bytes = Array(bytes.prefix(Int(decoded.length)))
        text = Self.string(of: decoded.text)
        name = Self.string(of: decoded.name)
        operands = Self.operands(decoded)
        immediate = decoded.has_immediate ? decoded.immediate : nil
    }

    /// A string from a C array with a terminating zero.
    private static func string<Characters>(of characters: Characters) -> String {
        unsafe withUnsafeBytes(of: characters) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private static func operands(_ decoded: cdis_instruction) -> [Operand] {
        let room = decoded.memory
        let memory = [room.0, room.1, room.2, room.3].prefix(Int(decoded.memory_count))
        return memory.map(Operand.init) + (decoded.uses_stack ? [.stack] : [])
    }

    /// The bytes, and the text if known.
    var line: String {
        let hex = bytes.map(Self.hexByte).joined(separator: " ")
        return text.map { hex + "   " + $0 } ?? hex + " ..."
    }

    static func hexByte(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    /// Whether the instruction accesses the page, given these registers.
    func touches(page: UInt64, _ registers: ckvm_regs) -> Bool {
        let all = registers.inOrder
        return operands.contains { operand in
            let first = operand.address(all, next: address &+ UInt64(bytes.count))
            return first / pageSize == page || (first &+ operand.size &- 1) / pageSize == page
        }
    }

    /// Whether the instruction is the given port access.
    func accesses(port: UInt16, isOut: Bool) -> Bool {
        guard (isOut ? Self.outputs : Self.inputs).contains(name) else { return false }
        // Without an immediate operand, the port is in DX.
        return immediate.map { $0 == Int64(port) } ?? true
    }

    private static let outputs: Set = ["out", "outsb", "outsw", "outsd"]
    private static let inputs: Set = ["in", "insb", "insw", "insd"]
}

extension Instruction.Operand {
    init(_ memory: cdis_memory) {
        func number(_ register: Int8) -> Int? { register >= 0 ? Int(register) : nil }
        self.init(
            base: number(memory.base), index: number(memory.index), scale: UInt64(memory.scale),
            displacement: memory.displacement, isRelative: memory.is_relative,
            hasShortAddress: memory.has_short_address, size: UInt64(max(memory.size, 1)))
    }

    /// The stack access of PUSH and CALL (below RSP) and of POP and RET (at RSP).
    static let stack = Self(base: 4, displacement: -8, size: 16)

    /// - Parameters:
    ///   - registers: values by register number.
    ///   - next: the address of the next instruction.
    func address(_ registers: [UInt64], next: UInt64) -> UInt64 {
        var sum = UInt64(bitPattern: displacement)
        if isRelative { sum &+= next }
        if let base { sum &+= registers[base & 15] }
        if let index { sum &+= registers[index & 15] &* scale }
        return hasShortAddress ? sum & 0xffff_ffff : sum
    }
}
