// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct MMIOTests {
    /// A guest-physical address without a memslot.
    static let hole: UInt64 = 0x4000_0000

    private func data(_ vcpu: SoftVCPU) -> UInt64 {
        withUnsafeBytes(of: vcpu.runPage.mmio.data) { $0.loadUnaligned(as: UInt64.self) }
    }

    private func answer(_ vcpu: SoftVCPU, _ value: UInt64) {
        withUnsafeMutableBytes(of: &vcpu.runPage.mmio.data) {
            $0.storeBytes(of: value, toByteOffset: 0, as: UInt64.self)
        }
    }

    @Test func readsOfEverySize() throws {
        let forms: [(code: [UInt8], size: Int, result: UInt64)] = [
            ([0x8a, 0x06], 1, 0xaaaa_aaaa_aaaa_aa88),  // mov al, [rsi]
            ([0x66, 0x8b, 0x06], 2, 0xaaaa_aaaa_aaaa_7788),  // mov ax, [rsi]
            ([0x8b, 0x06], 4, 0x5566_7788),  // mov eax, [rsi]
            ([0x48, 0x8b, 0x06], 8, 0x1122_3344_5566_7788),  // mov rax, [rsi]
            ([0x48, 0x0f, 0xb6, 0x06], 1, 0x88),  // movzx rax, byte [rsi]
            ([0x48, 0x0f, 0xbe, 0x06], 1, 0xffff_ffff_ffff_ff88),  // movsx rax, byte [rsi]
        ]
        for (code, size, result) in forms {
            let guest = try Guest(code + [0xf4])
            try guest.change { ($0.rax, $0.rsi) = (0xaaaa_aaaa_aaaa_aaaa, Self.hole + 0x11) }
            #expect(guest.vcpu.exit() == "mmio read 0x40000011 \(size)")
            answer(guest.vcpu, 0x1122_3344_5566_7788)
            #expect(guest.vcpu.exit() == "halt")
            #expect(try guest.vcpu.registers().rax == result)
        }
    }

    @Test func writesOfEverySize() throws {
        let forms: [(code: [UInt8], size: Int, value: UInt64)] = [
            ([0x88, 0x07], 1, 0x88),  // mov [rdi], al
            ([0x66, 0x89, 0x07], 2, 0x7788),  // mov [rdi], ax
            ([0x89, 0x07], 4, 0x5566_7788),  // mov [rdi], eax
            ([0x48, 0x89, 0x07], 8, 0x1122_3344_5566_7788),  // mov [rdi], rax
        ]
        for (code, size, value) in forms {
            let guest = try Guest(code + [0x48, 0xff, 0xc3, 0xf4])  // inc rbx; hlt
            try guest.change { ($0.rax, $0.rdi) = (0x1122_3344_5566_7788, Self.hole) }
            #expect(guest.vcpu.exit() == "mmio write 0x40000000 \(size)")
            #expect(data(guest.vcpu) == value)
            #expect(guest.vcpu.exit() == "halt")
            #expect(try guest.vcpu.registers().rbx == 1)
        }
    }

    /// 8 bytes, `first` of them on the first page. The fragments have all sizes from 1 to 7.
    @Test(arguments: 1..<8)
    func pageCrossingAccessExitsTwice(first: Int) throws {
        let value: UInt64 = 0x8877_6655_4433_2211
        let low = value & (1 << (UInt64(first) * 8) - 1)
        let high = value >> (UInt64(first) * 8)
        let start = Self.hole + pageSize - UInt64(first)
        let read = try Guest([0x48, 0x8b, 0x06, 0xf4])  // mov rax, [rsi]; hlt
        try read.change { $0.rsi = start }
        #expect(read.vcpu.exit() == "mmio read \(hex(start)) \(first)")
        answer(read.vcpu, value)
        #expect(read.vcpu.exit() == "mmio read \(hex(Self.hole + pageSize)) \(8 - first)")
        answer(read.vcpu, high)
        #expect(read.vcpu.exit() == "halt")
        #expect(try read.vcpu.registers().rax == value)

        let write = try Guest([0x48, 0x89, 0x07, 0xf4])  // mov [rdi], rax; hlt
        try write.change { ($0.rax, $0.rdi) = (value, start) }
        #expect(write.vcpu.exit() == "mmio write \(hex(start)) \(first)")
        #expect(data(write.vcpu) == low)
        #expect(write.vcpu.exit() == "mmio write \(hex(Self.hole + pageSize)) \(8 - first)")
        #expect(data(write.vcpu) == high)
        #expect(write.vcpu.exit() == "halt")
    }

    /// Half of the access is RAM. Only the other half exits, and the addition is done once.
    @Test(arguments: [true, false])
    func accessThatIsHalfMemoryExitsForTheOtherHalf(memoryFirst: Bool) throws {
        let guest = try Guest([
            0x48, 0x01, 0x07,  // add [rdi], rax
            0xf4,  // hlt
        ])
        // A page of RAM before the hole, or after it.
        let file = try guest.model.vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
        let mapping = try file.map(offset: 0, length: pageSize)
        let ram = memoryFirst ? Self.hole : Self.hole + pageSize
        try guest.model.vm.setUserMemoryRegion2(slot(file, id: 1, gpa: ram))
        let inRAM = memoryFirst ? pageSize - 4 : 0
        try mapping.put([1, 0, 0, 0x80], at: inRAM)
        try guest.change { ($0.rax, $0.rdi) = (0x0000_0010_8000_0005, Self.hole + pageSize - 4) }
        let fragment = memoryFirst ? Self.hole + pageSize : Self.hole + pageSize - 4
        #expect(guest.vcpu.exit() == "mmio read \(hex(fragment)) 4")
        answer(guest.vcpu, 3)
        #expect(guest.vcpu.exit() == "mmio write \(hex(fragment)) 4")
        // With memory first 0x00000003_80000001 + rax, otherwise 0x80000001_00000003 + rax.
        #expect(data(guest.vcpu) == (memoryFirst ? 0x14 : 0x8000_0008))
        #expect(guest.vcpu.exit() == "halt")
        #expect(try mapping.bytes(at: inRAM, 4) == (memoryFirst ? [6, 0, 0, 0] : [0x11, 0, 0, 0x80]))
    }

    @Test func readModifyWriteExitsForReadAndWrite() throws {
        for code: [UInt8] in [
            [0x83, 0x07, 0x05],  // add dword [rdi], 5
            [0xf0, 0x0f, 0xc1, 0x07],  // lock xadd [rdi], eax, with eax = 5
        ] {
            let guest = try Guest(code + [0xf4])
            try guest.change { ($0.rax, $0.rdi) = (5, Self.hole) }
            #expect(guest.vcpu.exit() == "mmio read 0x40000000 4")
            answer(guest.vcpu, 10)
            #expect(guest.vcpu.exit() == "mmio write 0x40000000 4")
            #expect(data(guest.vcpu) == 15)
            #expect(guest.vcpu.exit() == "halt")
        }
    }

    @Test func sixteenByteAccessExitsTwice() throws {
        let guest = try Guest([
            0xf3, 0x0f, 0x6f, 0x06,  // movdqu xmm0, [rsi]
            0xf3, 0x0f, 0x7f, 0x07,  // movdqu [rdi], xmm0
            0xf4,  // hlt
        ])
        try guest.change { ($0.rsi, $0.rdi) = (Self.hole + 0x10, 0x20000) }
        #expect(guest.vcpu.exit() == "mmio read 0x40000010 8")
        answer(guest.vcpu, 1)
        #expect(guest.vcpu.exit() == "mmio read 0x40000018 8")
        answer(guest.vcpu, 2)
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.ram.word(at: 0x20000) == 1)
        #expect(try guest.ram.word(at: 0x20008) == 2)
        try guest.change { ($0.rip, $0.rsi, $0.rdi) = (Guest.code, 0x20000, Self.hole + 0x20) }
        #expect(guest.vcpu.exit() == "mmio write 0x40000020 8")
        #expect(data(guest.vcpu) == 1)
        #expect(guest.vcpu.exit() == "mmio write 0x40000028 8")
        #expect(data(guest.vcpu) == 2)
        #expect(guest.vcpu.exit() == "halt")
    }

    @Test func stringInstructionsExitForEachElement() throws {
        let guest = try Guest([
            0xf3, 0xa4,  // rep movsb
            0xf4,  // hlt
        ])
        try guest.change { ($0.rsi, $0.rdi, $0.rcx) = (Self.hole, 0x20000, 3) }
        for element in 0..<UInt64(3) {
            #expect(guest.vcpu.exit() == "mmio read \(hex(Self.hole + element)) 1")
            answer(guest.vcpu, 0x61 + element)
        }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.ram.bytes(at: 0x20000, 4) == [0x61, 0x62, 0x63, 0])
        try guest.change {
            ($0.rip, $0.rsi, $0.rdi, $0.rcx) = (Guest.code, 0x20000, Self.hole + 0x100, 2)
        }
        for element in 0..<UInt64(2) {
            #expect(guest.vcpu.exit() == "mmio write \(hex(Self.hole + 0x100 + element)) 1")
            #expect(data(guest.vcpu) == 0x61 + element)
        }
        #expect(guest.vcpu.exit() == "halt")
        // From MMIO to MMIO.
        try guest.change {
            ($0.rip, $0.rsi, $0.rdi, $0.rcx) = (Guest.code, Self.hole, Self.hole + 0x2000, 1)
        }
        #expect(guest.vcpu.exit() == "mmio read 0x40000000 1")
        answer(guest.vcpu, 0x7e)
        #expect(guest.vcpu.exit() == "mmio write 0x40002000 1")
        #expect(data(guest.vcpu) == 0x7e)
        #expect(guest.vcpu.exit() == "halt")
    }

    @Test func conversionDuringMMIODoesNotRepeatTheExit() throws {
        let guest = try Guest([0xa4, 0xf4], sharedBit: 39, isPrivate: true)  // movsb; hlt
        #expect(guest.model.file.convert(0x20, 1, to: .shared).errno == nil)
        try guest.change { ($0.rsi, $0.rdi) = (Self.hole, 0x20000) }
        #expect(guest.vcpu.exit() == "mmio read 0x40000000 1")
        answer(guest.vcpu, 0x42)
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 8 errno 14")
        #expect(guest.model.file.convert(0x20, 1, to: .private).errno == nil)
        #expect(guest.vcpu.exit() == "halt")
        #expect(guest.model.file.convert(0x20, 1, to: .shared).errno == nil)
        #expect(try guest.ram.bytes(at: 0x20000, 1) == [0x42])
    }

    @Test func kickAfterMMIOCompletesTheAccess() throws {
        let guest = try Guest([
            0x8a, 0x06,  // mov al, [rsi]
            0x48, 0xff, 0xc3,  // inc rbx
            0xf4,  // hlt
        ])
        try guest.change { $0.rsi = Self.hole }
        #expect(guest.vcpu.exit() == "mmio read 0x40000000 1")
        answer(guest.vcpu, 9)
        guest.vcpu.kick()
        #expect(guest.vcpu.exit() == "interrupted")
        let registers = try guest.vcpu.registers()
        #expect((registers.rax, registers.rbx, registers.rip) == (9, 0, Guest.code + 2))
    }

    @Test func stackOutsideOfMemoryIsMMIO() throws {
        let guest = try Guest([0x50, 0x5b, 0xf4])  // push rax; pop rbx; hlt
        try guest.change { ($0.rax, $0.rsp) = (0x1234, Self.hole + 0x100) }
        #expect(guest.vcpu.exit() == "mmio write 0x400000f8 8")
        #expect(data(guest.vcpu) == 0x1234)
        #expect(guest.vcpu.exit() == "mmio read 0x400000f8 8")
        answer(guest.vcpu, 0x5678)
        #expect(guest.vcpu.exit() == "halt")
        let registers = try guest.vcpu.registers()
        #expect((registers.rbx, registers.rsp) == (0x5678, Self.hole + 0x100))
    }

    @Test func mmioAddressHasNoSharedBit() throws {
        let guest = try Guest([0x8a, 0x06, 0xf4], sharedBit: 39, isPrivate: true)  // mov al, [rsi]; hlt
        try guest.change { $0.rsi = Guest.sharedBit | Self.hole }
        #expect(guest.vcpu.exit() == "mmio read 0x40000000 1")
    }

    /// A write to a read-only memslot exits; a read-modify-write reads the memory first.
    @Test func writesToAReadOnlySlotAreMMIO() throws {
        // mov al, [rsi]; add byte [rsi], 2; mov bl, [rsi]; hlt
        let guest = try Guest([0x8a, 0x06, 0x80, 0x06, 0x02, 0x8a, 0x1e, 0xf4])
        let other = try guest.model.vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
        let mapping = try other.map(offset: 0, length: pageSize)
        try mapping.put([0x41], at: 0)
        var region = slot(other, id: 1, gpa: Self.hole, flags: CKVM_MEM_READONLY)
        region.userspace_addr = mapping.address
        try guest.model.vm.setUserMemoryRegion2(region)
        try guest.change { $0.rsi = Self.hole }
        #expect(guest.vcpu.exit() == "mmio write 0x40000000 1")
        #expect(data(guest.vcpu) & 0xff == 0x43)
        #expect(guest.vcpu.exit() == "halt")
        let registers = try guest.vcpu.registers()
        #expect(registers.rax & 0xff == 0x41 && registers.rbx & 0xff == 0x41)
        #expect(try mapping.bytes(at: 0, 1) == [0x41])
    }
}
