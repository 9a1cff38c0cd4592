// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import GuestPayloads
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Resource usage of machines", .enabled(if: TrapHost.canTrap, TrapHost.reason), .serialized)
struct ResourceTests {
    private var backend: MemslotTrapKVM {
        get throws { MemslotTrapKVM(over: try #require(TrapHost.kvm)) }
    }

    /// Descriptors of this process that are KVM's, eventfds, pipes or memory: other tests may have files open
    /// meanwhile.
    private func machineDescriptors() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count { name in
            let target =
                (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")) ?? ""
            return ["kvm", "memfd", "eventfd", "gmem"].contains { target.contains($0) }
        }
    }

    /// Resident bytes of this process, private or shared memory.
    private func resident() throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
        return (Int(text.split(separator: " ")[1]) ?? 0) * 4096
    }

    /// A VM with its file, mapping, slot and vCPU, created and dropped repeatedly.
    @Test func virtualMachinesLeaveNoDescriptorsBehind() throws {
        let backend = try backend
        func makeAndDrop() throws {
            let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
            let file = try vm.createGuestMemfd(size: 1 << 20, flags: [.mmap, .initShared])
            let mapping = try file.map(offset: 0, length: 1 << 20)
            var slot = ckvm_userspace_memory_region2()
            slot.flags = CKVM_MEM_GUEST_MEMFD
            slot.memory_size = 1 << 20
            slot.userspace_addr = mapping.address
            slot.guest_memfd = UInt32(bitPattern: file.descriptor)
            try vm.setUserMemoryRegion2(slot)
            _ = try vm.createVCPU(id: 0)
        }
        try makeAndDrop()
        let before = try machineDescriptors()
        // `make soak` runs this test alone, with 10,000 VMs and no tolerance. Otherwise other suites run their own
        // machines meanwhile; a leak of one descriptor per VM would be a thousand.
        let soak = ProcessInfo.processInfo.environment["MINIVMM_SOAK_VMS"].flatMap { Int($0) }
        let count = soak ?? 1_000
        for _ in 0..<count { try makeAndDrop() }
        let after = try machineDescriptors()
        #expect(after - before <= (soak == nil ? 200 : 0), "\(after - before) more after \(count) VMs")
        if soak != nil { print("\(count) VMs: \(before) descriptors before, \(after) after") }
    }

    @Test func machinesThatRanLeaveNothingBehind() throws {
        let backend = try backend
        func run() throws {
            var configuration = MachineConfiguration()
            configuration.ramSize = 4 << 20
            configuration.retry = RetryPolicy(attempts: 1)
            let machine = try Machine(
                backend: backend, configuration: configuration, image: try .flat([0xb0, 5, 0xe6, 0xf4]),
                console: Console(nil))
            #expect(machine.run(timeout: .seconds(600)).exitStatus == 5)
        }
        try run()
        let before = try machineDescriptors()
        for _ in 0..<250 { try run() }
        let after = try machineDescriptors()
        #expect(after - before < 200, "\(after - before) more")
    }

    @Test func aTerabyteOfRAMCostsNothingUntilItIsAccessed() throws {
        let before = try resident()
        var configuration = MachineConfiguration()
        configuration.ramSize = 1 << 40
        // One call: in chunks, KVM would rebuild its slots for every chunk.
        configuration.chunk = 1 << 40
        let hello = try #require(Catalogue.named("hello"))
        let console = Console(nil, keeps: true)
        let machine = try Machine(
            backend: try backend, configuration: configuration, image: try .flat(hello.image),
            console: console)
        #expect(machine.run(timeout: .seconds(600)).exitStatus == 0, "\(console.text)")
        #expect(machine.memory.attributes.runCount <= 4)
        // Other tests run meanwhile, and the address sanitizer keeps freed memory. Page tables alone would be 2 GiB.
        let grown = try resident() - before
        #expect(grown < 256 << 20, "\(grown >> 20) MiB")
    }
}
