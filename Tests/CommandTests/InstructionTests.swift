// SPDX-License-Identifier: MIT
import CKVMShim
import Testing

@testable import minivmm

/// The installed versions of Capstone, the disassembler.
enum Capstone {
    static let libraries = Disassembler.names.filter { Disassembler(names: [$0]) != nil }
    static let isInstalled = !libraries.isEmpty
    static let missing: Comment = "needs Capstone: libcapstone4 or libcapstone5"
}

/// The text and the memory operands of instructions, with each installed version.
@Suite(.enabled(if: Capstone.isInstalled, Capstone.missing))
struct InstructionTests {
    private static let address: UInt64 = 0x10_0000

    private func instruction(_ bytes: [UInt8], _ library: String) throws -> Instruction {
        let disassembler = try #require(Disassembler(names: [library]))
        return Instruction(bytes, at: Self.address, by: disassembler)
    }

    private static let texts: [([UInt8], String)] = [
        // Instructions that exit to the monitor.
        ([0xe7, 0xe8], "outl %eax, $0xe8"), ([0xe6, 0xf4], "outb %al, $0xf4"), ([0xee], "outb %al, %dx"),
        ([0x66, 0xef], "outw %ax, %dx"), ([0xec], "inb %dx, %al"), ([0xe4, 0x10], "inb $0x10, %al"),
        ([0xf3, 0x6e], "rep outsb (%rsi), %dx"), ([0xf3, 0x6d], "rep insl %dx, (%rdi)"),
        ([0x0f, 0x01, 0xd9], "vmmcall"), ([0x0f, 0x01, 0xc1], "vmcall"), ([0xf4], "hlt"),
        ([0x0f, 0x0b], "ud2"),
        // Memory.
        ([0x41, 0xc6, 0x45, 0x08, 0x5a], "movb $0x5a, 8(%r13)"), ([0x48, 0x89, 0x0b], "movq %rcx, (%rbx)"),
        ([0x42, 0x88, 0x3c, 0x30], "movb %dil, (%rax, %r14)"), ([0xf3, 0xa4], "rep movsb (%rsi), (%rdi)"),
        ([0xf0, 0x48, 0x0f, 0xb1, 0x0b], "lock cmpxchgq %rcx, (%rbx)"),
        ([0x80, 0x3d, 0x10, 0x00, 0x00, 0x00, 0x01], "cmpb $1, 0x10(%rip)"),
        ([0x0f, 0xb6, 0x06], "movzbl (%rsi), %eax"), ([0x8d, 0x40, 0x10], "leal 0x10(%rax), %eax"),
        ([0x41, 0x50], "pushq %r8"), ([0xff, 0x70, 0x08], "pushq 8(%rax)"), ([0xf3, 0x90], "pause"),
        // Jumps and calls. Their targets are shown as addresses.
        ([0xeb, 0xfe], "jmp 0x100000"), ([0x70, 0x10], "jo 0x100012"),
        ([0x0f, 0x84, 0x00, 0x10, 0x00, 0x00], "je 0x101006"), ([0xe8, 0, 0, 0, 0], "callq 0x100005"),
        ([0xc3], "retq"),
        // SSE, multiplication, shifts, conditions, bits, strings with prefixes.
        ([0xf3, 0x0f, 0x6f, 0x06], "movdqu (%rsi), %xmm0"), ([0x0f, 0x28, 0x06], "movaps (%rsi), %xmm0"),
        ([0xf2, 0x0f, 0x10, 0x06], "movsd (%rsi), %xmm0"), ([0x66, 0x0f, 0xfe, 0xc0], "paddd %xmm0, %xmm0"),
        ([0x0f, 0xaf, 0x06], "imull (%rsi), %eax"), ([0xc1, 0xe0, 0x04], "shll $4, %eax"),
        ([0xd3, 0x26], "shll %cl, (%rsi)"), ([0x0f, 0x44, 0x06], "cmovel (%rsi), %eax"),
        ([0x48, 0x0f, 0xa3, 0x06], "btq %rax, (%rsi)"), ([0xf3, 0x48, 0xab], "rep stosq %rax, (%rdi)"),
        ([0xf2, 0xae], "repne scasb (%rdi), %al"), ([0x0f, 0x22, 0xd8], "movq %rax, %cr3"),
        ([0x0f, 0x30], "wrmsr"),
    ]

    @Test(arguments: Capstone.libraries) func instructionsAreShownInATTSyntax(library: String) throws {
        for (bytes, text) in Self.texts {
            // The bytes of two more instructions follow.
            let instruction = try instruction(bytes + [0x90, 0xf4], library)
            #expect(instruction.text == text)
            #expect(instruction.bytes == bytes, "\(text)")
        }
    }

    @Test(arguments: Capstone.libraries) func portAccessesAreRecognised(library: String) throws {
        func accesses(_ bytes: [UInt8], _ port: UInt16, isOut: Bool) throws -> Bool {
            try instruction(bytes, library).accesses(port: port, isOut: isOut)
        }
        #expect(try accesses([0xe7, 0xe8], 0xe8, isOut: true))
        #expect(try !accesses([0xe7, 0xe8], 0xe9, isOut: true))
        #expect(try !accesses([0xe7, 0xe8], 0xe8, isOut: false))
        #expect(try accesses([0xe4, 0xf4], 0xf4, isOut: false))
        for bytes: [UInt8] in [[0xee], [0x66, 0xef], [0xf3, 0x6e], [0x6f]] {
            #expect(try accesses(bytes, 0x3f8, isOut: true) && !accesses(bytes, 0x3f8, isOut: false))
        }
        for bytes: [UInt8] in [[0xec], [0xed], [0xf3, 0x6c], [0x6d]] {
            #expect(try accesses(bytes, 0x3f8, isOut: false) && !accesses(bytes, 0x3f8, isOut: true))
        }
        // The names of INC, INT3 and INSERTPS start like IN and INS.
        for bytes: [UInt8] in [[0xff, 0xc0], [0xcc], [0x66, 0x0f, 0x3a, 0x21, 0xc1, 0x00]] {
            #expect(try !accesses(bytes, 0, isOut: false))
        }
    }

    // MARK: memory

    /// RAX 0x1000, RCX 0x2000, ... R15 0x10000; RSP 0x5000.
    private var registers: ckvm_regs {
        var registers = ckvm_regs()
        (registers.rax, registers.rcx, registers.rdx, registers.rbx) = (0x1000, 0x2000, 0x3000, 0x4000)
        (registers.rsp, registers.rbp, registers.rsi, registers.rdi) = (0x5000, 0x6000, 0x7000, 0x8000)
        (registers.r8, registers.r9, registers.r10, registers.r11) = (0x9000, 0xa000, 0xb000, 0xc000)
        (registers.r12, registers.r13, registers.r14, registers.r15) = (0xd000, 0xe000, 0xf000, 0x1_0000)
        return registers
    }

    private static let accesses: [([UInt8], pages: Set<UInt64>)] = [
        ([0x48, 0x89, 0x0b], [4]),  // mov %rcx, (%rbx)
        ([0x41, 0xc6, 0x45, 0x08, 0x5a], [0xe]),  // movb $0x5a, 8(%r13)
        ([0x8a, 0x43, 0xff], [3]),  // mov -1(%rbx), %al
        ([0x48, 0x89, 0x4b, 0xfc], [3, 4]),  // mov %rcx, -4(%rbx): across pages
        ([0x0f, 0x11, 0x46, 0xf1], [6, 7]),  // movups %xmm0, -15(%rsi)
        ([0x88, 0x4b, 0xfc], [3]),  // mov %cl, -4(%rbx): a byte
        ([0x42, 0x88, 0x3c, 0x30], [0x10]),  // mov %dil, (%rax, %r14)
        ([0x48, 0x8b, 0x04, 0x8d, 0x00, 0x10, 0x00, 0x00], [9]),  // mov 0x1000(, %rcx, 4), %rax
        ([0x48, 0x8b, 0x04, 0x25, 0x00, 0x30, 0x00, 0x00], [3]),  // mov 0x3000, %rax
        ([0x48, 0x8b, 0x05, 0x00, 0x10, 0x00, 0x00], [0x101]),  // mov 0x1000(%rip), %rax
        ([0x67, 0x8a, 0x00], [1]),  // mov (%eax), %al
        ([0xf3, 0xa4], [7, 8]),  // rep movsb
        ([0xaa], [8]), ([0xac], [7]), ([0xa6], [7, 8]), ([0xf3, 0x6e], [7]), ([0xf3, 0x6c], [8]),
        ([0x50], [4, 5]), ([0x58], [4, 5]), ([0xc3], [4, 5]), ([0xe8, 0, 0, 0, 0], [4, 5]),  // the stack
        ([0xff, 0x30], [1, 4, 5]), ([0xff, 0x10], [1, 4, 5]),  // push (%rax), call *(%rax)
        ([0xff, 0x20], [1]),  // jmp *(%rax)
        ([0x8d, 0x03], []), ([0x0f, 0x1f, 0x03], []),  // lea and nop do not access memory
        ([0x31, 0xc0], []), ([0x48, 0x89, 0xe0], []), ([0xe7, 0xe8], []),
        ([0x65, 0x48, 0x8b, 0x00], []),  // mov %gs:(%rax), %rax: the GS base is not in the registers
    ]

    @Test(arguments: Capstone.libraries) func touchedPagesFollowFromTheRegisters(library: String) throws {
        for (bytes, pages) in Self.accesses {
            let instruction = try instruction(bytes, library)
            let touched = (0...UInt64(0x200)).filter { instruction.touches(page: $0, registers) }
            #expect(Set(touched) == pages, "\(instruction.line)")
        }
    }

    @Test(arguments: Capstone.libraries) func addressesWrap(library: String) throws {
        var registers = registers
        registers.rbx = .max - 3
        let across = try instruction([0x48, 0x89, 0x0b], library)  // mov %rcx, (%rbx)
        #expect(across.touches(page: .max >> 12, registers) && across.touches(page: 0, registers))
        let short = try instruction([0x67, 0x8a, 0x03], library)  // mov (%ebx), %al
        #expect(short.touches(page: 0xf_ffff, registers) && !short.touches(page: .max >> 12, registers))
    }

    // MARK: bytes that are not an instruction

    @Test(arguments: Capstone.libraries) func truncatedInstructionIsNotDecoded(library: String) throws {
        for (bytes, text) in Self.texts where bytes.count > 1 {
            for length in 0..<bytes.count {
                let part = try instruction(Array(bytes.prefix(length)), library)
                // Without its last bytes it may be another instruction.
                #expect(part.text != text && part.bytes.count <= length, "\(part.line)")
            }
        }
        for bytes: [UInt8] in [[], [0x0f], [0x66], [0x48, 0x8b], [0xe8, 0, 0], [0xff, 0xd8]] {
            let part = try instruction(bytes, library)
            #expect(part.text == nil && part.bytes == bytes && part.operands.isEmpty)
        }
    }

    @Test(arguments: Capstone.libraries) func randomBytesHaveALength(library: String) throws {
        let disassembler = try #require(Disassembler(names: [library]))
        var random = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...24, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            let address = UInt64.random(in: 0...(.max), using: &random)
            let instruction = Instruction(bytes, at: address, by: disassembler)
            _ = instruction.touches(page: 0, registers)
            let length = instruction.bytes.count
            guard let text = instruction.text else {
                #expect(length == min(bytes.count, 8) && instruction.operands.isEmpty)
                continue
            }
            #expect((1...15).contains(length) && bytes.starts(with: instruction.bytes), "\(bytes)")
            #expect(!text.isEmpty && !instruction.name.isEmpty, "\(bytes)")
        }
    }
}

/// Without a disassembler.
struct NoDisassemblerTests {
    @Test(arguments: ["libnothing-of-this-name.so.4", "libc.so.6", ""])
    func otherLibrariesAreRejected(name: String) { #expect(Disassembler(names: [name]) == nil) }

    @Test func instructionsAreShownAsBytes() {
        let instruction = Instruction([0xe7, 0xe8, 0xf4], at: 0, by: nil)
        #expect(instruction.text == nil && instruction.line == "e7 e8 f4 ...")
        #expect(!instruction.touches(page: 0, ckvm_regs()) && !instruction.accesses(port: 0xe8, isOut: true))
    }
}
