// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// A short name for an exit, to compare exits with.
func exitName(_ exit: Exit) -> String {
    switch exit {
    case .io(let io): "io \(io.direction == CKVM_EXIT_IO_OUT ? "out" : "in") \(io.port) \(io.size)"
    case .mmio(let mmio): "mmio \(mmio.is_write == 1 ? "write" : "read") \(hex(mmio.phys_addr)) \(mmio.len)"
    case .hypercall(let call): "hypercall \(call.nr) \(hex(call.args.0)) \(call.args.1) \(call.args.2)"
    case .memoryFault(let fault, let errno):
        "fault \(hex(fault.gpa)) \(fault.size) \(fault.flags) errno \(errno.rawValue)"
    case .halt: "halt"
    case .shutdown: "shutdown"
    case .interrupted: "interrupted"
    case .failEntry(let reason): "fail entry \(hex(reason))"
    case .internalError(let suberror): "internal error \(suberror)"
    case .systemEvent(let type): "system event \(type)"
    case .debug(let debug): "debug exit at \(debug.pc)"
    case .failed(let errno): "failed \(errno.rawValue)"
    case .unsupported(let reason): "unsupported \(reason)"
    }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

extension SoftVCPU {
    func exit() -> String { exitName(runToExit()) }

    /// The data of the port access of the last exit.
    var ioBytes: [UInt8] {
        get { runPage.withIOData(runPage.io) { Array($0) } ?? [] }
        set { _ = runPage.withIOData(runPage.io) { $0.copyBytes(from: newValue) } }
    }
}

@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct ExitTests {
    @Test func outExitsWithItsByteAndResumesAfterTheInstruction() throws {
        let guest = try Guest([
            0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
            0xb0, 0x41,  // mov al, 'A'
            0xee,  // out dx, al
            0x48, 0xff, 0xc3,  // inc rbx
            0xf4,  // hlt
        ])
        #expect(guest.vcpu.exit() == "io out 1016 1")
        #expect(guest.vcpu.ioBytes == [0x41])
        #expect(try guest.vcpu.registers().rip == Guest.code + 6)
        #expect(try guest.vcpu.registers().rbx == 0)
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 1)
        #expect(try guest.vcpu.registers().rip == Guest.code + 11)
    }

    @Test func registersChangedAtAPortExitAreKept() throws {
        let guest = try Guest([
            0xe7, 0xe8,  // out 0xe8, eax
            0x48, 0x89, 0xc3,  // mov rbx, rax
            0xf4,  // hlt
        ])
        try guest.change { $0.rax = 0xffff_ffff_0000_000c }
        #expect(guest.vcpu.exit() == "io out 232 4")
        #expect(guest.vcpu.ioBytes == [0xc, 0, 0, 0])
        try guest.change { $0.rax = 77 }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 77)
    }

    @Test func changedRIPSkipsCompletion() throws {
        let guest = try Guest([
            0xe6, 0x10,  // out 0x10, al
            0xf4,  // hlt
            0xe6, 0x20,  // out 0x20, al
        ])
        #expect(guest.vcpu.exit() == "io out 16 1")
        try guest.change { $0.rip = Guest.code + 3 }
        #expect(guest.vcpu.exit() == "io out 32 1")
    }

    @Test func inStoresTheAnswerInTheAccumulator() throws {
        let guest = try Guest([
            0xe4, 0x10,  // in al, 0x10
            0x66, 0xed,  // in ax, dx
            0xed,  // in eax, dx
            0xf4,  // hlt
        ])
        try guest.change {
            $0.rax = 0x1111_1111_1111_1111
            $0.rdx = 0x1234
        }
        #expect(guest.vcpu.exit() == "io in 16 1")
        guest.vcpu.ioBytes = [0x22]
        #expect(guest.vcpu.exit() == "io in 4660 2")
        #expect(try guest.vcpu.registers().rax == 0x1111_1111_1111_1122)
        guest.vcpu.ioBytes = [0x33, 0x44]
        #expect(guest.vcpu.exit() == "io in 4660 4")
        #expect(try guest.vcpu.registers().rax == 0x1111_1111_1111_4433)
        guest.vcpu.ioBytes = [1, 2, 3, 0x84]
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rax == 0x8403_0201)
    }

    @Test func repeatedStringPortIOExitsForEachElement() throws {
        let guest = try Guest([
            0xf3, 0x6e,  // rep outsb
            0xb9, 0x02, 0x00, 0x00, 0x00,  // mov ecx, 2
            0xf3, 0x6d,  // rep insd
            0xf3, 0x6f,  // rep outsd with rcx = 0
            0xf4,  // hlt
        ])
        try guest.ram.put([0x61, 0x62, 0x63], at: 0x20000)
        try guest.change {
            $0.rcx = 3
            $0.rdx = 0xe9
            $0.rsi = 0x20000
            $0.rdi = 0x2fffe  // the first element crosses a page boundary
        }
        var written: [UInt8] = []
        for _ in 0..<3 {
            #expect(guest.vcpu.exit() == "io out 233 1")
            written += guest.vcpu.ioBytes
        }
        #expect(written == [0x61, 0x62, 0x63])
        for element: UInt8 in [1, 2] {
            #expect(guest.vcpu.exit() == "io in 233 4")
            guest.vcpu.ioBytes = [element, 0, 0, 0xf0]
        }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.ram.bytes(at: 0x2fffe, 8) == [1, 0, 0, 0xf0, 2, 0, 0, 0xf0])
        let registers = try guest.vcpu.registers()
        #expect((registers.rsi, registers.rdi, registers.rcx) == (0x20003, 0x30006, 0))
    }

    @Test func directionFlagReversesStringPortIO() throws {
        let guest = try Guest([
            0xfd,  // std
            0x6e,  // outsb
            0xf4,  // hlt
        ])
        try guest.change { $0.rsi = 0x20000 }
        #expect(guest.vcpu.exit() == "io out 0 1")
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rsi == 0x1ffff)
    }

    @Test(arguments: [0xd9, 0xc1] as [UInt8])
    func hypercallExitsAndReturns(form: UInt8) throws {
        let guest = try Guest([
            0x0f, 0x01, form,  // vmmcall or vmcall
            0xf4,  // hlt
        ])
        try guest.model.vm.enableCapability(.exitHypercall, argument: 1 << 12)
        try guest.change { ($0.rax, $0.rbx, $0.rcx, $0.rdx) = (12, 0x3000, 2, 0x10) }
        #expect(guest.vcpu.exit() == "hypercall 12 0x3000 2 16")
        guest.vcpu.runPage.hypercall.ret = 0 &- 11
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rax == 0 &- 11)
    }

    @Test func kvmRejectsInvalidHypercalls() throws {
        let code: [UInt8] = [
            0x0f, 0x01, 0xd9,  // vmmcall
            0xf4,  // hlt
        ]
        func answer(
            _ number: UInt64, _ gpa: UInt64, _ pages: UInt64, enabled: Bool = true, ring: UInt8 = 0
        ) throws -> (String, Int64) {
            let guest = try Guest(code)
            if enabled { try guest.model.vm.enableCapability(.exitHypercall, argument: 1 << 12) }
            try guest.change { ($0.rax, $0.rbx, $0.rcx) = (number, gpa, pages) }
            if ring == 3 {
                // Ring 3 needs pages with the user bit.
                for (table, entry) in [(Guest.tables, 0x2003), (Guest.tables + 0x1000, 0x83)]
                    as [(UInt64, UInt64)]
                {
                    try guest.ram.put(word: entry | 4, at: table)
                }
                var special = Guest.longMode
                special.ss.dpl = 3
                special.cs.dpl = 3
                try guest.vcpu.setSpecialRegisters(special)
            }
            let exit = guest.vcpu.exit()
            return (exit, Int64(bitPattern: try guest.vcpu.registers().rax))
        }
        #expect(try answer(12, 0x3000, 1, enabled: false) == ("halt", -1000))
        #expect(try answer(11, 0x3000, 1) == ("halt", -1000))
        #expect(try answer(.max, 0x3000, 1) == ("halt", -1000))
        #expect(try answer(12, 0x3001, 1) == ("halt", -22))
        #expect(try answer(12, 0x3000, 0) == ("halt", -22))
        #expect(try answer(12, 0x3000, .max) == ("halt", -22))
        // HLT is for ring 0.
        #expect(try answer(12, 0x3000, 1, ring: 3) == ("shutdown", -1))
    }

    @Test func exceptionsShutDown() throws {
        let cases: [[UInt8]] = [
            [0x0f, 0x0b],  // ud2
            [0x31, 0xc9, 0xf7, 0xf1],  // xor ecx, ecx; div ecx
            [0xcd, 0x80],  // int 0x80
            [0x48, 0xb8, 0, 0, 0, 0, 0, 0x80, 0, 0, 0x8a, 0x00],  // mov al, [not canonical]
            [0x0f, 0x05],  // syscall
            [0x0f, 0xc7, 0xf0],  // rdrand eax: nothing here is random
            [0xb9, 0xff, 0xff, 0, 0, 0x0f, 0x32],  // rdmsr of an MSR that does not exist
            [0x31, 0xc0, 0x0f, 0x22, 0xc0],  // mov cr0, 0: leaves 64-bit mode
        ]
        for code in cases {
            let guest = try Guest(code)
            #expect(guest.vcpu.exit() == "shutdown", "\(code)")
            #expect(guest.vcpu.exit() == "shutdown", "\(code), again")
        }
    }

    /// Paging without protected mode, long mode without PAE or without paging, 64-bit code outside of long mode, and 5-level
    /// paging, which this CPU does not support.
    @Test func statesThatNoCPUCanHaveFailAtTheEntry() throws {
        let changes: [(inout ckvm_sregs) -> Void] = [
            { $0.cr0 &= ~1 }, { $0.cr4 &= ~0x20 }, { $0.cr0 &= ~(1 << 31) }, { $0.efer = 0x100 },
            { $0.efer = 0 }, { $0.cr4 |= 1 << 12 },
        ]
        for change in changes {
            let guest = try Guest([0xf4])
            var special = Guest.longMode
            change(&special)
            try guest.vcpu.setSpecialRegisters(special)
            #expect(guest.vcpu.exit() == "fail entry 0x80000021")
        }
    }

    @Test func executingOutsideOfMemoryIsAnInternalError() throws {
        let guest = try Guest([0xff, 0xe0])  // jmp rax
        try guest.change { $0.rax = 0x4000_0000 }
        #expect(guest.vcpu.exit() == "internal error 1")
    }

    @Test func cpuidReturnsTheConfiguredTable() throws {
        let guest = try Guest([
            0x0f, 0xa2,  // cpuid
            0xf4,  // hlt
        ])
        try guest.change { $0.rax = 0x8000_0008 }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rax == 0x3028)
        #expect(
            errno { () throws(Errno) in try guest.vcpu.setCPUID(CPUIDTable(entries: [])) } == .invalidArgument
        )
        // Setting the same table again is allowed.
        try guest.vcpu.setCPUID(guest.model.kvm.supportedCPUID())
    }

    @Test func sseInstructionsWork() throws {
        let guest = try Guest([
            0xf3, 0x0f, 0x6f, 0x06,  // movdqu xmm0, [rsi]
            0x66, 0x0f, 0xfe, 0xc0,  // paddd xmm0, xmm0
            0xf3, 0x0f, 0x7f, 0x07,  // movdqu [rdi], xmm0
            0xf4,  // hlt
        ])
        try guest.ram.put(word: 0x0000_0003_0000_0002, at: 0x20ff8)
        try guest.ram.put(word: 0x0000_0005_0000_0004, at: 0x21000)
        try guest.change { ($0.rsi, $0.rdi) = (0x20ff8, 0x22ffc) }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.ram.word(at: 0x22ffc) == 0x0000_0006_0000_0004)
        #expect(try guest.ram.word(at: 0x23004) == 0x0000_000a_0000_0008)
    }

    @Test func kickEndsEveryRunUntilItIsCleared() throws {
        let guest = try Guest([0xeb, 0xfe])  // jmp .
        guest.vcpu.kick()
        #expect(guest.vcpu.exit() == "interrupted")
        let before = guest.model.kvm.now()
        #expect(guest.vcpu.exit() == "interrupted")
        #expect(guest.model.kvm.now() - before < 3000)
        guest.vcpu.runPage.clearImmediateExit()
        #expect(guest.vcpu.exit() == "interrupted")
        #expect(guest.model.kvm.now() - before >= 100_000)
    }

    @Test func immediateExitOnlyCompletesThePendingInstruction() throws {
        let guest = try Guest([
            0xe4, 0x10,  // in al, 0x10
            0x48, 0xff, 0xc3,  // inc rbx
            0xf4,  // hlt
        ])
        #expect(guest.vcpu.exit() == "io in 16 1")
        guest.vcpu.ioBytes = [9]
        guest.vcpu.kick()
        #expect(guest.vcpu.exit() == "interrupted")
        let registers = try guest.vcpu.registers()
        #expect((registers.rax, registers.rbx, registers.rip) == (9, 0, Guest.code + 2))
    }

    @Test func kickFromAnotherThreadEndsARun() throws {
        let guest = try Guest([0xeb, 0xfe], .init(timeSlice: .max))  // jmp .
        let vcpu = guest.vcpu
        // Uses a thread, because a task would have to wait for one of the few threads that run tests.
        let kicker = Thread { vcpu.kick() }
        kicker.start()
        #expect(vcpu.exit() == "interrupted")
    }

    @Test(arguments: [1, 2, 7, 100])
    func timeSliceCountsInstructions(slice: Int) throws {
        let guest = try Guest(
            [
                0x48, 0xff, 0xc3,  // inc rbx
                0xeb, 0xfb,  // jmp back to it
            ], .init(timeSlice: slice))
        for turn in 1...3 {
            #expect(guest.vcpu.exit() == "interrupted")
            #expect(try guest.vcpu.registers().rbx == UInt64((slice * turn + 1) / 2))
        }
    }

    @Test func privilegedInstructionsOfEveryEncodingAreSteppedOver() throws {
        let shapes: [[UInt8]] = [
            [0x0f, 0x01, 0x3e],  // invlpg [rsi]
            [0x0f, 0x01, 0x7c, 0x24, 0x08],  // invlpg [rsp + 8]
            [0x0f, 0x01, 0x3d, 0x10, 0x00, 0x00, 0x00],  // invlpg [rip + 16]
            [0x0f, 0x01, 0x3c, 0x25, 0x00, 0x10, 0x00, 0x00],  // invlpg [0x1000]
            [0x43, 0x0f, 0x01, 0xbc, 0x88, 0x00, 0x01, 0x00, 0x00],  // invlpg [r8 + r9 * 4 + 256]
            [0x0f, 0x01, 0xf9],  // rdtscp
            [0x44, 0x0f, 0x20, 0xc1],  // mov rcx, cr8
            [0x66, 0x0f, 0x20, 0xd1],  // mov rcx, cr2 with a prefix without effect
        ]
        let guest = try Guest(shapes.flatMap { $0 } + [0xf4])
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rip == Guest.code + UInt64(shapes.joined().count) + 1)
        let row = try Guest([[UInt8]](repeating: [0x0f, 0xa2], count: 1500).flatMap { $0 } + [0xf4])  // cpuid
        #expect(row.vcpu.exit() == "halt")
    }

    @Test func rdtscReadsTheVirtualClock() throws {
        let guest = try Guest([
            0x0f, 0x31,  // rdtsc
            0x89, 0xc3,  // mov ebx, eax
            0x90, 0x90, 0x90,  // nop
            0x0f, 0x31,  // rdtsc
            0xf4,  // hlt
        ])
        #expect(guest.vcpu.exit() == "halt")
        let registers = try guest.vcpu.registers()
        #expect(registers.rax - registers.rbx == 5)
    }
}
