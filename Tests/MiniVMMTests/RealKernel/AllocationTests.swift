// SPDX-License-Identifier: MIT
import CAllocationCounter
import SystemPackage
import Testing

@testable import MiniVMM

@Suite(
    "Allocations", .enabled(if: TrapHost.canTrap, TrapHost.reason),
    .enabled(if: allocation_counter_works(), "a sanitizer has its own malloc"))
struct AllocationTests {
    /// Allocations of a run loop on this thread until the guest ends, after `exits` port exits.
    private func allocations(exits: UInt32) throws -> UInt64 {
        // mov $exits, %ecx; 1: out %al, $0x80; in $0x80, %al; dec %ecx; jnz 1b; xor %eax, %eax; out %al, $0xf4
        let count = (0..<4).map { UInt8(truncatingIfNeeded: exits >> (UInt32($0) * 8)) }
        let code = [0xb9] + count + [0xe6, 0x80, 0xe4, 0x80, 0xff, 0xc9, 0x75, 0xf8, 0x31, 0xc0, 0xe6, 0xf4]
        var configuration = MachineConfiguration()
        configuration.ramSize = 4 << 20
        let machine = try Machine(
            backend: MemslotTrapKVM(over: try #require(TrapHost.kvm)), configuration: configuration,
            image: .flat(code), console: Console(nil))
        var loop = RunLoop(machine: machine, vcpu: machine.vcpus[0])
        let before = allocation_count()
        _ = loop.run()
        let made = allocation_count() - before
        #expect(loop.statistics.exits == UInt64(exits) * 2 + 1)
        return made
    }

    @Test func theCounterCounts() {
        let before = allocation_count()
        let array = [UInt64](repeating: before, count: 1000)
        #expect(array.count == 1000 && allocation_count() > before)
    }

    @Test func anExitAllocatesNothing() throws {
        // Warm up: one-time allocations for the types' metadata.
        _ = try allocations(exits: 10)
        let few = try allocations(exits: 10)
        let many = try allocations(exits: 2000)
        #expect(many == few, "\(few) for 21 exits, \(many) for 4001")
    }
}
