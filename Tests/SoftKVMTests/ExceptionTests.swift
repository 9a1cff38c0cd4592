// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Exceptions of ordinary guests: delivered through the guest's IDT, or reported with KVM_EXIT_SHUTDOWN.
@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct ExceptionTests {
    static let divide: [UInt8] = [0x31, 0xc9, 0xf7, 0xf1]  // xor ecx, ecx; div ecx
    static let readMSR: [UInt8] = [0xb9, 0x99, 0x09, 0x00, 0xc0, 0x0f, 0x32]  // mov ecx, 0xc0000999; rdmsr
    static let notMapped: [UInt8] = [
        0x48, 0xbb, 0x78, 0x56, 0x34, 0x12, 0x00, 0x80, 0xff, 0xff,  // mov rbx, 0xffff800012345678
        0x48, 0x89, 0x03,  // mov [rbx], rax
    ]
    static let notCanonical: [UInt8] = [
        0x48, 0xbb, 0x78, 0x56, 0x34, 0x12, 0x00, 0x00, 0x00, 0xff,  // mov rbx, 0xff00000012345678
        0x48, 0x8b, 0x03,  // mov rax, [rbx]
    ]
    /// The code, the offset of the instruction that raises the exception, and the exception.
    static let causes: [(code: [UInt8], offset: UInt64, exception: CPUException)] = [
        (divide, 2, CPUException(0)),
        (readMSR, 5, CPUException(13)),
        ([0x0f, 0x0b], 0, CPUException(6)),  // ud2
        (notMapped, 10, CPUException(14, errorCode: 2, address: 0xffff_8000_1234_5678)),
        (notCanonical, 10, CPUException(13)),
        ([0x0f, 0x01, 0xc8], 0, CPUException(6)),  // monitor
        ([0x0f, 0x20, 0xc8], 0, CPUException(6)),  // mov rax, cr1
        ([0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0x0f, 0x22, 0xc0], 7, CPUException(13)),  // mov cr0, 0
        ([0x66, 0x0f, 0x01, 0xcc], 0, CPUException(6)),  // tdcall without TDX
    ]

    @Test(arguments: causes)
    func `without an IDT an exception ends the guest, and its cause is known`(
        code: [UInt8], offset: UInt64, exception: CPUException
    ) throws {
        let guest = try Guest(code)
        #expect(guest.vcpu.exit() == "shutdown")
        let unhandled = try #require(guest.vcpu.unhandled)
        #expect(unhandled.exception == exception)
        #expect(unhandled.code.prefix(code.count - Int(offset)) == code[Int(offset)...])
        #expect(try guest.vcpu.registers().rip == Guest.code + offset)
    }

    @Test func `a software interrupt without a gate is a general protection fault with its selector`() throws
    {
        for (code, number) in [([0xcd, 0x30], 0x30), ([0xcc], 3), ([0xcd, 0x0d], 13)] as [([UInt8], UInt32)] {
            let guest = try Guest(code)
            #expect(guest.vcpu.exit() == "shutdown")
            #expect(guest.vcpu.unhandled?.exception == CPUException(13, errorCode: number << 3 | 2))
        }
    }

    static let table: UInt64 = 0x20000
    static let handlers: UInt64 = 0x21000
    static let taskState: UInt64 = 0x22000

    /// A guest with a gate for each exception. Its handler is one OUT to the port of the same number.
    private func handled(_ code: [UInt8], stack: UInt64? = nil) throws -> Guest {
        let guest = try Guest(code)
        for vector in 0..<32 as Range<UInt64> {
            let handler = Self.handlers + vector * 8
            try guest.ram.put([0xe6, UInt8(vector)], at: handler)
            try guest.ram.putGate(
                vector, of: Self.table, to: handler, stack: stack == nil ? 0 : 1)
        }
        var special = try guest.vcpu.specialRegisters()
        special.idt.base = Self.table
        special.idt.limit = 511
        if let stack {
            special.tr.base = Self.taskState
            special.tr.limit = 0x67
            // IST1; a TSS is not aligned to eight bytes there.
            try guest.ram.put(word: stack, at: Self.taskState + 36)
        }
        try guest.vcpu.setSpecialRegisters(special)
        return guest
    }

    @Test(arguments: causes, [nil, 0x30000])
    func `an exception enters its handler with a frame on the stack`(
        cause: (code: [UInt8], offset: UInt64, exception: CPUException), stack: UInt64?
    ) throws {
        let guest = try handled(cause.code, stack: stack)
        let before = try guest.vcpu.registers()
        #expect(guest.vcpu.exit() == "io out \(cause.exception.vector) 1")
        let registers = try guest.vcpu.registers()
        let top = (stack ?? before.rsp) & ~0xf
        let expected = [Guest.code + cause.offset, 8] + [before.rsp]
        let code = cause.exception.errorCode.map { [UInt64($0)] } ?? []
        #expect(registers.rsp == top - UInt64(5 + code.count) * 8)
        let words = try (0..<UInt64(5 + code.count)).map { try guest.ram.word(at: registers.rsp + $0 * 8) }
        #expect(Array(words.prefix(code.count)) == code)
        let frame = Array(words.dropFirst(code.count))
        #expect([frame[0], frame[1], frame[3]] == expected)
        if let address = cause.exception.address {
            #expect(try guest.vcpu.specialRegisters().cr2 == address)
        }
    }

    /// The engine reports the second #DE or #GP as a double fault, and the third as a triple fault.
    @Test func `each of a thousand exceptions in a row is delivered as itself`() throws {
        let code = Self.divide + Self.readMSR
        let guest = try handled(code)
        for round in 0..<500 {
            for (vector, next) in [(0, 4), (13, 0)] as [(Int, UInt64)] {
                try #require(guest.vcpu.exit() == "io out \(vector) 1", "round \(round)")
                var registers = try guest.vcpu.registers()
                registers.rip = Guest.code + next
                registers.rsp = Guest.stack
                try guest.vcpu.setRegisters(registers)
            }
        }
    }

    @Test func `INT n enters its gate with the address of the next instruction`() throws {
        let guest = try handled([0xcd, 0x0d, 0xcc, 0xf4])
        #expect(guest.vcpu.exit() == "io out 13 1")
        #expect(try guest.ram.word(at: guest.vcpu.registers().rsp) == Guest.code + 2)
    }
}
