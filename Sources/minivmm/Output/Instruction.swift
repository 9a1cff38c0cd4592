// SPDX-License-Identifier: MIT
import CDisassembler
import CKVMShim
import MiniVMM

/// The first instruction in some bytes, in AT&T syntax.
///
/// Where it is not known, because there is no disassembler or no such instruction, ``text`` is nil, and nothing is guessed.
struct Instruction {
    /// Memory that it accesses.
    struct Operand {
        /// General registers, as instructions number them.
        var base: Int?
        var index: Int?
        var scale: UInt64 = 1
        var displacement: Int64 = 0
        /// The displacement counts from the next instruction.
        var isRelative = false
        /// The address is the low 32 bits of the sum.
        var hasShortAddress = false
        /// Bytes.
        var size: UInt64
    }

    let bytes: [UInt8]
    /// Of its first byte, linear.
    let address: UInt64
    /// nil if it is not known.
    let text: String?
    /// The operation as the processor manuals name it, `out` for `outl`; empty if it is not known.
    let name: String
    /// What it touches in memory.
    let operands: [Operand]
    /// Its first immediate operand.
    let immediate: Int64?

    /// - Parameter bytes: at least those of the instruction; more are left out.
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

    /// An array of C's that ends with a zero.
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

    /// Bytes, and what they mean where that is known.
    var line: String {
        let hex = bytes.map(Self.hexByte).joined(separator: " ")
        return text.map { hex + "   " + $0 } ?? hex + " ..."
    }

    static func hexByte(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    /// Whether it touches a page of the address space, with these registers.
    func touches(page: UInt64, _ registers: ckvm_regs) -> Bool {
        let all = registers.inOrder
        return operands.contains { operand in
            let first = operand.address(all, next: address &+ UInt64(bytes.count))
            return first / pageSize == page || (first &+ operand.size &- 1) / pageSize == page
        }
    }

    /// Whether it is the port access that a vCPU has left for.
    func accesses(port: UInt16, isOut: Bool) -> Bool {
        guard (isOut ? Self.outputs : Self.inputs).contains(name) else { return false }
        // Without an immediate the port is in DX.
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

    /// What PUSH and CALL write below RSP, and POP and RET read at it.
    static let stack = Self(base: 4, displacement: -8, size: 16)

    /// - Parameters:
    ///   - registers: by number.
    ///   - next: where the next instruction is.
    func address(_ registers: [UInt64], next: UInt64) -> UInt64 {
        var sum = UInt64(bitPattern: displacement)
        if isRelative { sum &+= next }
        if let base { sum &+= registers[base & 15] }
        if let index { sum &+= registers[index & 15] &* scale }
        return hasShortAddress ? sum & 0xffff_ffff : sum
    }
}

extension ckvm_regs {
    /// As an instruction numbers them.
    var inOrder: [UInt64] { [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] }
}
