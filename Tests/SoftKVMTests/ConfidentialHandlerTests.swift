// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

// Hazards that need instructions: handlers of #VC and #VE, and a second vCPU that writes to the GHCB.
extension ConfidentialInstructionTests {
    private static let table: UInt64 = 0x30000
    private static let handler: UInt64 = 0x31000
    /// The kernel's own addresses end here; user space has all others. Both accesses are to devices, through the shared alias.
    private static let end = Guest.sharedBit | (hole + pageSize)
    private static let ofKernel = Guest.sharedBit | hole
    private static let ofUser = Guest.sharedBit | (hole + pageSize)

    /// The condition that a handler checks before it asks the host to emulate an access.
    struct Care: OptionSet, CustomTestStringConvertible {
        let rawValue: Int
        /// SNP: the error code.
        static let code = Care(rawValue: 1)
        /// The linear address.
        static let address = Care(rawValue: 2)
        var testDescription: String { "\(rawValue)" }
    }

    private static func jump(_ condition: UInt8, over code: [UInt8]) -> [UInt8] {
        [0x0f, condition] + (0..<4).map { UInt8(truncatingIfNeeded: code.count >> ($0 * 8)) } + code
    }

    /// RAX to a field of the GHCB, through the shared alias.
    private static func store(_ field: UInt64) -> [UInt8] {
        [0x48, 0xa3]
            + (0..<8).map { UInt8(truncatingIfNeeded: (Guest.sharedBit | (ghcb + field)) >> ($0 * 8)) }
    }

    private static func store(_ field: UInt64, _ value: UInt64) -> [UInt8] {
        load(Operands((.rax, value))) + store(field)
    }

    private static let (ifEqual, ifNotBelow): (UInt8, UInt8) = (0x84, 0x83)

    /// A handler of #VC or #VE that asks for the emulation of a read of eight bytes, or to be terminated.
    private static func handler(_ type: VMType, _ care: Care) -> [UInt8] {
        if type == .tdx {
            // R8 is the linear address, R9 the guest-physical one.
            let information = load(Operands((.rax, 3))) + tdcall
            let emulate =
                [0x4d, 0x89, 0xce]
                + load(
                    Operands((.rax, 0), (.rcx, 0xffcc), (.r10, 0), (.r11, 48), (.r12, 8), (.r13, 0))) + tdcall
            let refuse = load(Operands((.rax, 0), (.r10, 0), (.r11, 0x10003))) + tdcall
            let check = load(Operands((.rbx, end))) + [0x49, 0x39, 0xd8] + jump(ifNotBelow, over: emulate)
            return information + (care.contains(.address) ? check : emulate) + refuse
        }
        // The guest-physical address is the linear one without the bit that selects the alias.
        let emulate =
            load(Operands((.rbx, ~Guest.sharedBit))) + [0x48, 0x21, 0xd8] + store(0x398)
            + store(0x390, 0x8000_0001) + store(0x3a0, 8) + vmgexit
        let refuse = wrmsr(0x100) + vmgexit
        let address = load(Operands((.rbx, end))) + [0x48, 0x39, 0xd8]
        var code = care.contains(.address) ? address + jump(ifNotBelow, over: emulate) : emulate
        code = [0x0f, 0x20, 0xd0] + code
        if care.contains(.code) {
            code = [0x48, 0x8b, 0x0c, 0x24, 0x48, 0x81, 0xf9, 0x04, 0x04, 0, 0] + jump(ifEqual, over: code)
        }
        return code + refuse
    }

    /// A guest that reads eight bytes at an address, and has a handler of #VC and #VE.
    private func reader(_ type: VMType, at address: UInt64, _ care: Care) throws -> Guest {
        let register =
            type == .snp ? Self.wrmsr(Self.ghcb | 0x012) + Self.vmgexit + Self.wrmsr(Self.ghcb) : []
        let code = register + Self.load(Operands((.rax, address))) + [0x48, 0x8b, 0x08, 0xf4]
        var special = Guest.longMode
        special.idt.base = Self.table
        special.idt.limit = 0xfff
        let selector = UInt64(special.cs.selector)
        let gate = Self.handler & 0xffff | selector << 16 | 0x8e00 << 32 | (Self.handler >> 16) << 48
        return try guest(type, code) { guest in
            try guest.vcpu.setSpecialRegisters(special)
            for vector in [20, 29] as [UInt64] { try guest.ram.put(word: gate, at: Self.table + vector * 16) }
            try guest.ram.put(Self.handler(type, care), at: Self.handler)
            for word in 0..<2 as Range<UInt64> {
                try guest.ram.put(word: .max, at: Self.ghcb + 0x3f0 + word * 8)
            }
            try guest.ram.put(word: Self.ghcb + 0x800, at: Self.ghcb + 0x3a8)
        }
    }

    /// User space passes the address of a device to the kernel, which reads there. A handler that emulates every access of the
    /// kernel reads the device for user space (hazard V19).
    @Test(
        arguments: [VMType.snp, .tdx],
        [
            (Care(), ofUser, true), (.address, ofUser, false), (.address, ofKernel, true),
            (Care(), ofKernel, true),
        ])
    func mmioAtAnAddressOfUserSpace(_ type: VMType, _ access: (Care, UInt64, Bool)) throws {
        let (care, address, isEmulated) = access
        let guest = try reader(type, at: address, care)
        switch guest.vcpu.runToExit() {
        case .mmio(let mmio):
            #expect(isEmulated && mmio.phys_addr == address & ~Guest.sharedBit && mmio.len == 8)
        case .systemEvent: #expect(!isEmulated)
        case let exit: Issue.record("\(exit)")
        }
    }

    /// A handler of #VC that does not test for error code 0x404 asks the host to emulate an access to the guest's own RAM, and so
    /// would read what the host chooses (hazard V37).
    @Test(arguments: [
        (Care(), ConfidentialInstructionTests.fresh, true), (.code, fresh, false), (.code, ofKernel, true),
    ])
    func emulationBeforeTheCodeIsTested(_ care: Care, _ address: UInt64, isEmulated: Bool) throws {
        let guest = try reader(.snp, at: address, care)
        switch guest.vcpu.runToExit() {
        case .mmio(let mmio): #expect(isEmulated && mmio.phys_addr == address & ~Guest.sharedBit)
        case .systemEvent: #expect(!isEmulated)
        case let exit: Issue.record("\(exit)")
        }
    }

    // MARK: a GHCB that changes

    /// A change of the GHCB by another vCPU between two exits of one request.
    struct Change: CustomTestStringConvertible {
        let testDescription: String
        /// Offset in the GHCB, and the new word.
        let field: UInt64
        let word: UInt64
        /// Exits of the request, and SW_EXITINFO2 of its answer.
        let exits: Int
        let info2: UInt64
    }

    /// The host has checked the header and the place of the list, and reads neither again. It checks each entry when it reads it
    /// (hazard V11).
    @Test(arguments: [
        Change(testDescription: "none", field: 0x818, word: 0, exits: 2, info2: 0),
        Change(testDescription: "a longer list", field: 0x800, word: 252 << 16, exits: 2, info2: 0),
        Change(testDescription: "another list", field: 0x3a8, word: 0, exits: 2, info2: 0),
        Change(testDescription: "a bad entry", field: 0x810, word: 5 << 52, exits: 1, info2: 1 << 32 | 2),
    ])
    func anotherVCPUCanChangeTheGHCB(_ change: Change) throws {
        let first =
            Self.wrmsr(Self.ghcb | 0x012) + Self.vmgexit + Self.wrmsr(Self.ghcb) + Self.vmgexit + [0xf4]
        let second = Self.store(change.field, change.word) + [0xf4]
        // test rdi, rdi; jne: the second vCPU.
        let guest = try guest(.snp, [0x48, 0x85, 0xff] + Self.jump(0x85, over: first) + second, vcpus: 2) {
            for word in 0..<2 as Range<UInt64> {
                try $0.ram.put(word: .max, at: Self.ghcb + 0x3f0 + word * 8)
            }
        }
        let fields: [(UInt64, UInt64)] = [
            (0x390, Self.stateChange), Self.scratch, (0x398, 0), (0x3a0, 0), (0x800, 1 << 16),
            (0x808, 2 << 52 | 0x200000), (0x810, 1 << 52 | 0x208000),
        ]
        for (offset, value) in fields { try guest.ram.put(word: value, at: Self.ghcb + offset) }
        var exits = 0
        while case .hypercall(let call) = guest.vcpu.runToExit() {
            exits += 1
            if exits == 1 { guard case .shutdown = guest.vcpus[1].runToExit() else { break } }
            var reply = call
            reply.ret = 0
            guest.vcpu.runPage.hypercall = reply
        }
        #expect(exits == change.exits)
        #expect(try guest.ram.word(at: Self.ghcb + 0x3a0) == change.info2)
    }

    /// Data of a device is written where the host has checked that there is room, whatever the guest has made of its field since;
    /// and no more of it than was asked for.
    @Test func theScratchAreaOfMMIOIsReadOnce() throws {
        let first =
            Self.wrmsr(Self.ghcb | 0x012) + Self.vmgexit + Self.wrmsr(Self.ghcb) + Self.vmgexit + [0xf4]
        let second = Self.store(0x3a8, Self.ghcb + 0x900) + [0xf4]
        let guest = try guest(.snp, [0x48, 0x85, 0xff] + Self.jump(0x85, over: first) + second, vcpus: 2)
        let fields: [(UInt64, UInt64)] = [
            (0x390, 0x8000_0001), (0x398, Self.hole), (0x3a0, 4), (0x3a8, Self.ghcb + 0xfe8), (0x3f0, .max),
            (0x3f8, .max), (0xfe8, .max),
        ]
        for (offset, value) in fields { try guest.ram.put(word: value, at: Self.ghcb + offset) }
        guard case .mmio = guest.vcpu.runToExit(), case .shutdown = guest.vcpus[1].runToExit() else {
            Issue.record("no MMIO")
            return
        }
        var mmio = guest.vcpu.runPage.mmio
        mmio.data = (1, 2, 3, 4, 5, 6, 7, 8)
        guest.vcpu.runPage.mmio = mmio
        _ = guest.vcpu.runToExit()
        #expect(try guest.ram.word(at: Self.ghcb + 0xfe8) == 0xffff_ffff_0403_0201)
        #expect(try guest.ram.word(at: Self.ghcb + 0x900) == 0)
    }

    // MARK: answers of the monitor

    /// KVM enters the guest only after 0, `EAGAIN` and `EINVAL`, which are positive (hazard V30).
    @Test(arguments: [VMType.snp, .tdx], [1, -11, -22, 12, .min, 1 << 32 | 11] as [Int64])
    func aWrongAnswerFailsTheRun(_ type: VMType, _ ret: Int64) throws {
        let msr = Self.wrmsr(2 << 52 | 0x100014) + Self.vmgexit
        let guest = try guest(
            type,
            type == .snp ? msr + [0xf4] : Self.load(Self.mapGPA(0x100000, 0x1000)) + Self.tdcall + [0xf4])
        guard case .hypercall(var call) = guest.vcpu.runToExit() else {
            Issue.record("no request")
            return
        }
        call.ret = UInt64(bitPattern: ret)
        guest.vcpu.runPage.hypercall = call
        guard case .failed(.invalidArgument) = guest.vcpu.runToExit() else {
            Issue.record("it runs")
            return
        }
    }
}
