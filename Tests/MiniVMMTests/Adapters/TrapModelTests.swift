// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// The carving and the bookkeeping, without a kernel: every call to the base backend is visible and can be refused.
@Suite("MemslotTrapKVM: carving", .timeLimit(.minutes(120)))
struct TrapModelTests {
    static let bit: UInt64 = 1 << 40
    static let pages: UInt64 = 6
    /// The region starts here, and covers the window from its second page on.
    static let gpa: UInt64 = 0x10_0000
    static let chunk: UInt64 = 256 << 20

    struct Fixture {
        let base: ScriptedKVM
        let vm: any KVMVirtualMachine
        let file: any KVMGuestMemfd
        let view: any HostMapping
        let vcpu: any KVMVCPU
        /// The file offset of the window of six pages.
        let start: UInt64
        /// The states of the window's pages.
        var states: [PageState]

        init(protectable: Bool = true, at start: UInt64 = 0) throws {
            self.start = start
            base = ScriptedKVM(protectableMappings: protectable)
            let kvm = MemslotTrapKVM(over: base, backing: .guestMemfd)
            vm = try kvm.createVM(.softwareProtected, sharedBit: 40)
            file = try vm.createGuestMemfd(size: start + pages * pageSize, flags: [.mmap, .initShared])
            view = try file.map(offset: start, length: pages * pageSize)
            vcpu = try vm.createVCPU(id: 0)
            states = Array(repeating: .shared, count: Int(pages))
            try vm.setUserMemoryRegion2(
                TrapFileTests.region(
                    file, gpa: gpa, size: (pages - 1) * pageSize, offset: start + pageSize))
        }

        mutating func convert(_ pages: Range<UInt64>, to state: PageState) throws {
            try file.convert(
                start + pages.lowerBound * pageSize, UInt64(pages.count) * pageSize, to: state)
            for page in pages { states[Int(page)] = state }
        }

        /// The memslots expected for the states: one per run of the pages that the region covers, split at chunk
        /// boundaries.
        var expectedTable: [[UInt64]] {
            var table: [[UInt64]] = []
            for page in 1..<pages {
                let state = states[Int(page)]
                let offset = start + page * pageSize
                if page > 1, state == states[Int(page) - 1], offset % chunk != 0 {
                    table[table.count - 1][1] += pageSize
                } else {
                    let alias = state == .shared ? bit : 0
                    table.append([(gpa + (page - 1) * pageSize) | alias, pageSize, offset])
                }
            }
            return table.sorted { $0[0] < $1[0] }
        }

        /// Invariants after every call, whether or not it changed anything.
        func check() throws {
            #expect(base.vm.table == expectedTable)
            for page in 0..<pages {
                let isReadable = (try? view.bytes(page * pageSize, 1)) != nil
                #expect(isReadable == (states[Int(page)] == .shared))
            }
        }
    }

    /// Every range, in both directions, from every state of six pages, with both kinds of mappings, and across a chunk
    /// boundary.
    @Test(arguments: [(true, 0), (false, 0), (true, chunk - 3 * pageSize)] as [(Bool, UInt64)])
    func `the memslots match the runs of the map after every conversion`(
        protectable: Bool, start: UInt64
    ) throws {
        var fixture = try Fixture(protectable: protectable, at: start)
        try fixture.check()
        for states in 0..<1 << Self.pages as Range<UInt64> {
            for first in 0..<Self.pages {
                for end in first + 1...Self.pages where (states ^ first ^ end) % 3 == 0 {
                    for state in PageState.allCases {
                        for page in 0..<Self.pages {
                            try fixture.convert(
                                page..<page + 1, to: states >> page & 1 == 1 ? .private : .shared)
                        }
                        try fixture.convert(first..<end, to: state)
                        try fixture.check()
                    }
                }
            }
        }
    }

    @Test func `a conversion touches only the memslots that change`() throws {
        var fixture = try Fixture()
        try fixture.convert(2..<3, to: .private)
        try fixture.convert(4..<5, to: .private)
        let before = fixture.base.vm.slots.withLock { $0.calls }
        // Page 5 joins page 4: two slots are deleted, one is created.
        try fixture.convert(5..<6, to: .private)
        try fixture.check()
        #expect(fixture.base.vm.slots.withLock { $0.calls } == before + 3)
        // Page 0 is in no region.
        try fixture.convert(0..<1, to: .private)
        #expect(fixture.base.vm.slots.withLock { $0.calls } == before + 3)
    }

    @Test func `if the backend refuses a memslot half way, it is ENOMEM and nothing has changed`() throws {
        var fixture = try Fixture()
        try fixture.convert(3..<4, to: .private)
        let request = ckvm_memory_attributes2.conversion(2 * pageSize, 3 * pageSize, .private)
        var refusals = 0
        while true {
            fixture.base.vm.slots.withLock { $0.callsUntilRefusal = refusals }
            let refusal = fixture.file.refusal(of: request)
            if refusal.errno == nil { break }
            #expect(refusal == (.noMemory, 2 * pageSize))
            try fixture.check()
            refusals += 1
            try #require(refusals < 20)
        }
        // Three slots were deleted and three created.
        #expect(refusals == 6)
        for page in 2...4 { fixture.states[page] = .private }
        try fixture.check()
        // A region that cannot be created leaves nothing behind.
        let file = try fixture.vm.createGuestMemfd(size: 2 * pageSize, flags: .initShared)
        try file.convert(0, to: .private)
        for refusal in 0..<2 {
            fixture.base.vm.slots.withLock { $0.callsUntilRefusal = refusal }
            #expect(throws: Errno.noMemory) {
                try fixture.vm.setUserMemoryRegion2(TrapFileTests.region(file, slot: 7, gpa: 0))
            }
            try fixture.check()
        }
    }

    @Test func `an access whose page already matches is finished without an exit`() throws {
        let fixture = try Fixture()
        try fixture.view.putWord(2 * pageSize, 0x1122_3344_5566_7788)
        let shared = Self.gpa + pageSize | Self.bit
        fixture.base.vm.vcpu.access(shared, length: 4)
        fixture.base.vm.vcpu.script.withLock {
            $0.append { vcpu in
                // The kernel gets the requested data, and has one more piece.
                #expect(vcpu.runPage.mmio.data.0 == 0x88 && vcpu.runPage.mmio.data.3 == 0x55)
                return nil
            }
        }
        guard case .halt = fixture.vcpu.runToExit() else {
            Issue.record("not HLT")
            return
        }
        // A write in one piece across a page boundary whose second page is wrong: nothing is written until
        // all of it can be.
        try fixture.file.convert(3 * pageSize, to: .private)
        fixture.base.vm.vcpu.access(shared + pageSize - 2, length: 4, write: [1, 2, 3, 4])
        for _ in 0..<2 {
            guard case .memoryFault(let fault, .badAddress) = fixture.vcpu.runToExit() else {
                Issue.record("no fault")
                return
            }
            #expect(fault == .on(Self.gpa + 2 * pageSize, wanting: .shared))
            #expect(try fixture.view.bytes(3 * pageSize - 2, 2) == [0, 0])
        }
        try fixture.file.convert(3 * pageSize, to: .shared)
        guard case .halt = fixture.vcpu.runToExit() else {
            Issue.record("not HLT")
            return
        }
        #expect(try fixture.view.bytes(3 * pageSize - 2, 4) == [1, 2, 3, 4])
    }

    @Test func `a pending access becomes MMIO when its memslot is deleted`() throws {
        let fixture = try Fixture()
        fixture.base.vm.vcpu.access(Self.gpa, length: 8, write: [9])
        guard case .memoryFault = fixture.vcpu.runToExit() else {
            Issue.record("no fault")
            return
        }
        try fixture.vm.setUserMemoryRegion2(ckvm_userspace_memory_region2())
        #expect(fixture.base.vm.table.isEmpty)
        guard case .mmio(let access) = fixture.vcpu.runToExit() else {
            Issue.record("not MMIO")
            return
        }
        #expect(access.phys_addr == Self.gpa && access.is_write == 1 && access.data.0 == 9)
        guard case .halt = fixture.vcpu.runToExit() else {
            Issue.record("not HLT")
            return
        }
    }

    @Test func `a closed file stays alive until its slot is deleted`() throws {
        let base = ScriptedKVM()
        let vm = try MemslotTrapKVM(over: base, backing: .guestMemfd)
            .createVM(.softwareProtected, sharedBit: 40)
        do {
            let file = try vm.createGuestMemfd(size: pageSize, flags: .initShared)
            try vm.setUserMemoryRegion2(TrapFileTests.region(file))
        }
        #expect(base.vm.table.count == 1)
        try vm.setUserMemoryRegion2(ckvm_userspace_memory_region2())
        #expect(base.vm.table.isEmpty)
    }

    @Test func `a region without a guest_memfd is passed on`() throws {
        let fixture = try Fixture()
        var plain = ckvm_userspace_memory_region2()
        plain.slot = 9
        plain.guest_phys_addr = 0x40_0000
        plain.memory_size = pageSize
        plain.userspace_addr = 0x1000
        try fixture.vm.setUserMemoryRegion2(plain)
        #expect(fixture.base.vm.table.contains([0x40_0000, pageSize, 0]))
        // An overlap through the other alias of a region is a collision too.
        plain.slot = 10
        plain.guest_phys_addr = Self.gpa | Self.bit
        #expect(throws: Errno.fileExists) { try fixture.vm.setUserMemoryRegion2(plain) }
        plain.slot = 9
        plain.memory_size = 0
        try fixture.vm.setUserMemoryRegion2(plain)
        try fixture.check()
    }

    @Test func `the gate's kick never ends a run, not even when its signal arrives late`() throws {
        let fixture = try Fixture()
        let threads = TrapThreads()
        let file = fixture.file
        fixture.base.vm.vcpu.script.withLock {
            $0.append { vcpu in
                // A conversion starts while the vCPU is inside. The vCPU exits for another reason.
                threads.start { try? file.convert(2 * pageSize, to: .private) }
                var waits = 0
                while !vcpu.runPage.immediateExit, waits < 300_000 {
                    TrapHost.pause(milliseconds: 1)
                    waits += 1
                }
                #expect(vcpu.runPage.immediateExit)
                return nil
            }
            // The signal of that kick interrupts the next entry, and the one after it is HLT again.
            $0.append { vcpu in
                #expect(!vcpu.runPage.immediateExit)
                return .interrupted
            }
            $0.append { _ in nil }
            // Not caused by the gate: the caller gets this interruption.
            $0.append { _ in .interrupted }
        }
        for _ in 0..<2 {
            guard case .halt = fixture.vcpu.runToExit() else {
                Issue.record("not HLT")
                return
            }
            #expect(threads.join(seconds: 600))
        }
        guard case .interrupted = fixture.vcpu.runToExit() else {
            Issue.record("not interrupted")
            return
        }
    }

    /// Creating a memslot costs KVM more the larger it is.
    @Test func `a conversion in a large region recreates no large memslot`() throws {
        let base = ScriptedKVM()
        let vm = try MemslotTrapKVM(over: base, backing: .guestMemfd)
            .createVM(.softwareProtected, sharedBit: 40)
        let file = try vm.createGuestMemfd(size: 8 * Self.chunk, flags: .initShared)
        try vm.setUserMemoryRegion2(TrapFileTests.region(file))
        let before = Set(base.vm.table)
        #expect(before.count == 8)
        try file.convert(5 * Self.chunk + pageSize, to: .private)
        let after = Set(base.vm.table)
        #expect(after.subtracting(before).count == 3)
        #expect(before.subtracting(after) == [[5 * Self.chunk | Self.bit, Self.chunk, 5 * Self.chunk]])
    }
}
