// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

extension HostMapping {
    /// Writes an interrupt gate of 64-bit mode, to code of selector 8.
    func putGate(
        _ vector: UInt64, of table: UInt64, to handler: UInt64, stack: UInt64 = 0, privilege: UInt64 = 0
    ) throws {
        let type: UInt64 = 0x8e | privilege << 5
        try put(
            word: handler & 0xffff | 8 << 16 | stack << 32 | type << 40 | (handler >> 16 & 0xffff) << 48,
            at: table + vector * 16)
        try put(word: handler >> 32, at: table + vector * 16 + 8)
    }
}

/// Exceptions in ring 3, whose handlers are in ring 0. The expected values are those of the Intel SDM, volume 3, chapter 7.
@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct RingTests {
    private static let (table, handlers, taskState): (UInt64, UInt64, UInt64) = (0x20000, 0x21000, 0x22000)
    private static let descriptors: UInt64 = 0x23000
    /// The stacks of ring 0, of IST1 and of ring 3.
    private static let (stack, other, userStack): (UInt64, UInt64, UInt64) = (0x30008, 0x32000, 0x34000)
    /// Where ring 3 sees the RAM. At its own addresses it is for ring 0 only.
    private static let user: UInt64 = 1 << 30
    private static let (userCode, userData): (UInt64, UInt64) = (0x1b, 0x23)

    /// - Parameters:
    ///   - code: in ring 3, with IOPL 0.
    ///   - handler: of vector 6; at most eight bytes. The others are one OUT to the port of their number.
    ///   - changed: the vectors whose gates have another stack or privilege.
    private func guest(
        _ code: [UInt8], handler: [UInt8] = [0xe6, 6],
        changed: [UInt64: (stack: UInt64, privilege: UInt64)] = [:],
        _ change: (inout ckvm_sregs) -> Void = { _ in }
    ) throws -> Guest {
        let guest = try Guest(code)
        try guest.ram.put(word: Guest.tables + 0x1000 | 7, at: Guest.tables)
        try guest.ram.put(word: 0x87, at: Guest.tables + 0x1000 + 8)
        for vector in 0..<64 as Range<UInt64> {
            let place = Self.handlers + vector * 8
            try guest.ram.put(vector == 6 ? handler : [0xe6, UInt8(vector)], at: place)
            let (stack, privilege) = changed[vector] ?? (0, 0)
            try guest.ram.putGate(vector, of: Self.table, to: place, stack: stack, privilege: privilege)
        }
        let descriptors: [UInt64] = [
            0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_fb00_0000_ffff, 0x00cf_f300_0000_ffff,
        ]
        for (index, word) in descriptors.enumerated() {
            try guest.ram.put(word: word, at: Self.descriptors + UInt64(index) * 8)
        }
        try guest.ram.put(word: Self.stack, at: Self.taskState + 4)
        try guest.ram.put(word: Self.other, at: Self.taskState + 36)
        try guest.ram.put(word: 0x68 << 48, at: Self.taskState + 0x60)
        var special = Guest.longMode
        (special.cs.selector, special.ss.selector) = (UInt16(Self.userCode), UInt16(Self.userData))
        (special.cs.dpl, special.ss.dpl, special.cs.s, special.ss.s) = (3, 3, 1, 1)
        special.ss.type = 3
        (special.idt.base, special.idt.limit) = (Self.table, 64 * 16 - 1)
        (special.gdt.base, special.gdt.limit) = (Self.descriptors, 0x27)
        (special.tr.base, special.tr.limit) = (Self.taskState, 0x67)
        change(&special)
        try guest.vcpu.setSpecialRegisters(special)
        try guest.change {
            $0.rip = Self.user + Guest.code
            $0.rsp = Self.user + Self.userStack
        }
        return guest
    }

    /// Checks that a handler of ring 0 is at its first instruction, with a frame of ring 3.
    private func expectFrame(
        _ guest: Guest, offset: UInt64, code: UInt32?, top: UInt64 = Self.stack, isFault: Bool = true,
        selector: UInt16 = 8
    ) throws {
        let registers = try guest.vcpu.registers()
        let count = code == nil ? 5 : 6
        #expect(registers.rsp == (top & ~0xf) - UInt64(count) * 8)
        var words = try (0..<count).map { try guest.ram.word(at: registers.rsp + UInt64($0) * 8) }
        if let code { #expect(words.removeFirst() == UInt64(code)) }
        #expect(words[0] == Self.user + Guest.code + offset && words[1] == Self.userCode)
        #expect(words[3] == Self.user + Self.userStack && words[4] == Self.userData)
        // RF, which is for faults, tells a debugger's breakpoint to wait.
        #expect(words[2] & 1 << 16 == (isFault ? 1 << 16 : 0))
        let special = try guest.vcpu.specialRegisters()
        #expect(special.cs.selector == selector && special.cs.dpl == 0 && special.cs.l == 1)
        #expect(special.ss.selector == 0 && special.ss.dpl == 0)
    }

    private static let load = [0x48, 0xa1, 0, 0, 1, 0, 0, 0, 0, 0] as [UInt8]  // mov rax, [0x10000]
    private static let causes: [(code: [UInt8], offset: UInt64, exception: CPUException)] = [
        (ExceptionTests.divide, 2, CPUException(0)),
        (ExceptionTests.readMSR, 5, CPUException(13)),
        ([0x0f, 0x0b], 0, CPUException(6)),  // ud2
        (ExceptionTests.notMapped, 10, CPUException(14, errorCode: 6, address: 0xffff_8000_1234_5678)),
        (ExceptionTests.notCanonical, 10, CPUException(13)),
        ([0x90, 0xf4], 1, CPUException(13)),  // hlt
        ([0xe6, 0xf4], 0, CPUException(13)),  // out 0xf4, al
        ([0x0f, 0x20, 0xd8], 0, CPUException(13)),  // mov rax, cr3
        (load, 0, CPUException(14, errorCode: 5, address: 0x10000)),
    ]

    @Test(arguments: causes, [false, true])
    func `a handler of ring 0 has its own stack`(
        cause: (code: [UInt8], offset: UInt64, exception: CPUException), hasOtherStack: Bool
    ) throws {
        let vector = UInt64(cause.exception.vector)
        let guest = try guest(cause.code, changed: hasOtherStack ? [vector: (1, 0)] : [:])
        #expect(guest.vcpu.exit() == "io out \(vector) 1")
        try expectFrame(
            guest, offset: cause.offset, code: cause.exception.errorCode,
            top: hasOtherStack ? Self.other : Self.stack)
        if let address = cause.exception.address {
            #expect(try guest.vcpu.specialRegisters().cr2 == address)
        }
    }

    @Test func `a gate refuses INT n from ring 3 if its privilege is that of ring 0`() throws {
        for (code, vector) in [([0xcd, 0x30], 0x30), ([0xcc], 3)] as [([UInt8], UInt64)] {
            let refused = try guest(code)
            #expect(refused.vcpu.exit() == "io out 13 1")
            try expectFrame(refused, offset: 0, code: UInt32(vector) << 3 | 2)
            let allowed = try guest(code, changed: [vector: (0, 3)])
            #expect(allowed.vcpu.exit() == "io out \(vector) 1")
            try expectFrame(allowed, offset: UInt64(code.count), code: nil, isFault: false)
        }
    }

    @Test func `the bitmap of the TSS allows ports to ring 3`() throws {
        // out 0x65, eax: the ports 0x65 to 0x68, whose bits are in two bytes
        let code: [UInt8] = [0xe7, 0x65]
        for (bitmap, bits, exit) in [
            (0x68, 0, "io out 101 4"), (0x68, 0xfe1f, "io out 101 4"), (0x68, 0x0100, "io out 13 1"),
            (0x68, 0x0020, "io out 13 1"), (0x100, 0, "io out 13 1"), (0xffff, 0, "io out 13 1"),
        ] as [(UInt64, UInt64, String)] {
            // 0x68 + 0x65 / 8 + 1 is the last byte of the TSS.
            let guest = try guest(code) { $0.tr.limit = 0x75 }
            try guest.ram.put(word: bitmap << 48, at: Self.taskState + 0x60)
            try guest.ram.put(word: bits, at: Self.taskState + 0x74)
            #expect(guest.vcpu.exit() == exit, "\(bitmap) \(bits)")
        }
        let short = try guest(code) { $0.tr.limit = 0x74 }
        try short.ram.put(word: 0x68 << 48, at: Self.taskState + 0x60)
        #expect(short.vcpu.exit() == "io out 13 1")
    }

    /// add qword [rsp], 2; iretq: goes on after UD2.
    private static let skip: [UInt8] = [0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xcf]

    @Test func `IRETQ returns to ring 3`() throws {
        // 50 times ud2; then hlt.
        let code = Array([[UInt8]](repeating: [0x0f, 0x0b], count: 50).joined()) + [0xf4]
        let guest = try guest(code, handler: Self.skip)
        #expect(guest.vcpu.exit() == "io out 13 1")
        try expectFrame(guest, offset: 100, code: 0)
    }

    @Test func `a page that ring 0 has used is still refused to ring 3`() throws {
        // The handler is in the block of memory that holds 0x10000.
        let guest = try guest([0x0f, 0x0b] + Self.load, handler: Self.skip)
        #expect(guest.vcpu.exit() == "io out 14 1")
        try expectFrame(guest, offset: 2, code: 5)
        #expect(try guest.vcpu.specialRegisters().cr2 == 0x10000)
    }

    @Test func `ring 3 loads a segment register from a GDT that it cannot read`() throws {
        // mov eax, 0x23; mov ds, eax; mov rax, [descriptors]
        let code: [UInt8] = [0xb8, 0x23, 0, 0, 0, 0x8e, 0xd8, 0x48, 0xa1, 0, 0x30, 2, 0, 0, 0, 0, 0]
        let guest = try guest(code)
        #expect(guest.vcpu.exit() == "io out 14 1")
        try expectFrame(guest, offset: 7, code: 5)
        #expect(try guest.vcpu.specialRegisters().ds.selector == 0x23)
        #expect(try guest.vcpu.specialRegisters().cr2 == Self.descriptors)
    }

    /// An exception while another one is delivered is a double fault, or is delivered itself.
    @Test func `a handler without a stack is a double fault`() throws {
        // #UD is benign, so #SS comes next; that one needs the same stack, and so #DF comes, which has another.
        let noStack = try guest([0x0f, 0x0b], changed: [8: (1, 0)])
        try noStack.ram.put(word: 1 << 62, at: Self.taskState + 4)
        #expect(noStack.vcpu.exit() == "io out 8 1")
        try expectFrame(noStack, offset: 0, code: 0, top: Self.other, isFault: false)
        // #SS has a stack.
        let stackFault = try guest([0x0f, 0x0b], changed: [12: (1, 0)])
        try stackFault.ram.put(word: 1 << 62, at: Self.taskState + 4)
        #expect(stackFault.vcpu.exit() == "io out 12 1")
        // A page fault on the stack, after #GP, is delivered as itself.
        let pageFault = try guest([0xf4], changed: [14: (1, 0)])
        try pageFault.ram.put(word: 0xffff_8000_0001_0000, at: Self.taskState + 4)
        #expect(pageFault.vcpu.exit() == "io out 14 1")
        #expect(try pageFault.vcpu.specialRegisters().cr2 == 0xffff_8000_0000_fff8)
    }

    @Test func `a TSS without a stack for ring 0 ends the guest`() throws {
        for limit in [0, 3, 10] as [UInt32] {
            let guest = try guest([0x0f, 0x0b], changed: [8: (1, 0)]) { $0.tr.limit = limit }
            #expect(guest.vcpu.exit() == "shutdown")
            #expect(guest.vcpu.unhandled?.exception == CPUException(6))
        }
    }

    private static let code64: UInt64 = 0x00af_9b00_0000_ffff

    /// A guest whose #UD has a gate to the selector 0x28.
    private func guest(
        withHandlerIn descriptor: UInt64, at handler: UInt64 = Self.handlers + 48
    ) throws -> Guest {
        let guest = try guest([0x0f, 0x0b]) { $0.gdt.limit = 0x2f }
        try guest.ram.put(word: descriptor, at: Self.descriptors + 0x28)
        try guest.ram.put(
            word: handler & 0xffff | 0x28 << 16 | 0x8e << 40 | (handler >> 16) << 48,
            at: Self.table + 6 * 16)
        return guest
    }

    @Test func `the descriptor of the handler is checked`() throws {
        for (descriptor, vector) in [
            (Self.code64, 6), (Self.code64 & ~(1 << 47), 11), (0x00cf_9300_0000_ffff, 13),
            (0x00cf_9b00_0000_ffff, 13), (0x00ef_9b00_0000_ffff, 13), (0, 13),
        ] as [(UInt64, Int)] {
            let guest = try guest(withHandlerIn: descriptor)
            #expect(guest.vcpu.exit() == "io out \(vector) 1", "\(String(descriptor, radix: 16))")
            try expectFrame(
                guest, offset: 0, code: vector == 6 ? nil : 0x29, selector: vector == 6 ? 0x28 : 8)
        }
    }

    @Test func `a handler in conforming code stays in ring 3`() throws {
        let conforming = Self.code64 | 1 << 42
        // OUT is for ring 0.
        let guest = try guest(withHandlerIn: conforming, at: Self.user + Self.handlers + 48)
        #expect(guest.vcpu.exit() == "io out 13 1")
        let frame = try guest.vcpu.registers().rsp
        #expect(try guest.ram.word(at: frame + 8) == Self.user + Self.handlers + 48)
        #expect(try guest.ram.word(at: frame + 16) == 0x2b)
        #expect(try guest.ram.word(at: frame + 32) == Self.user + Self.userStack - 40)
        // Its stack is that of ring 3, which must be able to write it.
        let other = try self.guest(withHandlerIn: conforming, at: Self.user + Self.handlers + 48)
        try other.change { $0.rsp = Self.stack }
        #expect(other.vcpu.exit() == "io out 14 1")
        #expect(try other.vcpu.specialRegisters().cr2 == 0x30000 - 8)
    }

    /// Gates, descriptors and a TSS of arbitrary bits. The run ends, and the CPU process goes on.
    @Test(arguments: 0..<8 as Range<UInt64>)
    func `a hostile guest's tables do not break the monitor`(seed: UInt64) throws {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 &+ 1
        func random() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
        func word(_ usual: UInt64) -> UInt64 {
            switch random() % 4 {
            case 0: random()
            case 1: [0, .max, 1 << 63, 0xffff_7fff_ffff_fff8, 1 << 47, 1 << 39][Int(random() % 6)]
            default: usual ^ (1 << (random() % 64))
            }
        }
        for _ in 0..<60 {
            let cause = Self.causes[Int(random() % 9)]
            let guest = try guest(cause.code) { special in
                if random() % 4 == 0 {
                    special.tr.limit = UInt32(truncatingIfNeeded: random() >> (random() % 64))
                }
                if random() % 4 == 0 { special.gdt.limit = UInt16(truncatingIfNeeded: random()) }
                if random() % 4 == 0 { special.idt.limit = UInt16(truncatingIfNeeded: random()) }
                if random() % 8 == 0 { special.tr.base = word(Self.taskState) }
                if random() % 8 == 0 { special.gdt.base = word(Self.descriptors) }
                if random() % 8 == 0 { special.idt.base = word(Self.table) }
            }
            for (place, count) in [(Self.table, 128), (Self.descriptors, 5), (Self.taskState + 4, 8)]
                as [(UInt64, UInt64)]
            {
                for index in 0..<count where random() % 3 == 0 {
                    let address = place + index * 8
                    try guest.ram.put(word: word(guest.ram.word(at: address)), at: address)
                }
            }
            for _ in 0..<20 {
                guard case .io = guest.vcpu.runToExit() else { break }
            }
            #expect(guest.vcpu.failure == nil)
        }
    }
}
