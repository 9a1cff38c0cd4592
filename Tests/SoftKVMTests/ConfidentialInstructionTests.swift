// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// The instructions of SNP and TDX guests on the software CPU, with operands that a hostile guest chooses.
@Suite(.enabled(if: hasEngine))
struct ConfidentialInstructionTests {
    /// Shared from the beginning: what the guest reports, and the GHCB.
    static let report: UInt64 = 0x300000
    static let ghcb: UInt64 = 0x301000
    /// Private, and not taken by the guest.
    static let fresh: UInt64 = 0x200000
    static let hole: UInt64 = 0x500000

    static let pvalidate: [UInt8] = [0xf2, 0x0f, 0x01, 0xff]
    private static let rmpadjust: [UInt8] = [0xf3, 0x0f, 0x01, 0xfe]
    static let vmgexit: [UInt8] = [0xf3, 0x0f, 0x01, 0xd9]
    static let tdcall: [UInt8] = [0x66, 0x0f, 0x01, 0xcc]

    enum Register: UInt8 {
        case rax, rcx, rdx, rbx
        case r8 = 8
        case r9, r10, r11, r12, r13, r14, r15
    }

    /// Registers for an instruction.
    struct Operands {
        var values: [(Register, UInt64)]
        init(_ values: (Register, UInt64)...) { self.values = values }
    }

    static func load(_ operands: Operands) -> [UInt8] {
        operands.values.flatMap { register, value -> [UInt8] in
            let high: UInt8 = register.rawValue >= 8 ? 1 : 0
            return [0x48 | high, 0xb8 | register.rawValue & 7]
                + (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        }
    }

    /// RAX, R10, R11 and RFLAGS to the page of reports, through the shared alias.
    static let reports: [UInt8] = {
        func store(_ place: UInt64) -> [UInt8] {
            let address = Guest.sharedBit | (report + place)
            return [0x48, 0xa3] + (0..<8).map { UInt8(truncatingIfNeeded: address >> ($0 * 8)) }
        }
        // MOV does not change the flags: they are saved first.
        return [0x9c] + store(0) + [0x4c, 0x89, 0xd0] + store(8) + [0x4c, 0x89, 0xd8] + store(16) + [0x58]
            + store(24) + [0xf4]
    }()

    private struct Answer {
        var exit: Exit
        var rax: UInt64 = 0
        var r10: UInt64 = 0
        var r11: UInt64 = 0
        var carry = false
        /// Exits before the last one.
        var hypercalls: [ckvm_run_hypercall] = []
    }

    /// A guest of 4 MiB, all of it private and measured in, except the page of reports, the GHCB, and fresh pages.
    ///
    /// - Parameter prepare: writes into the guest's memory before the launch.
    func guest(
        _ type: VMType, _ code: [UInt8], hypercalls: Bool = true, vcpus: Int = 1,
        _ prepare: (Guest) throws -> Void = { _ in }
    ) throws -> Guest {
        let guest = try Guest(code, type: type, sharedBit: 39, vcpus: vcpus)
        if hypercalls {
            try guest.model.vm.enableCapability(.exitHypercall, argument: 1 << CKVM_HC_MAP_GPA_RANGE)
        }
        try prepare(guest)
        let all = Guest.ram / pageSize
        let first = Self.report / pageSize
        #expect(guest.model.file.convert(0, first, to: .private).errno == nil)
        #expect(guest.model.file.convert(first + 2, all - first - 2, to: .private).errno == nil)
        try guest.model.vm.launch(#require(PageRange(start: 0, size: Self.fresh)))
        try guest.model.vm.finalize()
        return guest
    }

    /// Runs to the HLT at the end, which a guest without an IDT cannot survive, or to another exit.
    private func run(
        _ type: VMType, _ instruction: [UInt8], _ operands: Operands, answering ret: Int64 = 0,
        hypercalls: Bool = true
    ) throws -> Answer {
        let guest = try guest(
            type, Self.load(operands) + instruction + Self.reports, hypercalls: hypercalls)
        return try run(guest, answering: ret)
    }

    private func run(_ guest: Guest, answering ret: Int64 = 0) throws -> Answer {
        var answer = Answer(exit: .interrupted)
        for _ in 0..<100 {
            answer.exit = guest.vcpu.runToExit()
            switch answer.exit {
            case .interrupted: continue
            case .hypercall(let call):
                answer.hypercalls.append(call)
                var reply = call
                reply.ret = UInt64(bitPattern: ret)
                guest.vcpu.runPage.hypercall = reply
                continue
            default: break
            }
            break
        }
        answer.rax = try guest.ram.word(at: Self.report)
        answer.r10 = try guest.ram.word(at: Self.report + 8)
        answer.r11 = try guest.ram.word(at: Self.report + 16)
        answer.carry = try guest.ram.word(at: Self.report + 24) & 1 != 0
        return answer
    }

    // MARK: PVALIDATE and RMPADJUST

    @Test(
        arguments: [
            // Size, then the address: malformed, unaligned, a small page, and done.
            (2, 0x200000, 1), (0xffff_ffff, 0x200000, 1), (1, 0x201000, 1), (1, 0x200000, 6),
            (0, 0x200000, 0),
        ] as [(UInt64, UInt64, UInt64)])
    func pvalidateAnswersInEAX(size: UInt64, address: UInt64, eax: UInt64) throws {
        let answer = try run(
            .snp, Self.pvalidate, Operands((.rax, address), (.rcx, size), (.rdx, 1)))
        #expect(answer.rax == eax && !answer.carry)
        #expect(answer.exit.isShutdown)
    }

    @Test func pvalidateReportsNoChange() throws {
        let twice = Self.pvalidate + Self.load(Operands((.rax, Self.fresh))) + Self.pvalidate
        let answer = try run(.snp, twice, Operands((.rax, Self.fresh), (.rcx, 0), (.rdx, 1)))
        #expect(answer.rax == 0 && answer.carry)
    }

    @Test func pvalidateOfAHoleOrASharedPageIsAMemoryFault() throws {
        for address in [Self.hole, Self.report] {
            let answer = try run(.snp, Self.pvalidate, Operands((.rax, address), (.rcx, 0), (.rdx, 1)))
            guard case .memoryFault(let fault, _) = answer.exit else {
                Issue.record("\(answer.exit)")
                continue
            }
            #expect(fault.gpa == address && fault.wants == .private)
        }
    }

    @Test func rmpadjustOfVMPL0IsRefused() throws {
        let taken: UInt64 = 0x100000
        for (vmpl, eax) in [(0, 2), (1, 0)] as [(UInt64, UInt64)] {
            let answer = try run(.snp, Self.rmpadjust, Operands((.rax, taken), (.rcx, 0), (.rdx, vmpl)))
            #expect(answer.rax == eax)
        }
    }

    /// A guest for the one is refused by the other, and both by a VM that is neither.
    @Test(arguments: [VMType.softwareProtected, .snp, .tdx]) func otherGuestsHaveNoSuchInstruction(
        _ type: VMType
    ) throws {
        let instructions: [(VMType, [UInt8])] = [
            (.snp, Self.pvalidate), (.snp, Self.rmpadjust), (.tdx, Self.tdcall),
        ]
        for (own, instruction) in instructions where own != type {
            let guest =
                type == .softwareProtected
                ? try Guest(instruction + [0xf4]) : try guest(type, instruction + [0xf4])
            let answer = try run(guest)
            #expect(answer.exit.isShutdown)
        }
    }

    /// #GP(0) in ring 3, which is a triple fault without an IDT.
    @Test(arguments: [(VMType.snp, pvalidate), (.snp, rmpadjust), (.snp, vmgexit), (.tdx, tdcall)])
    func onlyRingZeroMayUseThem(_ type: VMType, _ instruction: [UInt8]) throws {
        let guest = try Guest(instruction + [0xf4], type: type, sharedBit: 39)
        #expect(guest.model.file.convert(0, Guest.ram / pageSize, to: .private).errno == nil)
        var special = Guest.longMode
        special.ss.dpl = 3
        special.cs.dpl = 3
        try guest.vcpu.setSpecialRegisters(special)
        try guest.model.vm.launch(#require(PageRange(start: 0, size: Guest.ram)))
        try guest.model.vm.finalize()
        #expect(guest.vcpu.runToExit().isShutdown)
    }

    // MARK: TDCALL

    @Test(
        arguments: [
            (Operands((.rax, 99)), 0xc000_0100_0000_0000),
            (Operands((.rax, 0x1_0006)), 0xc000_0100_0000_0000),
            (Operands((.rax, .max)), 0xc000_0100_0000_0000), (Operands((.rax, 3)), 0xc000_0704_0000_0000),
            // ACCEPT: reserved bits, the level, the shared bit, too many bits, a small page.
            (Operands((.rax, 6), (.rcx, 0x200008)), 0xc000_0100_0000_0001),
            (Operands((.rax, 6), (.rcx, 0x200002)), 0xc000_0100_0000_0001),
            (Operands((.rax, 6), (.rcx, 0x8000_0020_0000)), 0xc000_0100_0000_0001),
            (Operands((.rax, 6), (.rcx, 1 << 63)), 0xc000_0100_0000_0001),
            (Operands((.rax, 6), (.rcx, 0x200001)), 0xc000_0b0b_0000_0001),
            (Operands((.rax, 6), (.rcx, 0x100000)), 0x0000_0b0a_0000_0000),
            (Operands((.rax, 6), (.rcx, 0x200000)), 0),
        ] as [(Operands, UInt64)])
    func tdcallAnswersInRAX(_ operands: Operands, rax: UInt64) throws {
        let answer = try run(.tdx, Self.tdcall, operands)
        #expect(answer.rax == rax, "\(String(answer.rax, radix: 16))")
    }

    @Test(
        arguments: [
            // Start, size, and the answer: empty, wrapping, beyond the address width, both aliases, unaligned.
            (0x200000, 0, 1 << 63), (0x200000, 1 << 63, 1 << 63), (.max - 0xfff, 0x1000, 1 << 63),
            (1 << 48, 0x1000, 1 << 63), (0x7fff_ffff_f000, 0x2000, 1 << 63), (0x200001, 0x1000, 1 << 63 | 2),
            (0x200000, 1, 1 << 63 | 2), (0x200000, 0x1000, 0),
        ] as [(UInt64, UInt64, UInt64)])
    func mapGPAChecksItsRange(start: UInt64, size: UInt64, r10: UInt64) throws {
        let answer = try run(.tdx, Self.tdcall, Self.mapGPA(start, size))
        #expect(answer.rax == 0 && answer.r10 == r10, "\(String(answer.r10, radix: 16))")
        #expect(answer.hypercalls.count == (r10 == 0 ? 1 : 0))
    }

    static func mapGPA(_ start: UInt64, _ size: UInt64) -> Operands {
        Operands((.rax, 0), (.rcx, 0xffcc), (.r10, 0), (.r11, 0x10001), (.r12, start), (.r13, size))
    }

    /// One exit for 2 MiB, with the shared bit taken off; RETRY names the chunk, with the bit.
    @Test func mapGPAGoesByChunks() throws {
        let shared: UInt64 = 1 << 47
        let done = try run(.tdx, Self.tdcall, Self.mapGPA(shared | 0x1000, 5 << 20))
        #expect(done.hypercalls.map(\.args.0) == [0x1000, 0x201000, 0x401000])
        #expect(done.hypercalls.map(\.args.1) == [512, 512, 256] && done.r10 == 0)
        let busy = try run(.tdx, Self.tdcall, Self.mapGPA(shared | 0x1000, 5 << 20), answering: 11)
        #expect(busy.r10 == 1 && busy.r11 == shared | 0x1000 && busy.hypercalls.count == 1)
        let refused = try run(.tdx, Self.tdcall, Self.mapGPA(0x1000, 0x1000), answering: 22)
        #expect(refused.r10 == 1 << 63 && refused.r11 == 0x1000)
        let none = try run(.tdx, Self.tdcall, Self.mapGPA(0x1000, 0x1000), hypercalls: false)
        #expect(none.r10 == Self.unsupported && none.hypercalls.isEmpty)
    }

    private static let unsupported: UInt64 = 1 << 63 | 3

    @Test func unknownRequestsAreUnsupported() throws {
        for (r10, r11) in [(1, 0x10001), (0, 0x1ffff), (0, .max)] as [(UInt64, UInt64)] {
            let answer = try run(.tdx, Self.tdcall, Operands((.rax, 0), (.r10, r10), (.r11, r11)))
            #expect(answer.r10 == Self.unsupported)
        }
        // A port of 3 bytes, and one above 0xffff.
        for (size, port) in [(3, 0x3f8), (1, 0x10000)] as [(UInt64, UInt64)] {
            let answer = try run(
                .tdx, Self.tdcall,
                Operands((.rax, 0), (.r10, 0), (.r11, 30), (.r12, size), (.r13, 1), (.r14, port)))
            #expect(answer.r10 == 1 << 63)
        }
    }

    /// The VM stays dead.
    @Test func touchOfAPendingPageEndsTheTD() throws {
        let guest = try guest(.tdx, Self.load(Operands((.rax, Self.fresh))) + [0x48, 0x8b, 0x08, 0xf4])
        for _ in 0..<2 {
            guard case .failed(.ioError) = guest.vcpu.runToExit() else {
                Issue.record("it runs")
                return
            }
        }
    }

    /// A handler of #VE that touches another hole before it has read the information of the first #VE ends in a double fault,
    /// and one that has read it does not (hazard V18).
    @Test(arguments: [false, true]) func aSecondVEBeforeItsInformationIsRead(readsFirst: Bool) throws {
        let (table, handler): (UInt64, UInt64) = (0x30000, 0x31000)
        func touch(_ address: UInt64) -> [UInt8] {
            Self.load(Operands((.rax, Guest.sharedBit | address))) + [0x48, 0x8b, 0x08]
        }
        let guest = try Guest(touch(Self.hole) + [0xf4], type: .tdx, sharedBit: 39)
        var special = Guest.longMode
        special.idt.base = table
        special.idt.limit = 0xfff
        try guest.vcpu.setSpecialRegisters(special)
        /// The low half of an interrupt gate.
        func gate(_ handler: UInt64) -> UInt64 {
            handler & 0xffff | UInt64(special.cs.selector) << 16 | 0x8e00 << 32 | (handler >> 16) << 48
        }
        try guest.ram.put(word: gate(handler), at: table + 20 * 16)
        // The second handler halts the vCPU.
        let second: UInt64 = 0x32000
        let information = Self.load(Operands((.rax, 3))) + Self.tdcall
        let halt = Self.load(Operands((.rax, 0), (.r10, 0), (.r11, 12))) + Self.tdcall
        let change: [UInt8] =
            Self.load(Operands((.rax, gate(second)), (.rbx, table + 20 * 16))) + [0x48, 0x89, 0x03]
        try guest.ram.put(
            change + (readsFirst ? information : []) + touch(Self.hole + pageSize), at: handler)
        try guest.ram.put(halt, at: second)
        #expect(guest.model.file.convert(0, Guest.ram / pageSize, to: .private).errno == nil)
        try guest.model.vm.launch(#require(PageRange(start: 0, size: Guest.ram)))
        try guest.model.vm.finalize()
        switch guest.vcpu.runToExit() {
        case .halt: #expect(readsFirst)
        case .shutdown: #expect(!readsFirst)
        case let exit: Issue.record("\(exit)")
        }
    }

    // MARK: VMGEXIT

    static func wrmsr(_ value: UInt64) -> [UInt8] {
        load(Operands((.rcx, 0xc001_0130), (.rax, value & 0xffff_ffff), (.rdx, value >> 32))) + [0x0f, 0x30]
    }

    /// Registers the GHCB, writes these fields of it, and makes a request.
    ///
    /// - Parameters:
    ///   - fields: offset and value.
    ///   - isMarked: whether all fields are marked as valid.
    private func request(
        _ fields: [(UInt64, UInt64)], isMarked: Bool = true, answering ret: Int64 = 0
    ) throws -> (info1: UInt64, info2: UInt64, Answer, Guest) {
        let code =
            Self.wrmsr(Self.ghcb | 0x012) + Self.vmgexit + Self.wrmsr(Self.ghcb) + Self.vmgexit + Self.reports
        let guest = try guest(.snp, code)
        if isMarked {
            for word in 0..<2 as Range<UInt64> {
                try guest.ram.put(word: .max, at: Self.ghcb + 0x3f0 + word * 8)
            }
        }
        for (offset, value) in fields { try guest.ram.put(word: value, at: Self.ghcb + offset) }
        let answer = try run(guest, answering: ret)
        return (
            try guest.ram.word(at: Self.ghcb + 0x398), try guest.ram.word(at: Self.ghcb + 0x3a0), answer,
            guest
        )
    }

    static let stateChange: UInt64 = 0x8000_0010
    static let scratch: (UInt64, UInt64) = (0x3a8, ghcb + 0x800)

    @Test func malformedRequestsAreAnswered() throws {
        let io: UInt64 = 0x7b
        func info2(_ fields: [(UInt64, UInt64)], isMarked: Bool = true) throws -> UInt64 {
            let (info1, info2, _, _) = try request(fields, isMarked: isMarked)
            return info1 == 2 ? info2 : .max
        }
        #expect(try info2([(0x390, io), (0xff8, 1 << 32)]) == 2)
        for scratch in [0, Self.ghcb + 0x7f8, Self.ghcb + 0xff0, .max] as [UInt64] {
            #expect(try info2([(0x390, Self.stateChange), (0x3a8, scratch)]) == 3)
        }
        #expect(try info2([(0x390, io)], isMarked: false) == 4)
        // A size of 0 and a string.
        #expect(try info2([(0x390, io), (0x398, 0x3f8_0000)]) == 5)
        #expect(try info2([(0x390, io), (0x398, 0x3f8_0014)]) == 5)
        for event in [0, 0x8000_ffff, .max] as [UInt64] { #expect(try info2([(0x390, event)]) == 6) }
    }

    @Test func pageStateChangesCheckTheirList() throws {
        func status(_ header: UInt64, _ entries: [UInt64], answering ret: Int64 = 0) throws -> (
            UInt64, UInt64, Int
        ) {
            var fields = [(0x390, Self.stateChange), Self.scratch, (0x398, 0), (0x3a0, 0), (0x800, header)]
            for (index, entry) in entries.enumerated() { fields.append((0x808 + UInt64(index) * 8, entry)) }
            let (_, info2, answer, guest) = try request(fields, answering: ret)
            return (info2, try guest.ram.word(at: Self.ghcb + 0x800) & 0xffff, answer.hypercalls.count)
        }
        let toPrivate: UInt64 = 1 << 52
        let toShared: UInt64 = 2 << 52
        // end_entry of 253 and of 65,535, and a list that ends before it begins.
        for header in [253 << 16, 0xffff << 16, 5 | 1 << 16] as [UInt64] {
            #expect(try status(header, []) == (1 << 32 | 1, header & 0xffff, 0))
        }
        // An unknown operation, reserved bits, more pages done than there are, 2 MiB at 4 KiB.
        let large: UInt64 = 1 << 56
        let bad: [UInt64] = [5 << 52, toShared | 1 << 60, toShared | 2, toShared | large | 0x1000]
        for entry in bad {
            #expect(try status(0, [entry]) == (1 << 32 | 2, 0, 0))
        }
        // Neighbours are one exit; another operation is one more. PSMASH asks for nothing.
        let smash: UInt64 = 3 << 52
        let list: [UInt64] = [
            toShared | 0x200000, toShared | 0x201000, toPrivate | 0x202000, smash | 0x203000,
        ]
        #expect(try status(3 << 16, list) == (0, 4, 2))
        // The first exit is refused, so nothing is done.
        #expect(try status(3 << 16, list, answering: 22) == (0x100 << 32, 0, 1))
    }

    /// A hostile host does one entry, and the guest's list ends there.
    @Test func aHostCanShrinkTheList() throws {
        let code =
            Self.wrmsr(Self.ghcb | 0x012) + Self.vmgexit + Self.wrmsr(Self.ghcb) + Self.vmgexit + Self.reports
        let guest = try guest(.snp, code)
        guest.model.vm.shrinkLists()
        for word in 0..<2 as Range<UInt64> { try guest.ram.put(word: .max, at: Self.ghcb + 0x3f0 + word * 8) }
        let toShared: UInt64 = 2 << 52
        let fields = [
            (0x390, Self.stateChange), Self.scratch, (0x398, 0), (0x3a0, 0), (0x800, 2 << 16),
            (0x808, toShared | 0x200000), (0x810, toShared | 0x201000), (0x818, toShared | 0x202000),
        ]
        for (offset, value) in fields { try guest.ram.put(word: value, at: Self.ghcb + offset) }
        let answer = try run(guest)
        #expect(answer.hypercalls.map(\.args.1) == [1])
        #expect(try guest.ram.word(at: Self.ghcb + 0x3a0) == 0)
        // cur_entry 1, end_entry 0.
        #expect(try guest.ram.word(at: Self.ghcb + 0x800) & 0xffff_ffff == 1)
    }

    @Test func anUnregisteredGHCBIsRefused() throws {
        let guest = try guest(.snp, Self.wrmsr(Self.ghcb) + Self.vmgexit + [0xf4])
        guard case .failed(.invalidArgument) = try run(guest).exit else {
            Issue.record("it is accepted")
            return
        }
    }

    /// A GHCB in a private page or outside of RAM is ignored, and the guest goes on.
    @Test(arguments: [fresh, hole, 1 << 50]) func aGHCBThatTheHostCannotMapIsIgnored(_ gpa: UInt64) throws {
        let code = Self.wrmsr(gpa | 0x012) + Self.vmgexit + Self.wrmsr(gpa) + Self.vmgexit + Self.reports
        #expect(try run(guest(.snp, code)).exit.isShutdown)
    }

    @Test func aGuestCanAskToBeTerminated() throws {
        guard case .systemEvent(6) = try run(guest(.snp, Self.wrmsr(0x100) + Self.vmgexit)).exit else {
            Issue.record("it runs")
            return
        }
        let fatal = try run(.tdx, Self.tdcall, Operands((.rax, 0), (.r10, 0), (.r11, 0x10003)))
        guard case .systemEvent(7) = fatal.exit else {
            Issue.record("it runs")
            return
        }
    }

    // MARK: random requests

    /// Whatever registers and whatever GHCB a guest chooses, its vCPU leaves the guest with an exit, and the monitor can still
    /// convert the guest's memory.
    @Test(arguments: [VMType.snp, .tdx]) func randomRequests(_ type: VMType) throws {
        let isComplete = ProcessInfo.processInfo.environment["MINIVMM_HOSTILE"] != nil
        let instructions =
            type == .snp
            ? [Self.pvalidate, Self.rmpadjust, Self.vmgexit, Self.vmgexit, [0x0f, 0x30]] : [Self.tdcall]
        let registers: [Register] = [.rax, .rcx, .rdx, .r8, .r9, .r10, .r11, .r12, .r13, .r14, .r15]
        let places = [Self.fresh, Self.report, Self.ghcb, Self.hole, 0x100000, Self.ghcb + 0x800]
        var random = SplitMix64(seed: type == .snp ? 1 : 2)
        /// A number that a request may have: an address with bits around it, a code, or anything.
        func word() -> UInt64 {
            let place = places[Int(random.next() % UInt64(places.count))]
            let codes: [UInt64] = [
                0, 1, 2, 3, 6, 0x12, 0x14, 0x100, 0x7b, 0x8000_0010, 0x10001, 0x10003, 10, 12, 30, 48, 0xffcc,
                MSR.ghcb,
            ]
            return switch random.next() % 6 {
            case 0: place
            case 1: place | 1 << (random.next() % 64)
            case 2: codes[Int(random.next() % UInt64(codes.count))]
            case 3: 1 << (random.next() % 64)
            case 4: random.interesting()
            default: codes[Int(random.next() % UInt64(codes.count))] | place << (random.next() % 16)
            }
        }
        for trial in 0..<(isComplete ? 5000 : 60) {
            // Half of the SNP guests have a registered GHCB, with fields that are likely to be looked at.
            let hasGHCB = type == .snp && random.next() % 2 == 0
            var code =
                hasGHCB ? Self.wrmsr(Self.ghcb | 0x012) + Self.vmgexit + Self.wrmsr(Self.ghcb) : []
            for _ in 0..<3 {
                var values = Operands()
                for register in registers where random.next() % 2 == 0 {
                    values.values.append((register, word()))
                }
                code += Self.load(values) + instructions[Int(random.next() % UInt64(instructions.count))]
            }
            let guest = try guest(type, code + [0xf4])
            if hasGHCB {
                for word in 0..<2 as Range<UInt64> {
                    try guest.ram.put(word: .max, at: Self.ghcb + 0x3f0 + word * 8)
                }
                for offset in [0x1f8, 0x308, 0x310, 0x318, 0x398, 0x3a0, 0x3a8, 0x800, 0x808, 0x810]
                    as [UInt64]
                {
                    try guest.ram.put(word: word(), at: Self.ghcb + offset)
                }
                let events: [UInt64] = [0x7b, 0x72, 0x78, 0x7c, 0x400, Self.stateChange, word()]
                try guest.ram.put(
                    word: events[Int(random.next() % UInt64(events.count))], at: Self.ghcb + 0x390)
            }
            let answers: [Int64] = [0, 0, 11, 22, 1, -11, .min]
            let answer = try run(guest, answering: answers[Int(random.next() % UInt64(answers.count))])
            #expect(guest.vcpu.failure == nil, "trial \(trial): \(answer.exit)")
            // A time slice without end is the only way not to leave.
            if case .interrupted = answer.exit { Issue.record("trial \(trial): it does not leave") }
            #expect(
                guest.model.file.convert(0, Guest.ram / pageSize, to: .shared).errno == nil, "trial \(trial)")
        }
    }

    private enum MSR { static let ghcb: UInt64 = 0xc001_0130 }

    /// The host sees and sets no registers of a guest that runs.
    @Test(arguments: [VMType.snp, .tdx]) func registersAreProtected(_ type: VMType) throws {
        let guest = try guest(type, [0xf4])
        #expect(throws: Errno.invalidArgument) { try guest.vcpu.registers() }
        #expect(throws: Errno.invalidArgument) { try guest.vcpu.setRegisters(ckvm_regs()) }
    }

    /// The bytes that the host finds in a page that was the guest's are ciphertext, and those that come back are the guest's.
    @Test func contentsFollowTheKey() throws {
        // The guest writes a word to the fresh page, after it has validated it.
        let code =
            Self.load(Operands((.rax, Self.fresh), (.rcx, 0), (.rdx, 1))) + Self.pvalidate
            + Self.load(Operands((.rax, 0x1234_5678_9abc_def0), (.rbx, Self.fresh)))
            + [0x48, 0x89, 0x03] + Self.reports
        let guest = try guest(.snp, code)
        #expect(try run(guest).exit.isShutdown)
        let page = Self.fresh / pageSize
        #expect(guest.model.file.convert(page, 1, to: .shared).errno == nil)
        let seen = try guest.ram.word(at: Self.fresh)
        #expect(seen != 0x1234_5678_9abc_def0 && seen != 0)
        // There and back, and the ciphertext is the same again.
        #expect(guest.model.file.convert(page, 1, to: .private).errno == nil)
        #expect(guest.model.file.convert(page, 1, to: .shared).errno == nil)
        #expect(try guest.ram.word(at: Self.fresh) == seen)
    }
}

extension Exit {
    fileprivate var isShutdown: Bool { if case .shutdown = self { true } else { false } }
}
