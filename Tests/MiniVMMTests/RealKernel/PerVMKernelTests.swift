// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// The per-VM adapter over a kernel that has the attributes: behaviour that only a real kernel can show.
@Suite(
    "PerVMAttributesKVM on this machine's KVM", .serialized,
    .enabled(if: BackendUnderTest.perVM.absence == nil, BackendUnderTest.perVM.absence ?? ""))
struct PerVMKernelTests {
    /// A guest in real mode whose code is one shared page at 0x1000.
    private final class RealModeGuest {
        let vm: any KVMVirtualMachine
        let file: any KVMGuestMemfd
        let vcpu: any KVMVCPU
        private let view: any HostMapping
        private let watchdog: TrapWatchdog

        init(_ code: [UInt8]) throws {
            let backend = try BackendUnderTest.perVM.open()
            vm = try backend.createVM(.softwareProtected, sharedBit: nil)
            file = try vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
            view = try file.map(offset: 0, length: pageSize)
            try view.put(0, code)
            try vm.setUserMemoryRegion2(TrapFileTests.region(file, slot: 0, gpa: 0x1000))
            vcpu = try vm.createVCPU(id: 0)
            try vcpu.setCPUID(backend.supportedCPUID())
            var special = try vcpu.specialRegisters()
            special.cs.base = 0
            special.cs.selector = 0
            try vcpu.setSpecialRegisters(special)
            watchdog = TrapWatchdog(seconds: 600, [vcpu])
            try start()
        }

        func start() throws {
            var registers = ckvm_regs()
            registers.rip = 0x1000
            registers.rflags = 2
            try vcpu.setRegisters(registers)
        }

        /// Binds four pages at 0x3000.
        func bind(_ flags: GuestMemfdFlags) throws -> any KVMGuestMemfd {
            let file = try vm.createGuestMemfd(size: 4 * pageSize, flags: flags)
            try vm.setUserMemoryRegion2(TrapFileTests.region(file, slot: 1, gpa: 0x3000))
            return file
        }

        func unbind() throws {
            var region = ckvm_userspace_memory_region2()
            region.slot = 1
            try vm.setUserMemoryRegion2(region)
        }
    }

    /// mov 0x3000, %al; out %al, $0xf4
    private let read: [UInt8] = [0xa0, 0x00, 0x30, 0xe6, 0xf4]

    /// A slot whose file has been closed: each access is a memory fault, until the slot is deleted.
    @Test func aShutAliasIsAMemoryFault() throws {
        let guest = try RealModeGuest(read)
        var dead: (any KVMGuestMemfd)? = try guest.bind([])
        #expect(guest.vcpu.runToExit().isPort(0xf4))
        dead = nil
        for _ in 0..<3 {
            try guest.start()
            guard case .memoryFault(let fault, .badAddress) = guest.vcpu.runToExit() else {
                Issue.record("no memory fault")
                return
            }
            #expect(fault == MemoryFault(gpa: 0x3000, size: pageSize, flags: CKVM_MEMORY_EXIT_FLAG_PRIVATE))
        }
        try guest.unbind()
        try guest.start()
        guard case .mmio(let access) = guest.vcpu.runToExit() else {
            Issue.record("no MMIO")
            return
        }
        #expect(access.phys_addr == 0x3000 && access.is_write == 0)
        withExtendedLifetime(dead) {}
    }

    /// incb 0x3000; mov 0x3000, %al; out %al, $0xf4
    @Test func theGuestsDataIsZeroAfterEachConversion() throws {
        let guest = try RealModeGuest([0xfe, 0x06, 0x00, 0x30] + read)
        let file = try guest.bind([.mmap])
        let view = try file.map(offset: 0, length: pageSize)
        func count() throws -> UInt8? {
            try guest.start()
            guard guest.vcpu.runToExit().isPort(0xf4) else { return nil }
            return unsafe guest.vcpu.runPage.withIOData(guest.vcpu.runPage.io) { unsafe $0.first } ?? nil
        }
        for state in [PageState.private, .shared, .private, .shared] {
            try file.convert(0, 4 * pageSize, to: state)
            #expect(try count() == 1 && count() == 2)
            #expect((try? view.bytes(0, 1)) == (state == .shared ? [2] : nil))
            try file.allocate(punchHole: true, offset: 0, length: pageSize)
            #expect(try count() == 1)
        }
        // The states belong to the file, wherever it is bound.
        try guest.unbind()
        try file.convert(0, 4 * pageSize, to: .private)
        try guest.vm.setUserMemoryRegion2(TrapFileTests.region(file, slot: 1, gpa: 0x3000))
        #expect(try count() == 1)
        #expect(throws: Errno.badAddress) { try view.bytes(0, 1) }
    }

    /// Guests use a page while the host converts it: they fault now and then, and each fault is a race.
    @Test(arguments: [1, 4]) func conversionsWhileVCPUsRunOnThePage(vcpus: Int) throws {
        // mov 0x38(%rdi), %rbx; 1: lock incq (%rbx); jmp 1b
        let code: [UInt8] = [0x48, 0x8b, 0x5f, 0x38, 0xf0, 0x48, 0xff, 0x03, 0xeb, 0xfa]
        var configuration = MachineConfiguration()
        configuration.vcpus = vcpus
        configuration.ramSize = 4 << 20
        configuration.contents = .zero
        let machine = try Machine(
            backend: BackendUnderTest.perVM.open(), configuration: configuration, image: try .flat(code),
            console: Console(nil))
        let threads = TrapThreads()
        let outcomes = Collected<Outcome>()
        threads.start { outcomes.add(machine.run(timeout: .seconds(600))) }
        let gpa = machine.layout.free.lowerBound
        let page = try #require(PageRange(start: gpa, size: pageSize))
        for _ in 0..<200 {
            for state in [PageState.shared, .private] {
                try machine.converter.convert(
                    ConversionRequest(range: page, to: state, contents: .unspecified), by: .monitor)
                #expect((try? machine.memory.readWord(gpa: gpa)) == nil || state == .shared)
            }
        }
        machine.stop(.interrupted(signal: 2))
        #expect(threads.join(seconds: 600))
        #expect(outcomes.all.map(\.exitStatus) == [130], "\(outcomes.all)")
        #expect(machine.statistics.memoryFaults == machine.statistics.raceFaults)
    }
}

extension Exit {
    fileprivate func isPort(_ port: UInt16) -> Bool {
        if case .io(let io) = self { io.port == port } else { false }
    }
}
