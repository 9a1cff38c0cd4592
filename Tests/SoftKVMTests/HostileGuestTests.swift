// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Guests that try to break the software CPU. Whatever they do only causes an exit of the vCPU: the monitor keeps
/// running, and a CPU process does not use more memory than its limit.
///
/// The everyday test suite runs every 97th guest; `make hostile` runs all of them and prints the table of
/// docs/hostile-guests.md.
@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct HostileGuestTests {
    private static let isComplete = ProcessInfo.processInfo.environment["MINIVMM_HOSTILE"] != nil
    private static let stride = isComplete ? 1 : 97

    // MARK: every opcode

    /// Prefixes, which may change the meaning of an opcode.
    private static let prefixes: [[UInt8]] = [
        [], [0x48], [0x66], [0xf0], [0xf2], [0xf3], [0x67], [0x40, 0x40], [0x4f, 0x66], [0x64], [0xf0, 0x48],
    ]
    /// ModRM bytes: each register form of the reg field, and two in memory (`[rax]`, RIP-relative).
    private static let operands: [[UInt8]] =
        (0..<8).map { [0xc0 | $0 << 3 | 1, 0, 0, 0, 0] } + [[0x00, 0, 0, 0, 0], [0x3d, 0x10, 0, 0, 0]]

    @Test func allOneByteOpcodes() throws {
        var trial = try Trial("one-byte opcodes")
        try trial.run(everyNth: Self.stride, Self.combinations(opcodes: (0...UInt8.max).map { [$0] }))
        trial.report(Self.isComplete)
    }

    @Test func allTwoByteOpcodes() throws {
        var trial = try Trial("two-byte opcodes")
        try trial.run(
            everyNth: Self.stride, Self.combinations(opcodes: (0...UInt8.max).map { [0x0f, $0] }))
        trial.report(Self.isComplete)
    }

    @Test func allThreeByteOpcodes() throws {
        var trial = try Trial("three-byte opcodes")
        let opcodes = [0x38, 0x3a].flatMap { (map: UInt8) -> [[UInt8]] in
            (0...UInt8.max).map { [0x0f, map, $0] }
        }
        try trial.run(everyNth: Self.stride, Self.combinations(opcodes: opcodes))
        trial.report(Self.isComplete)
    }

    private static func combinations(opcodes: [[UInt8]]) -> [[UInt8]] {
        var all: [[UInt8]] = []
        for prefix in prefixes {
            for opcode in opcodes {
                for operand in operands { all.append(prefix + opcode + operand) }
            }
        }
        return all
    }

    // MARK: random code

    @Test func randomBytes() throws {
        var random = SplitMix64(seed: 1)
        var trial = try Trial("random bytes, random registers")
        let count = Self.isComplete ? 100_000 : 1000
        for _ in 0..<count {
            let code = (0..<1 + random.next() % 32).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            try trial.run(code) { registers in
                for number in 0..<16 where number != 4 { registers.set(number, to: random.interesting()) }
            }
        }
        trial.report(Self.isComplete)
    }

    @Test(arguments: ["real mode", "protected mode"]) func randomBytesOutsideOf64BitMode(_ mode: String)
        throws
    {
        var random = SplitMix64(seed: 2)
        var special =
            mode == "real mode" ? CPUModeTests.realMode(codeSegment: 0x1000) : CPUModeTests.protectedMode
        // The bytes there are zeros, so every far jump of protected mode raises an exception.
        special.gdt.base = 0x30000
        special.gdt.limit = 0xfff
        var trial = try Trial("random bytes, \(mode)", special: special)
        for _ in 0..<(Self.isComplete ? 50_000 : 500) {
            let code = (0..<1 + random.next() % 32).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            try trial.run(code) { registers in
                for number in 0..<16 where number != 4 { registers.set(number, to: random.interesting()) }
            }
        }
        trial.report(Self.isComplete)
    }

    /// Code of many pages: the engine's translations are dropped before they take too much memory.
    @Test func translationsAreDroppedBeforeTheyTakeTooMuchMemory() throws {
        let ram = Guest.ram
        let guest = try Guest([])
        let end = ram - Guest.code - 8
        try guest.ram.put([UInt8](repeating: 0x90, count: Int(end)), at: Guest.code)
        // Jumps back to the start, to a different byte each time, so that none of the code has been translated
        // before:
        try guest.ram.put(
            [0x48, 0xff, 0xc3, 0x48, 0x8d, 0x8b, 0x00, 0x00, 0x01, 0x00, 0xff, 0xe1], at: ram - 16)
        let rounds = Self.isComplete ? 24 : 2
        for _ in 0..<rounds {
            let wanted = try guest.vcpu.registers().rbx + 1
            var slices = 0
            while try guest.vcpu.registers().rbx < wanted {
                guard case .interrupted = guest.vcpu.runToExit() else { break }
                slices += 1
                try #require(slices < 1000)
            }
            #expect(try guest.vcpu.registers().rbx == wanted)
        }
        #expect(guest.vcpu.failure == nil)
        let most = try #require(peakMemory(guest.vcpu.process))
        // The address sanitizer keeps memory that was freed.
        let isSanitized = ProcessInfo.processInfo.environment["ASAN_OPTIONS"] != nil
        #expect(isSanitized || most <= Int(ram) + 128 << 20, "\(most) bytes")
    }

    // MARK: single instructions

    @Test(
        arguments: [
            [0xff, 0xd8], [0xff, 0xe8], [0x48, 0xff, 0xd9],  // far CALL and JMP through a register
            // LOCK BT, BTS
            [0xf0, 0x0f, 0xa3, 0xc0], [0xf0, 0x0f, 0xab, 0xc0], [0xf0, 0x0f, 0xba, 0xe8, 0x01],
            [0xf0, 0xa7],  // LOCK CMPS
            // LOCK OUT, IN, OUTS, HLT, VMMCALL, MOV CR, WRMSR, CPUID, RDTSC
            [0xf0, 0xee], [0xf0, 0xe4, 0x80], [0xf0, 0xf3, 0x6e], [0xf0, 0xf4], [0xf0, 0x0f, 0x01, 0xd9],
            [0xf0, 0x0f, 0x20, 0xc0], [0x66, 0xf0, 0x0f, 0x30], [0xf0, 0x0f, 0xa2], [0xf0, 0x0f, 0x31],
            [0xf0, 0x90], [0xf0, 0x8b, 0x00], [0xf0, 0x39, 0x00], [0x0f, 0x0b],
        ] as [[UInt8]])
    func undefinedInstructionsRaiseAnException(code: [UInt8]) throws {
        // The preceding inc rbx shows that execution stopped at the right instruction, even if the engine
        // translated both together.
        let guest = try Guest([0x48, 0xff, 0xc3] + code)
        guard case .shutdown = guest.vcpu.runToExit() else {
            Issue.record("\(code): no shutdown")
            return
        }
        #expect(guest.vcpu.failure == nil)
        let registers = try guest.vcpu.registers()
        #expect((registers.rbx, registers.rip) == (1, Guest.code + 3))
    }

    @Test func privilegedInstructionsAreRecognisedAfterPrefixes() throws {
        let prefixes: [[UInt8]] = [
            [0x40, 0x40], [0x40, 0x48], [0x48, 0x66], [0x66, 0x48, 0x67], [0x4f, 0x2e, 0x40],
        ]
        for prefix in prefixes {
            let guest = try Guest(prefix + [0xe6, 0xf4])
            guard case .io(let io) = guest.vcpu.runToExit() else {
                Issue.record("\(prefix): OUT was not seen")
                continue
            }
            #expect(io.port == 0xf4)
            let halting = try Guest(prefix + [0xf4])
            guard case .halt = halting.vcpu.runToExit() else {
                Issue.record("\(prefix): HLT was not seen")
                continue
            }
        }
    }

    /// A REX prefix counts only directly before the opcode: `48 66 0f 20 d8` does not select another register.
    @Test func onlyREXDirectlyBeforeTheOpcodeCounts() throws {
        let guest = try Guest([0x41, 0x66, 0x0f, 0x20, 0xd8, 0xf4])  // mov rax, cr3 (not mov r8, cr3)
        guard case .halt = guest.vcpu.runToExit() else {
            Issue.record("no halt")
            return
        }
        #expect(try guest.vcpu.registers().rax == Guest.tables)
    }

    @Test func debugRegistersKeepTheirValues() throws {
        let guest = try Guest([
            0x0f, 0x23, 0xc0,  // mov dr0, rax
            0x0f, 0x23, 0xfb,  // mov dr7, rbx
            0x0f, 0x21, 0xc1,  // mov rcx, dr0
            0x0f, 0x21, 0xfa,  // mov rdx, dr7
            0x0f, 0x21, 0xee,  // mov rsi, dr5, an alias of dr7
            0xf4,
        ])
        try guest.change { ($0.rax, $0.rbx) = (0xffff_8000_1234_5678, 1) }
        guard case .halt = guest.vcpu.runToExit() else {
            Issue.record("no halt")
            return
        }
        let registers = try guest.vcpu.registers()
        #expect((registers.rcx, registers.rdx, registers.rsi) == (0xffff_8000_1234_5678, 0x401, 0x401))
    }

    @Test func lastPageOfTheAddressSpaceIsUsable() throws {
        let guest = try Guest([
            0x0f, 0x22, 0xd8,  // mov cr3, rax
            0x48, 0x89, 0x0b,  // mov [rbx], rcx
            0x48, 0x8b, 0x53, 0xf8,  // mov rdx, [rbx - 8]
            0x48, 0x8b, 0x33,  // mov rsi, [rbx]
            0xf4,
        ])
        for (table, entry) in [(UInt64(0x5000), UInt64(0x6003)), (0x6000, 0x7003), (0x7000, 0x8003)] {
            try guest.ram.put(word: entry, at: table + 511 * 8)
        }
        try guest.ram.put(word: 0x2003, at: 0x5000)  // the identity map, for the code
        try guest.ram.put(word: 0x2_0003, at: 0x8000 + 511 * 8)
        try guest.ram.put(word: 0x2_1003, at: 0x8000 + 510 * 8)
        try guest.ram.put(word: 0x55, at: 0x21ff8)
        try guest.change { ($0.rax, $0.rbx, $0.rcx) = (0x5000, 0xffff_ffff_ffff_f000, 0x77) }
        guard case .halt = guest.vcpu.runToExit() else {
            Issue.record("no halt")
            return
        }
        let registers = try guest.vcpu.registers()
        #expect((registers.rdx, registers.rsi) == (0x55, 0x77))
        #expect(try guest.ram.word(at: 0x20000) == 0x77)
    }

    /// `KVM_SET_SREGS` restores 64-bit mode after a far return to a 32-bit code segment.
    @Test func setSpecialRegistersRestoresSegments() throws {
        let guest = try Guest([0x0f, 0x01, 0x10, 0x48, 0xcb])  // lgdt [rax]; retfq
        try guest.ram.put(word: 0x00cf_9b00_0000_ffff, at: 0x20008)  // 8: 32-bit code
        try guest.ram.put([0x0f, 0x00, 0x00, 0x00, 0x02, 0x00, 0, 0, 0, 0], at: 0x21000)
        try guest.ram.put(word: 0x11000, at: Guest.stack)
        try guest.ram.put(word: 8, at: Guest.stack + 8)
        // In 64-bit mode 48 ff c3 is inc rbx; in 32-bit mode 48 is dec eax.
        try guest.ram.put([0x48, 0xff, 0xc3, 0xf4], at: 0x11000)
        try guest.change { $0.rax = 0x21000 }
        guard case .halt = guest.vcpu.runToExit() else {
            Issue.record("no halt in 32-bit mode")
            return
        }
        #expect(try guest.vcpu.registers().rax == 0x20fff)
        try guest.vcpu.setSpecialRegisters(Guest.longMode)
        try guest.change { ($0.rax, $0.rbx, $0.rip) = (0x21000, 0, 0x11000) }
        guard case .halt = guest.vcpu.runToExit() else {
            Issue.record("no halt in 64-bit mode")
            return
        }
        #expect(try guest.vcpu.registers().rax == 0x21000)
        #expect(try guest.vcpu.registers().rbx == 1)
    }

    // MARK: failures of the process

    @Test func killedProcessIsAnExitWithTheReason() throws {
        let guest = try Guest([0x48, 0xff, 0xc3, 0xeb, 0xfb])  // inc rbx; jmp -5
        guard case .interrupted = guest.vcpu.runToExit() else {
            Issue.record("no time slice")
            return
        }
        let process = try #require(guest.vcpu.process)
        #expect(kill(process, SIGKILL) == 0)
        for _ in 0..<2 {
            guard case .internalError = guest.vcpu.runToExit() else {
                Issue.record("no internal error")
                return
            }
            #expect(guest.vcpu.failure?.reason == CPUFailure.Reason.signal(9))
            #expect(guest.vcpu.failure?.isOfGuest == false)
        }
        // The next vCPU has a process of its own.
        let other = try Guest([0xf4])
        guard case .halt = other.vcpu.runToExit() else {
            Issue.record("no halt")
            return
        }
    }

    @Test func kickEndsAStoppedProcess() throws {
        let guest = try Guest([0xeb, 0xfe])  // jmp to itself
        guard case .interrupted = guest.vcpu.runToExit() else {
            Issue.record("no time slice")
            return
        }
        let process = try #require(guest.vcpu.process)
        #expect(kill(process, SIGSTOP) == 0)
        let vcpu = guest.vcpu
        let kicker = Thread { vcpu.kick() }
        kicker.start()
        guard case .interrupted = guest.vcpu.runToExit() else {
            Issue.record("no kick")
            return
        }
        guest.vcpu.runPage.clearImmediateExit()
        // If the kick came before the run, there is no failure and the process can continue.
        if guest.vcpu.failure == nil { kill(process, SIGCONT) }
    }

    /// The process has no descriptors of the monitor, and a system call filter.
    @Test func cpuProcessIsConfined() throws {
        let guest = try Guest([0xf4])
        _ = guest.vcpu.runToExit()
        let process = try #require(guest.vcpu.process)
        let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        #expect(status.contains("NoNewPrivs:\t1"))
        let files = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").map { name in
            try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/fd/\(name)")
        }
        for file in files {
            let isExpected =
                file == "/dev/null" || file.hasPrefix("socket:") || file.hasSuffix("/statm")
                || file.hasSuffix("/maps")
            #expect(isExpected, "\(file)")
        }
        let shared = try String(contentsOfFile: "/proc/\(process)/maps", encoding: .utf8)
            .split(separator: "\n").filter { $0.contains("rw-s") }
        #expect(shared.allSatisfy { $0.contains("software-cpu") || $0.contains("guest_memfd") }, "\(shared)")
    }
}
