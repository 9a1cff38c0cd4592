// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage
import Testing

@testable import SoftKVM

/// `KVM_SET_GUEST_DEBUG` and `KVM_EXIT_DEBUG`.
@Suite(.enabled(if: hasEngine, "needs the Unicorn engine"))
struct GuestDebugTests {
    private func request(
        _ control: UInt32, _ registers: [UInt64] = [], dr7: UInt64 = 0
    ) -> ckvm_guest_debug {
        var request = ckvm_guest_debug()
        request.control = control | CKVM_GUESTDBG_ENABLE
        let addresses = registers + [0, 0, 0, 0]
        (request.debugreg.0, request.debugreg.1) = (addresses[0], addresses[1])
        (request.debugreg.2, request.debugreg.3) = (addresses[2], addresses[3])
        request.debugreg.7 = dr7
        return request
    }

    /// The next exit that is not the end of a time slice.
    private func debugExit(_ vcpu: SoftVCPU) throws -> ckvm_run_debug {
        while true {
            switch vcpu.runToExit() {
            case .interrupted: continue
            case .debug(let debug): return debug
            case let other: throw Unexpected(exit: exitName(other))
            }
        }
    }
    private struct Unexpected: Error { let exit: String }

    @Test func aStepIsOneInstruction() throws {
        // nop; out %al, $0x80; cpuid; rep stosb; hlt
        let guest = try Guest([0x90, 0xe6, 0x80, 0x0f, 0xa2, 0xf3, 0xaa, 0xf4])
        try guest.vcpu.setGuestDebug(request(CKVM_GUESTDBG_SINGLESTEP))
        let first = try debugExit(guest.vcpu)
        #expect(first.exception == 1 && first.pc == Guest.code + 1 && first.dr6 & 0x400f == 0x4000)
        // A port access exits first; the step is done when it is completed.
        #expect(guest.vcpu.exit() == "io out 128 1")
        #expect(try debugExit(guest.vcpu).pc == Guest.code + 3)
        // An instruction that the monitor emulates.
        #expect(try debugExit(guest.vcpu).pc == Guest.code + 5)
        try guest.change {
            $0.rcx = 2
            $0.rdi = 0x100000
        }
        // An iteration is a step.
        #expect(try debugExit(guest.vcpu).pc == Guest.code + 5 && guest.vcpu.registers().rcx == 1)
        #expect(try debugExit(guest.vcpu).pc == Guest.code + 5 && guest.vcpu.registers().rcx == 0)
        // The engine looks at RCX once more, where a processor has finished.
        #expect(try debugExit(guest.vcpu).pc == Guest.code + 7)
        #expect(guest.vcpu.exit() == "halt")
    }

    @Test func breakpointsOfDebugRegisters() throws {
        // mov %al, (%rdi); mov (%rdi), %bl; nop; hlt
        let guest = try Guest([0x88, 0x07, 0x8a, 0x1f, 0x90, 0xf4])
        try guest.change { $0.rdi = 0x100003 }
        // DR0: execution of the nop. DR1: writes of 4 bytes. DR2: any access of 1 byte. DR3 is not enabled.
        let all = request(
            CKVM_GUESTDBG_USE_HW_BP, [Guest.code + 4, 0x100000, 0x100003, Guest.code],
            dr7: 0b10_1010 | 0b1101 << 20 | 0b0011 << 24)
        try guest.vcpu.setGuestDebug(all)
        let write = try debugExit(guest.vcpu)
        #expect(write.dr6 & 15 == 0b110 && write.pc == Guest.code + 2)
        let read = try debugExit(guest.vcpu)
        // The next instruction has a breakpoint, too.
        #expect(read.dr6 & 15 == 0b101 && read.pc == Guest.code + 4)
        #expect(try debugExit(guest.vcpu).dr6 & 15 == 1)
        try guest.vcpu.setGuestDebug(ckvm_guest_debug())
        #expect(guest.vcpu.exit() == "halt")
    }

    @Test func int3ExitsOnlyIfAskedFor() throws {
        let guest = try Guest([0x90, 0xcc])
        try guest.vcpu.setGuestDebug(request(CKVM_GUESTDBG_USE_SW_BP))
        let exit = try debugExit(guest.vcpu)
        #expect(exit.exception == 3 && exit.pc == Guest.code + 1)
        #expect(try guest.vcpu.registers().rip == Guest.code + 1)
        try guest.vcpu.setGuestDebug(ckvm_guest_debug())
        #expect(guest.vcpu.exit() == "shutdown")
    }

    @Test func unknownFlagsAreRefused() throws {
        let guest = try Guest([0xf4])
        for flag in [UInt32(1) << 2, 1 << 18, 1 << 31] {
            #expect(
                errno { () throws(Errno) in try guest.vcpu.setGuestDebug(request(flag)) } == .invalidArgument)
        }
    }

    /// A watched guest executes the same instructions, and ends in the same way.
    @Test func theGuestCountsTheSame() throws {
        // mov $1000, %ecx; 1: push %rcx; pop %rcx; dec %ecx; jnz 1b; hlt
        let code: [UInt8] = [0xb9, 0xe8, 3, 0, 0, 0x51, 0x59, 0xff, 0xc9, 0x75, 0xfa, 0xf4]
        func time(_ debug: ckvm_guest_debug) throws -> UInt64 {
            let guest = try Guest(code)
            try guest.vcpu.setGuestDebug(debug)
            var exit = guest.vcpu.runToExit()
            while case .interrupted = exit { exit = guest.vcpu.runToExit() }
            #expect(exitName(exit) == "halt")
            return guest.model.kvm.now()
        }
        let elsewhere = request(CKVM_GUESTDBG_USE_HW_BP, [0x200000, 0x200008], dr7: 0b1010 | 0b1001 << 20)
        #expect(try time(ckvm_guest_debug()) == time(elsewhere))
    }

    /// The bytes behind a breakpoint of the debugger, and the end of a page.
    @Test func privateMemoryIsAccessible() throws {
        let guest = try Guest([0xf4], isPrivate: true)
        func read(_ gpa: UInt64, _ count: Int) throws -> [UInt8] {
            var bytes = [UInt8](repeating: 0xee, count: count)
            try bytes.withUnsafeMutableBytes { try guest.model.vm.readPrivate(gpa: gpa, into: $0) }
            return bytes
        }
        #expect(try read(Guest.code, 1) == [0xf4])
        try [UInt8](arrayLiteral: 0x90, 0xf4).withUnsafeBytes {
            try guest.model.vm.writePrivate(gpa: Guest.code, from: $0)
        }
        #expect(try read(Guest.code, 2) == [0x90, 0xf4])
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rip == Guest.code + 2)
        for (gpa, count) in [(Guest.code + 4095, 2), (Guest.ram, 1), (.max, 1), (Guest.code, 0)]
            as [(UInt64, Int)]
        {
            #expect(throws: Errno.badAddress) { try read(gpa, count) }
        }
    }
}
