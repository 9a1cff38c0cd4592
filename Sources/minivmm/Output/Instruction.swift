// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

/// The first instruction in some bytes, in AT&T syntax: those that leave a guest, touch its memory or go elsewhere.
///
/// What it does not know it leaves as bytes: ``text`` is nil then, and nothing is guessed.
struct Instruction {
    /// Where an operand in memory is.
    struct Operand {
        var base: Int?
        var index: Int?
        var scale: UInt64 = 1
        var displacement: Int64 = 0
        /// The displacement counts from the next instruction.
        var isRelative = false
    }

    let bytes: [UInt8]
    /// nil if it is none of those known here.
    let text: String?
    /// What it touches in memory.
    let operands: [Operand]

    init(_ bytes: [UInt8]) {
        var decoder = InstructionDecoder(bytes)
        text = decoder.decode()
        let length = text == nil ? min(8, bytes.count) : decoder.position
        self.bytes = Array(bytes.prefix(length))
        operands = text == nil ? [] : decoder.operands
    }

    /// Bytes, and what they mean where that is known.
    var line: String {
        let hex = bytes.map(Self.hexByte).joined(separator: " ")
        return text.map { hex + "   " + $0 } ?? hex + " ..."
    }

    static func hexByte(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    /// Whether it touches a page of the address space, with these registers before it.
    func touches(page: UInt64, _ registers: ckvm_regs, at rip: UInt64) -> Bool {
        let all = registers.inOrder
        return operands.contains { operand in
            var address = UInt64(bitPattern: operand.displacement)
            if operand.isRelative { address &+= rip &+ UInt64(bytes.count) }
            if let base = operand.base { address &+= all[base] }
            if let index = operand.index { address &+= all[index] &* operand.scale }
            // Eight bytes may lie across two pages.
            return address / pageSize == page || (address &+ 7) / pageSize == page
        }
    }
}

extension ckvm_regs {
    /// As an instruction numbers them.
    var inOrder: [UInt64] { [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] }
}

/// Reads one instruction in 64-bit mode.
struct InstructionDecoder {
    private let bytes: [UInt8]
    private(set) var position = 0
    private(set) var operands: [Instruction.Operand] = []
    private var isShort = false
    private var rex: UInt8 = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Operands, in bytes.
    private var size: Int { rex & 8 != 0 ? 8 : isShort ? 2 : 4 }
    private static let letters = [1: "b", 2: "w", 4: "l", 8: "q"]

    /// Its text, or nil.
    mutating func decode() -> String? {
        var prefix = ""
        while let byte = peek() {
            switch byte {
            case 0x66: isShort = true
            case 0xf0: prefix = "lock "
            case 0xf2: prefix = "repne "
            case 0xf3: prefix = "rep "
            default:
                if byte & 0xf0 == 0x40 {
                    rex = byte
                    position += 1
                }
                return body(prefix).map { text in
                    prefix == "rep " && text == "nop" ? "pause" : prefix + text
                }
            }
            position += 1
        }
        return nil
    }

    private mutating func body(_ prefix: String) -> String? {
        guard let code = next() else { return nil }
        switch code {
        case 0x0f: return twoBytes()
        case 0x00...0x3f where code & 7 < 4: return arithmetic(code)
        case 0x50...0x57: return "push " + register(Int(code & 7) + extended(1), 8)
        case 0x58...0x5f: return "pop " + register(Int(code & 7) + extended(1), 8)
        case 0x70...0x7f: return target(1).map { "j" + Self.conditions[Int(code & 15)] + " " + $0 }
        case 0x80, 0x81, 0x83: return immediateArithmetic(code)
        case 0x84...0x8b: return twoOperands(code)
        case 0x8d:
            defer { operands = [] }
            return modRM(size).map { "lea " + $0.memory + ", " + register($0.register, size) }
        case 0x90: return "nop"
        case 0xa4, 0xa5, 0xaa, 0xab, 0x6c...0x6f: return string(code)
        case 0xb0...0xbf:
            let width = code < 0xb8 ? 1 : size
            return immediate(width).map { "mov $\($0), " + register(Int(code & 7) + extended(1), width) }
        case 0xc3: return "ret"
        case 0xc6, 0xc7:
            let width = code == 0xc6 ? 1 : size
            guard let (part, memory) = modRM(width), part & 7 == 0, let value = immediate(min(width, 4))
            else {
                return nil
            }
            return "mov" + suffix(width) + " $\(value), " + memory
        case 0xcc: return "int3"
        case 0xe4...0xe7, 0xec...0xef: return port(code)
        case 0xe8: return target(4).map { "call " + $0 }
        case 0xe9: return target(4).map { "jmp " + $0 }
        case 0xeb: return target(1).map { "jmp " + $0 }
        case 0xf4: return "hlt"
        case 0xfe, 0xff: return oneOperand(code)
        default: return nil
        }
    }

    private static let operations = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]
    private static let conditions = [
        "o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g",
    ]

    private mutating func twoBytes() -> String? {
        guard let code = next() else { return nil }
        switch code {
        case 0x01:
            switch next() {
            case 0xc1?: return "vmcall"
            case 0xd9?: return "vmmcall"
            default: return nil
            }
        case 0x0b: return "ud2"
        case 0x80...0x8f: return target(4).map { "j" + Self.conditions[Int(code & 15)] + " " + $0 }
        case 0xb0, 0xb1, 0xc0, 0xc1:
            let width = code & 1 == 0 ? 1 : size
            return modRM(width).map {
                (code < 0xc0 ? "cmpxchg " : "xadd ") + register($0.register, width) + ", " + $0.memory
            }
        case 0xb6, 0xb7:
            let width = code == 0xb6 ? 1 : 2
            return modRM(width).map {
                "movz" + suffix(width) + suffix(size) + " " + $0.memory + ", " + register($0.register, size)
            }
        default: return nil
        }
    }

    private mutating func arithmetic(_ code: UInt8) -> String? {
        let width = code & 1 == 0 ? 1 : size
        return modRM(width).map { part, memory in
            let name = Self.operations[Int(code >> 3)] + " "
            let own = register(part, width)
            return name + (code & 2 == 0 ? own + ", " + memory : memory + ", " + own)
        }
    }

    private mutating func immediateArithmetic(_ code: UInt8) -> String? {
        let width = code == 0x80 ? 1 : size
        guard let (part, memory) = modRM(width),
            let value = immediate(code == 0x81 ? min(width, 4) : 1)
        else { return nil }
        return Self.operations[part & 7] + suffix(width) + " $\(value), " + memory
    }

    private mutating func oneOperand(_ code: UInt8) -> String? {
        let width = code == 0xfe ? 1 : size
        guard let (part, memory) = modRM(width) else { return nil }
        switch (part & 7, code) {
        case (0, _): return "inc" + suffix(width) + " " + memory
        case (1, _): return "dec" + suffix(width) + " " + memory
        // Always eight bytes; in a register it would be another encoding.
        case (6, 0xff) where !operands.isEmpty && !isShort: return "push " + memory
        default: return nil
        }
    }

    private mutating func twoOperands(_ code: UInt8) -> String? {
        let width = code & 1 == 0 ? 1 : size
        return modRM(width).map { part, memory in
            let own = register(part, width)
            let name = code < 0x86 ? "test " : code < 0x88 ? "xchg " : "mov "
            return name + (code < 0x8a ? own + ", " + memory : memory + ", " + own)
        }
    }

    private mutating func string(_ code: UInt8) -> String {
        let width = code & 1 == 0 ? 1 : size
        // What is written to is at RDI, what is read at RSI.
        switch code & 0xfe {
        case 0xa4: operands = [.init(base: 6), .init(base: 7)]
        case 0x6e: operands = [.init(base: 6)]
        default: operands = [.init(base: 7)]
        }
        let name = [0xa4: "movs", 0xaa: "stos", 0x6c: "ins", 0x6e: "outs"][Int(code & 0xfe)] ?? ""
        return name + suffix(width)
    }

    private mutating func port(_ code: UInt8) -> String? {
        let own = register(0, code & 1 == 0 ? 1 : isShort ? 2 : 4)
        var port = "(%dx)"
        if code < 0xec {
            guard let number = next() else { return nil }
            port = "$0x" + String(number, radix: 16)
        }
        return code & 2 == 0 ? "in \(port), \(own)" : "out \(own), \(port)"
    }

    // MARK: pieces

    private func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func next() -> UInt8? {
        guard let byte = peek() else { return nil }
        position += 1
        return byte
    }

    private mutating func number(_ count: Int) -> Int64? {
        guard position + count <= bytes.count else { return nil }
        var value: UInt64 = 0
        for index in 0..<count { value |= UInt64(bytes[position + index]) << UInt64(8 * index) }
        position += count
        let unused = UInt64(64 - 8 * count)
        return Int64(bitPattern: value << unused) >> Int64(unused)
    }

    private mutating func immediate(_ count: Int) -> String? { number(count).map(Self.signed) }

    private mutating func target(_ count: Int) -> String? {
        number(count).map { "." + ($0 < 0 ? "" : "+") + Self.signed($0) }
    }

    private static func signed(_ value: Int64) -> String {
        (value < 0 ? "-" : "") + "0x" + String(value.magnitude, radix: 16)
    }

    private func suffix(_ width: Int) -> String { Self.letters[width] ?? "" }
    private func extended(_ bit: UInt8) -> Int { rex & bit != 0 ? 8 : 0 }

    private static let names = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]

    private func register(_ number: Int, _ width: Int) -> String {
        if number >= 8 { return "%r\(number)" + ([1: "b", 2: "w", 4: "d"][width] ?? "") }
        let name = Self.names[number]
        switch width {
        case 8: return "%r" + name
        case 4: return "%e" + name
        case 2: return "%" + name
        default:
            if number < 4 { return "%\(name.prefix(1))l" }
            return rex != 0 ? "%\(name)l" : "%\(Self.names[number - 4].prefix(1))h"
        }
    }

    /// The ModRM byte with all that belongs to it.
    private mutating func modRM(_ width: Int) -> (register: Int, memory: String)? {
        guard let byte = next() else { return nil }
        let own = Int(byte >> 3 & 7) + extended(4)
        if byte >> 6 == 3 { return (own, register(Int(byte & 7) + extended(1), width)) }
        var place = Instruction.Operand(base: Int(byte & 7) + extended(1))
        if byte & 7 == 4 {
            guard let sib = next() else { return nil }
            let index = Int(sib >> 3 & 7) + extended(2)
            place.index = index == 4 ? nil : index
            place.scale = 1 << UInt64(sib >> 6)
            place.base = Int(sib & 7) + extended(1)
        }
        let count = [0, 1, 4][Int(byte >> 6)]
        if count > 0 {
            guard let displacement = number(count) else { return nil }
            place.displacement = displacement
        } else if place.base.map({ $0 & 7 == 5 }) == true {
            guard let displacement = number(4) else { return nil }
            place.base = nil
            place.isRelative = byte & 7 == 5
            place.displacement = displacement
        }
        operands = [place]
        var text = place.displacement == 0 ? "" : Self.signed(place.displacement)
        text += "(" + (place.isRelative ? "%rip" : place.base.map { register($0, 8) } ?? "")
        if let index = place.index { text += ",\(register(index, 8)),\(place.scale)" }
        return (own, text + ")")
    }
}
