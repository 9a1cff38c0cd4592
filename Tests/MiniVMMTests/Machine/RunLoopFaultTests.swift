// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Run loop: memory faults")
struct RunLoopFaultTests {
    private static let page: UInt64 = 0x30_0000

    @Test func aPageIsConvertedToTheWantedState() throws {
        let bench = try MachineBench { $0.aliases = .two }
        let machine = bench.machine
        let seen = Collected<PageState?>()
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 0))
        bench.vcpu.then { vcpu in
            seen.add(machine.memory.state(at: Self.page))
            vcpu.runPage.exitReason = CKVM_EXIT_INTR
        }
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 8))
        #expect(bench.run().kind == "halted")
        #expect(seen.all == [.shared])
        #expect(machine.memory.state(at: Self.page) == .private)
        let statistics = machine.statistics
        #expect(statistics.memoryFaults == 2 && statistics.conversions == 2 && statistics.raceFaults == 0)
        #expect(bench.events.all.count { $0 == "memory-fault convert" } == 2)
    }

    @Test func severalPagesAndPartsOfPagesAreCovered() throws {
        let bench = try MachineBench { $0.aliases = .two }
        bench.vcpu.then(FakeVCPU.fault(Self.page + 4090, flags: 0, size: 10))
        bench.vcpu.then(FakeVCPU.fault(Self.page + 0x8000, flags: 0, size: 0))
        #expect(bench.run().kind == "halted")
        for (offset, state) in [
            (0, PageState.shared), (0x1000, .shared), (0x2000, .private), (0x8000, .shared),
        ]
            as [(UInt64, PageState)]
        {
            #expect(bench.machine.memory.state(at: Self.page + offset) == state)
        }
    }

    /// Ordinary on an in-place kernel: by the time the monitor checks, the page is in the wanted state.
    @Test func aRaceIsRetriedAndNotConvertedBack() throws {
        let bench = try MachineBench { $0.aliases = .two }
        bench.file.forget()
        for _ in 0..<100 { bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 8)) }
        #expect(bench.run().kind == "halted")
        #expect(bench.file.calls.isEmpty)
        #expect(bench.machine.statistics.raceFaults == 100)
        #expect(bench.events.all.count { $0 == "memory-fault race" } == 100)
    }

    /// With one alias the attribute decides the kind of an access. A fault means that the page was converted during the
    /// access. It may have been converted again before the monitor checks, and another conversion would undo that.
    @Test func withOneAliasAFaultIsNeverARequest() throws {
        let bench = try MachineBench()
        bench.file.forget()
        for flags in [0, 8, 0, 0] as [UInt64] { bench.vcpu.then(FakeVCPU.fault(Self.page, flags: flags)) }
        #expect(bench.run().kind == "halted")
        #expect(bench.file.calls.isEmpty)
        #expect(bench.machine.statistics.raceFaults == 4 && bench.machine.statistics.conversions == 0)
        #expect(bench.events.all.count { $0 == "memory-fault race" } == 4)

        let endless = try MachineBench()
        endless.vcpu.forEver(FakeVCPU.fault(Self.page, flags: 0))
        let outcome = endless.run()
        guard case .faultLoop(_, _, _, _, .oneAlias) = outcome else {
            Issue.record("\(outcome)")
            return
        }
    }

    @Test func unknownFlagsAreAnError() throws {
        for flags in [1, 2, 4, 16, 8 | 1, 1 << 63, .max] as [UInt64] {
            let bench = try MachineBench { $0.aliases = .two }
            bench.file.forget()
            bench.vcpu.then(FakeVCPU.fault(Self.page, flags: flags))
            let outcome = bench.run()
            #expect(outcome.exitStatus == 125 && outcome.description.contains("does not support 0x"))
            #expect(bench.file.calls.isEmpty)
        }
    }

    @Test func failedMemoryIsNotARequest() throws {
        let bench = try MachineBench { $0.aliases = .two }
        bench.file.forget()
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 0, Errno(rawValue: 133)))
        let outcome = bench.run()
        #expect(outcome.exitStatus == 125 && outcome.description.contains("has failed (EHWPOISON)"))
        #expect(bench.file.calls.isEmpty)
    }

    @Test func accessesOutsideRAMAreTheGuestsFault() throws {
        let cases: [(UInt64, UInt64)] = [
            (4 << 20, pageSize), (1 << 46, pageSize), (4 << 20 - 4096, 8192), (0, .max), (.max, 1),
            (.max, .max), (.max - 4095, 4096), (1 << 63, 1 << 63), (Self.page, .max - Self.page),
        ]
        for (gpa, size) in cases {
            let bench = try MachineBench { $0.aliases = .two }
            bench.vcpu.then(FakeVCPU.fault(gpa, flags: 0, size: size))
            let outcome = bench.run()
            #expect(outcome.exitStatus == 126, "\(gpa) \(size): \(outcome)")
            #expect(outcome.description.contains("RAM ends at 0x400000"))
        }
    }

    /// KVM leaves the reason of an earlier exit in place; without EFAULT it means nothing.
    @Test func theReasonCountsOnlyWithItsErrno() throws {
        let bench = try MachineBench { $0.aliases = .two }
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 0, .resourceTemporarilyUnavailable))
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 0, .interrupted))
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 0, .invalidArgument))
        #expect(bench.run().exitStatus == 125)
        #expect(bench.machine.statistics.memoryFaults == 0)
    }

    @Test func aConversionThatFailsEndsTheMachine() throws {
        let bench = try MachineBench {
            $0.aliases = .two
            $0.retry = RetryPolicy(attempts: 2)
        }
        bench.file.trouble(page: Self.page / pageSize, times: .max, target: .shared)
        bench.vcpu.then(FakeVCPU.fault(Self.page, flags: 0))
        let outcome = bench.run()
        #expect(outcome.exitStatus == 125 && outcome.description.contains("in use after 2 calls"))
        #expect(bench.machine.statistics.failedConversions == 1)
        #expect(bench.machine.statistics.busyAnswers == 2)
    }

    // MARK: loops

    @Test func anEndlessFaultLoopIsNoticed() throws {
        let bench = try MachineBench {
            $0.aliases = .two
            $0.faultPolicy = .reenter
        }
        bench.vcpu.change { $0.rip = 0x1234 }
        bench.vcpu.forEver(FakeVCPU.fault(Self.page, flags: 0))
        let outcome = bench.run()
        guard case .faultLoop(0, let fault, let faults, 0x1234, .notConverted) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(fault.gpa == Self.page && outcome.exitStatus == 126)
        // The registers were compared nine times and were the same each time.
        #expect(faults == 2304 && bench.vcpu.entries == 2304)
        #expect(bench.file.truth.value(at: Self.page) == .private)
    }

    @Test func aPageWantedInBothStatesIsALoopToo() throws {
        let bench = try MachineBench { $0.aliases = .two }
        let turn = Collected<Void>()
        bench.vcpu.forEver { vcpu throws(Errno) in
            turn.add(())
            try FakeVCPU.fault(Self.page, flags: turn.all.count % 2 == 0 ? 8 : 0)(vcpu)
        }
        let outcome = bench.run()
        guard case .faultLoop(_, _, _, _, .undone) = outcome else {
            Issue.record("\(outcome)")
            return
        }
    }

    @Test func progressOrAnotherExitIsNotALoop() throws {
        let moving = try MachineBench { $0.aliases = .two }
        for _ in 0..<5000 {
            moving.vcpu.then { vcpu throws(Errno) in
                vcpu.change { $0.rcx &+= 1 }
                try FakeVCPU.fault(Self.page, flags: 8)(vcpu)
            }
        }
        #expect(moving.run().kind == "halted")

        let leaving = try MachineBench { $0.aliases = .two }
        for step in 0..<5000 {
            if step % 2000 == 0 { leaving.vcpu.out(0x80, [0]) }
            leaving.vcpu.then(FakeVCPU.fault(Self.page, flags: 8))
        }
        #expect(leaving.run().kind == "halted")
    }

    @Test func unreadableRegistersProveNoLoop() throws {
        let bench = try MachineBench {
            $0.aliases = .two
            $0.faultPolicy = .reenter
        }
        bench.vcpu.refuseRegisters()
        bench.vcpu.forEver(FakeVCPU.fault(Self.page, flags: 0))
        #expect(bench.machine.run(timeout: .milliseconds(100)).exitStatus == 124)
    }
}
