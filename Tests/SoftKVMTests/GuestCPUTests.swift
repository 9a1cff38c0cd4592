// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Paging, self-modifying code and several vCPUs.
@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct GuestCPUTests {
    /// Page tables at 0x5000 that map linear 0x7f00_0000_0000 and 0xffff_8000_0000_0000 to `data`, and the code to
    /// its own address.
    private func putOtherTables(_ guest: Guest, data: UInt64 = 0x20000) throws {
        let entries: [(table: UInt64, index: UInt64, entry: UInt64)] = [
            (0x5000, 0, 0x2003), (0x5000, 0xfe, 0x6003), (0x5000, 0x100, 0x6003), (0x6000, 0, 0x7003),
            (0x7000, 0, 0x8003), (0x8000, 0, data | 3),
        ]
        for (table, index, entry) in entries { try guest.ram.put(word: entry, at: table + index * 8) }
    }

    @Test(arguments: [0x7f00_0000_0000, 0xffff_8000_0000_0000] as [UInt64])
    func guestPageTablesAreWalked(linear: UInt64) throws {
        let guest = try Guest([
            0x0f, 0x22, 0xd8,  // mov cr3, rax
            0x48, 0x8b, 0x1e,  // mov rbx, [rsi]
            0x48, 0x89, 0x4e, 0x08,  // mov [rsi + 8], rcx
            0x0f, 0x20, 0xda,  // mov rdx, cr3
            0xf4,  // hlt
        ])
        try putOtherTables(guest)
        try guest.ram.put(word: 0xabcd, at: 0x20000)
        try guest.change { ($0.rax, $0.rsi, $0.rcx) = (0x5000, linear, 0x77) }
        #expect(guest.vcpu.exit() == "halt")
        let registers = try guest.vcpu.registers()
        #expect((registers.rbx, registers.rdx) == (0xabcd, 0x5000))
        #expect(try guest.ram.word(at: 0x20008) == 0x77)
        #expect(try guest.vcpu.specialRegisters().cr3 == 0x5000)
    }

    @Test func codeRunsInTheUpperHalfOfTheAddressSpace() throws {
        let guest = try Guest([0x0f, 0x22, 0xd8, 0xff, 0xe6])  // mov cr3, rax; jmp rsi
        try putOtherTables(guest)
        try guest.ram.put([0x48, 0xff, 0xc3, 0xf4], at: 0x20000)  // inc rbx; hlt
        try guest.change { ($0.rax, $0.rsi) = (0x5000, 0xffff_8000_0000_0000) }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 1)
        #expect(try guest.vcpu.registers().rip == 0xffff_8000_0000_0004)
    }

    @Test func changesOfPageTablesTakeEffectAfterInvalidation() throws {
        let guest = try Guest([
            0x48, 0x8b, 0x1e,  // mov rbx, [rsi]
            0x48, 0x89, 0x08,  // mov [rax], rcx: changes the entry, through the identity map
            0x0f, 0x01, 0x3e,  // invlpg [rsi]
            0x48, 0x8b, 0x16,  // mov rdx, [rsi]
            0xf4,  // hlt
        ])
        try putOtherTables(guest)
        try guest.ram.put(word: 1, at: 0x20000)
        try guest.ram.put(word: 2, at: 0x21000)
        var special = Guest.longMode
        special.cr3 = 0x5000
        try guest.vcpu.setSpecialRegisters(special)
        try guest.change { ($0.rsi, $0.rax, $0.rcx) = (0x7f00_0000_0000, 0x8000, 0x21003) }
        #expect(guest.vcpu.exit() == "halt")
        let registers = try guest.vcpu.registers()
        #expect((registers.rbx, registers.rdx) == (1, 2))
    }

    @Test func forbiddenAccessesShutDown() throws {
        let store: [UInt8] = [0x48, 0x89, 0x06, 0xf4]  // mov [rsi], rax; hlt
        let load: [UInt8] = [0x48, 0x8b, 0x06, 0xf4]  // mov rax, [rsi]; hlt
        let jump: [UInt8] = [0xff, 0xe6]  // jmp rsi
        func exit(_ code: [UInt8], data: UInt64, writeProtect: Bool = true) throws -> String {
            let guest = try Guest(code)
            try putOtherTables(guest, data: data)
            try guest.ram.put(word: data, at: 0x8000)
            try guest.ram.put([0xf4], at: 0x20000)
            var special = Guest.longMode
            special.cr3 = 0x5000
            special.efer |= 1 << 11
            if writeProtect { special.cr0 |= 1 << 16 }
            try guest.vcpu.setSpecialRegisters(special)
            try guest.change { $0.rsi = 0x7f00_0000_0000 }
            let exit = guest.vcpu.exit()
            if exit == "shutdown" { #expect(try guest.vcpu.specialRegisters().cr2 == 0x7f00_0000_0000) }
            return exit
        }
        #expect(try exit(store, data: 0x20003) == "halt")
        #expect(try exit(store, data: 0x20001) == "shutdown")
        #expect(try exit(store, data: 0x20001, writeProtect: false) == "halt")
        #expect(try exit(load, data: 0x20001) == "halt")
        #expect(try exit(load, data: 0x20002) == "shutdown")
        #expect(try exit(load, data: 1 << 41 | 0x20003) == "shutdown")
        #expect(try exit(load, data: 1 << 63 | 0x20003) == "halt")
        #expect(try exit(jump, data: 1 << 63 | 0x20003) == "shutdown")
        #expect(try exit(jump, data: 0x20003) == "halt")
    }

    @Test func codeChangedByTheHostIsExecuted() throws {
        let guest = try Guest([
            0x48, 0xff, 0xc3,  // inc rbx
            0xe6, 0x10,  // out 0x10, al
            0xeb, 0xf9,  // jmp back to the first
        ])
        for expected: UInt64 in [1, 2] {
            #expect(guest.vcpu.exit() == "io out 16 1")
            #expect(try guest.vcpu.registers().rbx == expected)
        }
        try guest.ram.put([0xcb], at: Guest.code + 2)  // dec rbx
        #expect(guest.vcpu.exit() == "io out 16 1")
        #expect(try guest.vcpu.registers().rbx == 1)
        // A hole contains zeros, which are add [rax], al.
        try guest.model.file.allocate(punchHole: true, offset: Guest.code, length: pageSize)
        try guest.ram.put([0xf4], at: Guest.code + 16)
        try guest.change { ($0.rip, $0.rax) = (Guest.code, 0x20000) }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rip == Guest.code + 17)
    }

    @Test func codeChangedByAnotherVCPUIsExecuted() throws {
        let guest = try Guest(
            [
                0x48, 0xff, 0xc3,  // inc rbx
                0xe6, 0x10,  // out 0x10, al
                0xeb, 0xf9,  // jmp back to the first
                0xc6, 0x06, 0xcb,  // mov byte [rsi], 0xcb
                0xf4,  // hlt
            ], vcpus: 2)
        let (one, two) = (guest.vcpus[0], guest.vcpus[1])
        #expect(one.exit() == "io out 16 1")
        #expect(one.exit() == "io out 16 1")
        var registers = try two.registers()
        registers.rip = Guest.code + 7
        registers.rsi = Guest.code + 2
        try two.setRegisters(registers)
        #expect(two.exit() == "halt")
        #expect(one.exit() == "io out 16 1")
        #expect(try one.registers().rbx == 1)
    }

    @Test func codeChangedThroughAnotherLinearAddressIsExecuted() throws {
        let guest = try Guest(
            [
                0xe8, 0x0b, 0x00, 0x00, 0x00,  // call f
                0xc6, 0x06, 0xcb,  // mov byte [rsi], 0xcb
                0xe8, 0x03, 0x00, 0x00, 0x00,  // call f
                0xf4, 0x90, 0x90,  // hlt
                0x48, 0xff, 0xc3,  // f: inc rbx
                0xc3,  // ret
            ])
        try putOtherTables(guest, data: Guest.code)
        var special = Guest.longMode
        special.cr3 = 0x5000
        try guest.vcpu.setSpecialRegisters(special)
        try guest.change { ($0.rsi, $0.rbx) = (0x7f00_0000_0012, 10) }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 10)
    }

    @Test func msrsAndControlRegistersReadBack() throws {
        let guest = try Guest([
            0xb9, 0x00, 0x01, 0x00, 0xc0,  // mov ecx, 0xc0000100: FS base
            0x0f, 0x30,  // wrmsr
            0x64, 0x48, 0x8b, 0x1c, 0x25, 0x08, 0x00, 0x00, 0x00,  // mov rbx, fs:[8]
            0x0f, 0x32,  // rdmsr
            0x0f, 0x20, 0xc6,  // mov rsi, cr0
            0x44, 0x0f, 0x22, 0xc0,  // mov cr8, rax
            0xf4,  // hlt
        ])
        try guest.ram.put(word: 0x99, at: 0x20008)
        try guest.change { ($0.rax, $0.rdx) = (0x20000, 0) }
        #expect(guest.vcpu.exit() == "halt")
        let registers = try guest.vcpu.registers()
        #expect((registers.rbx, registers.rax, registers.rsi) == (0x99, 0x20000, 0x8000_0033))
        let special = try guest.vcpu.specialRegisters()
        #expect((special.fs.base, special.cr8, special.cr4, special.efer) == (0x20000, 0x20000, 0x620, 0x500))
    }

    @Test func interleavingOfTwoVCPUsIsDeterministic() throws {
        // Both vCPUs add to one counter and write the values that they saw to a port.
        let code: [UInt8] = [
            0xf0, 0x48, 0x0f, 0xc1, 0x06,  // lock xadd [rsi], rax
            0x48, 0x8d, 0x44, 0x38, 0x01,  // lea rax, [rax + rdi + 1]
            0xa8, 0x1f,  // test al, 31
            0x75, 0xf2,  // jnz back to the first
            0xe7, 0x10,  // out 0x10, eax
            0xeb, 0xee,  // jmp back to the first
        ]
        func trace(seed: UInt64) throws -> [String] {
            let guest = try Guest(code, vcpus: 2, .init(seed: seed, timeSlice: 97))
            for vcpu in guest.vcpus {
                var registers = try vcpu.registers()
                registers.rsi = 0x20000
                registers.rax = 1
                try vcpu.setRegisters(registers)
            }
            var trace: [String] = []
            for turn in 0..<200 {
                let vcpu = guest.vcpus[turn % 2]
                let exit = vcpu.exit()
                trace.append(
                    "\(guest.model.kvm.now()) \(vcpu.id) \(exit) \(exit.hasPrefix("io") ? vcpu.ioBytes : [])")
            }
            trace.append("\(try guest.ram.word(at: 0x20000))")
            return trace
        }
        let first = try trace(seed: 7)
        #expect(first == (try trace(seed: 7)))
        #expect(first.contains { $0.contains("io out") } && first.contains { $0.contains("interrupted") })
    }

    @Test func moreScatteredPagesThanTheEngineMapsAtOnce() throws {
        let guest = try Guest([
            0x48, 0x89, 0x3f,  // mov [rdi], rdi
            0x48, 0x01, 0xc7,  // add rdi, rax
            0x48, 0xff, 0xc9,  // dec rcx
            0x75, 0xf5,  // jnz back to the first
            0xf4,  // hlt
        ])
        let big = try guest.model.vm.createGuestMemfd(size: 1 << 36, flags: [.mmap, .initShared])
        try guest.model.vm.setUserMemoryRegion2(slot(big, id: 1, gpa: 1 << 32))
        let mapping = try big.map(offset: 0, length: 1 << 36)
        try guest.change { ($0.rdi, $0.rax, $0.rcx) = (1 << 32, 1 << 27, 300) }
        #expect(guest.vcpu.exit() == "halt")
        for index in [0, 1, 150, 299] as [UInt64] {
            #expect(try mapping.word(at: index << 27) == 1 << 32 + index << 27)
        }
        #expect(guest.model.vm.pages4K == 303)
    }
}
