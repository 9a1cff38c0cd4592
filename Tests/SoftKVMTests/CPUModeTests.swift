// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Testing

/// Real mode, protected mode with each kind of paging, and the ways from one to the other. The expected values are those of
/// the Intel SDM, volume 3.
@Suite(.enabled(if: hasEngine)) struct CPUModeTests {
    private static func segment(
        base: UInt64 = 0, selector: UInt16 = 0, limit: UInt32 = 0xffff_ffff, type: UInt8, big: Bool
    ) -> ckvm_segment {
        var segment = ckvm_segment()
        segment.base = base
        segment.selector = selector
        segment.limit = limit
        segment.type = type
        segment.present = 1
        segment.s = 1
        segment.db = big ? 1 : 0
        segment.g = big ? 1 : 0
        return segment
    }

    static func realMode(codeSegment: UInt16 = 0) -> ckvm_sregs {
        var special = ckvm_sregs()
        special.cr0 = 0x10
        special.cs = segment(
            base: UInt64(codeSegment) << 4, selector: codeSegment, limit: 0xffff, type: 11, big: false)
        let data = segment(limit: 0xffff, type: 3, big: false)
        (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data)
        special.idt.limit = 0xffff
        return special
    }

    static var protectedMode: ckvm_sregs {
        var special = ckvm_sregs()
        special.cr0 = 0x11
        special.cs = segment(selector: 8, type: 11, big: true)
        let data = segment(selector: 16, type: 3, big: true)
        (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data)
        return special
    }

    private func guest(_ code: [UInt8], _ special: ckvm_sregs, rip: UInt64 = Guest.code) throws -> Guest {
        let guest = try Guest(code)
        try guest.vcpu.setSpecialRegisters(special)
        try guest.change {
            $0.rip = rip
            $0.rsp = 0x8000
        }
        return guest
    }

    /// The next exit; of an OUT with its port, size and value.
    private func left(_ guest: Guest) -> String {
        let exit = guest.vcpu.exit()
        guard exit.hasPrefix("io out") else { return exit }
        let io = guest.vcpu.runPage.io
        let value = guest.vcpu.ioBytes.reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        return "out \(hex(UInt64(io.port))) \(io.size) \(hex(value))"
    }

    /// `CS:IP` with a base; 16-bit operands and addresses; the upper half of a register is kept.
    @Test func realModeHasSixteenBits() throws {
        let code: [UInt8] = [
            0x8c, 0xc8,  // mov ax, cs
            0x8e, 0xd8,  // mov ds, ax
            0xbb, 0x20, 0x00,  // mov bx, 0x20
            0x8b, 0x07,  // mov ax, [bx]
            0xee,  // out dx, al
            0x66, 0xb9, 0x78, 0x56, 0x34, 0x12,  // mov ecx, 0x12345678
            0xb9, 0x01, 0x00,  // mov cx, 1
            0x40,  // inc ax (REX in 64-bit code)
            0xf4,  // hlt
        ]
        let guest = try guest(code, Self.realMode(codeSegment: 0x1000), rip: 0)
        try guest.ram.put([0xad, 0xde], at: Guest.code + 0x20)
        try guest.change { $0.rdx = 0x3f8 }
        #expect(left(guest) == "out 0x3f8 1 0xad")
        #expect(left(guest) == "halt")
        let registers = try guest.vcpu.registers()
        #expect(registers.rax == 0xdeae && registers.rbx == 0x20 && registers.rcx == 0x1234_0001)
        #expect(registers.rip == UInt64(code.count))
        let special = try guest.vcpu.specialRegisters()
        #expect(special.ds.base == 0x10000 && special.ds.selector == 0x1000 && special.cs.base == 0x10000)
    }

    /// The LWN article's guest: the sum of two registers, as a digit.
    @Test func theGuestOfTheArticleAddsTwoNumbers() throws {
        let guest = try guest(
            [0xba, 0xf8, 0x03, 0x00, 0xd8, 0x04, 0x30, 0xee, 0xb0, 0x0a, 0xee, 0xf4],
            Self.realMode(codeSegment: 0x1000), rip: 0)
        try guest.change {
            $0.rax = 2
            $0.rbx = 2
        }
        #expect(left(guest) == "out 0x3f8 1 0x34")
        #expect(left(guest) == "out 0x3f8 1 0xa")
        #expect(left(guest) == "halt")
    }

    /// INT n and a division by zero enter the handlers of the vector table, and IRET returns.
    @Test func realModeInterruptsUseTheVectorTable() throws {
        let code: [UInt8] = [
            0xcd, 0x21,  // int 0x21
            0xb3, 0x01,  // mov bl, 1
            0x31, 0xc9,  // xor cx, cx
            0xf7, 0xf1,  // div cx
            0xf4,  // hlt
        ]
        let guest = try guest(code, Self.realMode(codeSegment: 0x1000), rip: 0)
        try guest.ram.put([0x00, 0x01, 0x00, 0x10], at: 0x21 * 4)  // 1000:0100
        try guest.ram.put([0xb0, 0x77, 0xe6, 0xe9, 0xcf], at: Guest.code + 0x100)  // out 0xe9, 0x77; iret
        try guest.ram.put([0x00, 0x02, 0x00, 0x10], at: 0)
        try guest.ram.put([0xf4], at: Guest.code + 0x200)  // hlt
        #expect(left(guest) == "out 0xe9 1 0x77")
        #expect(left(guest) == "halt")
        let registers = try guest.vcpu.registers()
        #expect(registers.rip == 0x201 && registers.rbx == 1)
        #expect(registers.rsp == 0x8000 - 6)
        // The return address is the division itself.
        #expect(try guest.ram.bytes(at: 0x8000 - 6, 4) == [6, 0, 0x00, 0x10])
    }

    /// INT n beyond the table is #GP, which is a triple fault if the table has neither vector 13 nor vector 8.
    @Test func aVectorBeyondTheTableIsAGeneralProtectionFault() throws {
        var special = Self.realMode(codeSegment: 0x1000)
        special.idt.limit = 0x21 * 4 + 2
        let handled = try guest([0xcd, 0x21], special, rip: 0)
        try handled.ram.put([0x00, 0x02, 0x00, 0x10], at: 13 * 4)  // 1000:0200
        try handled.ram.put([0xf4], at: Guest.code + 0x200)  // hlt
        #expect(left(handled) == "halt")
        #expect(try handled.vcpu.registers().rip == 0x201)
        special.idt.limit = 8 * 4 + 2
        let lost = try guest([0xcd, 0x21], special, rip: 0)
        #expect(left(lost) == "shutdown")
        #expect(lost.vcpu.unhandled?.exception.vector == 13)
    }

    /// An interrupt gate of protected mode: EFLAGS, CS, EIP and the error code, four bytes each.
    @Test func protectedModeExceptionsUseTheGatesOfTheIDT() throws {
        var special = Self.protectedMode
        special.idt.base = 0x20000
        special.idt.limit = 0xff
        special.gdt.base = 0x22000
        special.gdt.limit = 0x17
        let code: [UInt8] = [
            0xbc, 0x00, 0x80, 0x00, 0x00,  // mov esp, 0x8000
            0xcd, 0x10,  // int 0x10
            0xb9, 0x99, 0x09, 0x00, 0xc0, 0x0f, 0x32,  // mov ecx, 0xc0000999; rdmsr
        ]
        let guest = try guest(code, special)
        // For IRET: flat code and data.
        try guest.ram.put(word: 0x00cf_9b00_0000_ffff, at: 0x22008)
        try guest.ram.put(word: 0x00cf_9300_0000_ffff, at: 0x22010)
        for vector in [13, 0x10] as [UInt64] {
            let handler = 0x21000 + vector * 16
            try guest.ram.put([0xe6, UInt8(vector), 0xcf], at: handler)  // out VECTOR, al; iret
            try guest.ram.put(
                word: handler & 0xffff | 8 << 16 | 0x8e << 40 | (handler >> 16) << 48,
                at: 0x20000 + vector * 8)
        }
        #expect(left(guest) == "out 0x10 1 0x0")
        #expect(try guest.vcpu.registers().rsp == 0x8000 - 12)
        #expect(left(guest) == "out 0xd 1 0x0")
        let rsp = try guest.vcpu.registers().rsp
        #expect(rsp == 0x8000 - 16)
        let frame = try guest.ram.bytes(at: rsp, 12)
        #expect(frame == [0, 0, 0, 0, 12, 0, 1, 0, 8, 0, 0, 0])
    }

    /// A 32-bit guest in ring 3 returns from a handler, whose stack is that of the TSS. A TSS with a stack for another ring is #TS.
    @Test func protectedModeHandlersAreInRingZero() throws {
        var special = Self.protectedMode
        (special.idt.base, special.idt.limit) = (0x20000, 0xff)
        (special.gdt.base, special.gdt.limit) = (0x22000, 0x27)
        (special.tr.base, special.tr.limit) = (0x23000, 0x67)
        special.cs.selector = 0x1b
        special.ss.selector = 0x23
        (special.cs.dpl, special.ss.dpl) = (3, 3)
        // ud2; ud2; hlt
        let code: [UInt8] = [0x0f, 0x0b, 0x0f, 0x0b, 0xf4]
        func prepared(stackSegment: UInt64) throws -> Guest {
            let guest = try guest(code, special)
            let descriptors: [UInt64] = [
                0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_fb00_0000_ffff, 0x00cf_f300_0000_ffff,
            ]
            for (index, word) in descriptors.enumerated() {
                try guest.ram.put(word: word, at: 0x22008 + UInt64(index) * 8)
            }
            try guest.ram.put(word: 0x7000 | stackSegment << 32, at: 0x23004)
            // add dword [esp], 2; iret
            try guest.ram.put([0x83, 0x04, 0x24, 2, 0xcf], at: 0x21000 + 6 * 16)
            for vector in 0..<16 as Range<UInt64> {
                let handler = 0x21000 + vector * 16
                if vector != 6 { try guest.ram.put([0xe6, UInt8(vector), 0xcf], at: handler) }
                try guest.ram.put(
                    word: handler & 0xffff | 8 << 16 | 0x8e << 40 | (handler >> 16) << 48,
                    at: 0x20000 + vector * 8)
            }
            return guest
        }
        let handled = try prepared(stackSegment: 0x10)
        #expect(left(handled) == "out 0xd 1 0x0")
        #expect(try handled.vcpu.registers().rsp == 0x7000 - 24)
        #expect(try handled.ram.word(at: 0x7000 - 24) == UInt64(Guest.code + 4) << 32)
        #expect(try handled.ram.word(at: 0x7000 - 16) & 0xffff_ffff == 0x1b)
        #expect(try handled.ram.word(at: 0x7000 - 8) == 0x23 << 32 | 0x8000)
        let inner = try handled.vcpu.specialRegisters()
        #expect(inner.cs.selector == 8 && inner.ss.selector == 0x10 && inner.ss.dpl == 0)
        // Ring 3's own stack segment, and none.
        for segment in [0x23, 0] as [UInt64] {
            let guest = try prepared(stackSegment: segment)
            #expect(left(guest) == "shutdown")
            #expect(guest.vcpu.unhandled?.exception == CPUException(6))
        }
    }

    /// OUTS and INS with segment bases and 16-bit indices that wrap.
    @Test func stringsUseSegmentsAndSixteenBitIndices() throws {
        let code: [UInt8] = [
            0xf3, 0x26, 0x6e,  // rep outsb dx, es:[si]
            0xf4,  // hlt
        ]
        var special = Self.realMode(codeSegment: 0x1000)
        special.es.base = 0x20000
        let guest = try guest(code, special, rip: 0)
        try guest.ram.put([0x41], at: 0x2ffff)
        try guest.ram.put([0x42], at: 0x20000)
        try guest.change {
            $0.rsi = 0x7_ffff
            $0.rcx = 0x5_0002
            $0.rdx = 0xe9
        }
        #expect(left(guest) == "out 0xe9 1 0x41")
        #expect(left(guest) == "out 0xe9 1 0x42")
        #expect(left(guest) == "halt")
        let registers = try guest.vcpu.registers()
        #expect(registers.rsi == 0x7_0001 && registers.rcx == 0x5_0000)
    }

    @Test func protectedModeHasThirtyTwoBitsAndNoPaging() throws {
        let code: [UInt8] = [
            0xb8, 0xef, 0xbe, 0xad, 0xde,  // mov eax, 0xdeadbeef
            0xa3, 0x00, 0x00, 0x02, 0x00,  // mov [0x20000], eax
            0x40,  // inc eax
            0x50,  // push eax
            0xe7, 0xe9,  // out 0xe9, eax
            0xf4,  // hlt
        ]
        let guest = try guest(code, Self.protectedMode)
        #expect(left(guest) == "out 0xe9 4 0xdeadbef0")
        #expect(left(guest) == "halt")
        #expect(try guest.ram.bytes(at: 0x20000, 4) == [0xef, 0xbe, 0xad, 0xde])
        #expect(try guest.ram.bytes(at: 0x8000 - 4, 4) == [0xf0, 0xbe, 0xad, 0xde])
    }

    /// 32-bit paging with a 4 MiB page and with a 4 KiB page, and PAE paging with a 2 MiB page. All map a page of 0x20000.
    @Test(arguments: ["4 MiB", "4 KiB", "PAE"])
    func protectedModeWithPaging(kind: String) throws {
        let code: [UInt8] = [
            0xa1, 0x00, 0x00, 0x42, 0x00,  // mov eax, [0x420000]
            0xe7, 0xe9,  // out 0xe9, eax
            0xa1, 0x00, 0x00, 0x00, 0xc0,  // mov eax, [0xc0000000]: not present
            0xf4,
        ]
        var special = Self.protectedMode
        special.cr0 |= 1 << 31
        special.cr3 = 0x30000
        let guest = try guest(code, special)
        try guest.ram.put(word: 0xfeed, at: 0x20000)
        switch kind {
        case "4 MiB":
            special.cr4 = 1 << 4
            try guest.ram.put(word: 0x83 | 0x83 << 32, at: 0x30000)
        case "4 KiB":
            try guest.ram.put(word: 0x31003 | 0x32003 << 32, at: 0x30000)
            try guest.ram.put([0x03, 0x00, 0x01, 0x00], at: 0x31000 + 0x10 * 4)
            try guest.ram.put([0x03, 0x00, 0x02, 0x00], at: 0x32000 + 0x20 * 4)
        default:
            special.cr4 = 1 << 5
            special.cr3 = 0x30020
            try guest.ram.put(word: 0x31001, at: 0x30020)
            for page in 0..<4 as Range<UInt64> {
                try guest.ram.put(word: (page % 2) << 21 | 0x83, at: 0x31000 + page * 8)
            }
        }
        try guest.vcpu.setSpecialRegisters(special)
        #expect(left(guest) == "out 0xe9 4 0xfeed", "\(kind)")
        #expect(left(guest) == "shutdown")
        #expect(try guest.vcpu.specialRegisters().cr2 == 0xc000_0000)
    }

    /// From real mode to protected mode, to long mode, and to compatibility mode and back: the way that a boot loader goes.
    @Test func aBootLoaderReachesSixtyFourBits() throws {
        var code: [UInt8] = [
            0x0f, 0x01, 0x16, 0x00, 0x03,  // lgdt [0x300]
            0x0f, 0x20, 0xc0,  // mov eax, cr0
            0x0c, 0x01,  // or al, 1
            0x0f, 0x22, 0xc0,  // mov cr0, eax
            0x66, 0xea, 0x20, 0x00, 0x01, 0x00, 0x08, 0x00,  // jmp 8:0x10020
        ]
        code += [UInt8](repeating: 0x90, count: 0x20 - code.count)
        code += [
            0xb0, 0x33, 0xe6, 0xe9,  // mov al, '3'; out 0xe9, al
            0xb8, 0x20, 0, 0, 0, 0x0f, 0x22, 0xe0,  // mov eax, 0x20; mov cr4, eax
            0xb8, 0x00, 0x10, 0, 0, 0x0f, 0x22, 0xd8,  // mov eax, 0x1000; mov cr3, eax
            0xb9, 0x80, 0x00, 0x00, 0xc0,  // mov ecx, 0xc0000080
            0x0f, 0x32, 0x80, 0xcc, 0x01, 0x0f, 0x30,  // rdmsr; or ah, 1; wrmsr
            0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0,  // cr0 |= PG
            0xea, 0x80, 0x00, 0x01, 0x00, 0x18, 0x00,  // jmp 0x18:0x10080
        ]
        code += [UInt8](repeating: 0x90, count: 0x80 - code.count)
        code += [
            0x48, 0xb8, 0x36, 0, 0, 0, 1, 0, 0, 0,  // mov rax, 0x100000036
            0xe6, 0xe9,  // out 0xe9, al
            0x6a, 0x08, 0x68, 0xa0, 0x00, 0x01, 0x00,  // push 8; push 0x100a0
            0x48, 0xcb,  // retfq
        ]
        code += [UInt8](repeating: 0x90, count: 0xa0 - code.count)
        code += [0x40, 0xe6, 0xe9, 0xf4]  // inc eax; out 0xe9, al; hlt
        let guest = try guest(code, Self.realMode(codeSegment: 0x1000), rip: 0)
        var special = Self.realMode(codeSegment: 0x1000)
        special.ds.base = 0x10000
        special.ds.selector = 0x1000
        try guest.vcpu.setSpecialRegisters(special)
        try guest.ram.put([0x1f, 0, 0x00, 0x04, 0x01, 0], at: Guest.code + 0x300)  // 32 bytes at 0x10400
        try guest.ram.put(word: 0x00cf_9b00_0000_ffff, at: Guest.code + 0x408)
        try guest.ram.put(word: 0x00cf_9300_0000_ffff, at: Guest.code + 0x410)
        try guest.ram.put(word: 0x00af_9b00_0000_ffff, at: Guest.code + 0x418)
        #expect(left(guest) == "out 0xe9 1 0x33")
        #expect(try guest.vcpu.specialRegisters().cs.db == 1)
        #expect(left(guest) == "out 0xe9 1 0x36")
        let long = try guest.vcpu.specialRegisters()
        #expect(long.cs.l == 1 && long.cs.selector == 0x18 && long.efer & 0x500 == 0x500)
        #expect(left(guest) == "out 0xe9 1 0x37")
        #expect(left(guest) == "halt")
        let compatible = try guest.vcpu.specialRegisters()
        #expect(compatible.cs.l == 0 && compatible.cs.selector == 8)
        #expect(try guest.vcpu.registers().rax == 0x37)
    }

    /// IA32_PAT keeps valid types, and an invalid type is a general protection fault.
    @Test func pageAttributeTableIsThere() throws {
        // mov ecx, 0x277; rdmsr; out 0xe9, eax
        let read: [UInt8] = [0xb9, 0x77, 0x02, 0, 0, 0x0f, 0x32, 0xe7, 0xe9]
        let write: [UInt8] = [0xb8, 0x00, 0x01, 0x04, 0x05, 0x0f, 0x30]  // mov eax, 0x05040100; wrmsr
        let wrong: [UInt8] = [0xb8, 0x02, 0, 0, 0, 0x0f, 0x30]  // mov eax, 2; wrmsr
        let guest = try guest(read + write + read + wrong, Self.protectedMode)
        #expect(left(guest) == "out 0xe9 4 0x70406")
        #expect(left(guest) == "out 0xe9 4 0x5040100")
        #expect(left(guest) == "shutdown")
    }

    /// LMSW enters protected mode and cannot leave it.
    @Test func machineStatusWordSetsProtectedMode() throws {
        let code: [UInt8] = [
            0xb8, 0x01, 0x00, 0x0f, 0x01, 0xf0,  // mov ax, 1; lmsw ax
            0x31, 0xc0, 0x0f, 0x01, 0xf0,  // xor ax, ax; lmsw ax
            0xf4,
        ]
        let guest = try guest(code, Self.realMode(codeSegment: 0x1000), rip: 0)
        #expect(left(guest) == "halt")
        #expect(try guest.vcpu.specialRegisters().cr0 & 0xf == 1)
    }

    /// In 16-bit code a wide register keeps bits that a jump must not use.
    @Test func theInstructionPointerWraps() throws {
        let guest = try guest([0xf4], Self.realMode(codeSegment: 0x1000), rip: 0xfffe)
        try guest.ram.put([0xe4, 0x60], at: 0x1fffe)  // in al, 0x60
        #expect(left(guest) == "io in 96 1")
        #expect(left(guest) == "halt")
        #expect(try guest.vcpu.registers().rip == 1)
    }

    /// Invalid changes of mode are a general protection fault, for which these guests have no handler.
    @Test func impossibleChangesOfMode() throws {
        let pagingInRealMode: [UInt8] = [0x66, 0xb8, 0x10, 0, 0, 0x80, 0x0f, 0x22, 0xc0]
        var real = Self.realMode(codeSegment: 0x1000)
        real.idt.limit = 0
        #expect(left(try guest(pagingInRealMode, real, rip: 0)) == "shutdown")
        // Long mode without PAE.
        var special = Self.protectedMode
        special.efer = 0x100
        let paging: [UInt8] = [0xb8, 0x11, 0, 0, 0x80, 0x0f, 0x22, 0xc0]
        #expect(left(try guest(paging, special)) == "shutdown")
    }
}
