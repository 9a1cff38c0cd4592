// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Run loop: how a guest ends")
struct RunLoopExitTests {
    @Test func everyExitStatus() throws {
        for status in 0...255 as ClosedRange<UInt8> {
            let bench = try MachineBench()
            bench.vcpu.out(0xf4, [status])
            let outcome = bench.run()
            guard case .exited(status) = outcome else {
                Issue.record("\(status): \(outcome)")
                continue
            }
            // Statuses above 123 belong to the monitor.
            #expect(outcome.exitStatus == Int32(min(status, 123)))
            #expect(outcome.description.contains("\(status)"))
        }
    }

    @Test func theFirstByteOfAWideOrLongExitCounts() throws {
        let wide = try MachineBench()
        wide.vcpu.out(0xf4, [3, 9, 9, 9], size: 4)
        #expect(wide.run().exitStatus == 3)
        let long = try MachineBench()
        long.vcpu.out(0xf4, [5, 9, 9])
        #expect(long.run().exitStatus == 5)
        let none = try MachineBench()
        none.vcpu.out(0xf4, [])
        #expect(none.run().kind == "halted")
    }

    @Test func haltEndsTheMachineOnceEveryVCPUHalted() throws {
        let bench = try MachineBench(FakeBackend()) { $0.vcpus = 3 }
        bench.backend.vm.vcpus[2].out(0xe9, Array("late".utf8))
        let outcome = bench.run()
        #expect(outcome.kind == "halted" && outcome.exitStatus == 127)
        #expect(bench.console.text == "late")
        #expect(bench.backend.vm.vcpus.map(\.entries) == [1, 1, 2])
    }

    @Test func oneVCPUEndsForAll() throws {
        for inTurns in [true, false] {
            let bench = try MachineBench(FakeBackend(inTurns: inTurns)) { $0.vcpus = 4 }
            for vcpu in bench.backend.vm.vcpus.dropLast() {
                vcpu.forEver { $0.runPage.exitReason = CKVM_EXIT_INTR }
            }
            bench.backend.vm.vcpus[3].out(0xf4, [9])
            #expect(bench.run().exitStatus == 9)
        }
    }

    /// Exit reasons that end the guest or the monitor, and their descriptions.
    @Test func everyOtherReasonIsReported() throws {
        let cases: [(UInt32, String, Int32)] = [
            (CKVM_EXIT_SHUTDOWN, "triple fault", 126),
            (CKVM_EXIT_FAIL_ENTRY, "refused to enter the guest, reason 0x0", 125),
            (CKVM_EXIT_SYSTEM_EVENT, "KVM_EXIT_SYSTEM_EVENT of type", 125),
            (CKVM_EXIT_INTERNAL_ERROR, "KVM_EXIT_INTERNAL_ERROR", 126),
            (CKVM_EXIT_UNKNOWN, "reason 0", 125), (CKVM_EXIT_DEBUG, "reason 4", 125),
            (CKVM_EXIT_MEMORY_FAULT, "reason 39", 125), (.max, "reason 4294967295", 125),
        ]
        for (reason, words, status) in cases {
            let bench = try MachineBench()
            bench.vcpu.exit(reason)
            let outcome = bench.run()
            #expect(outcome.exitStatus == status, "\(reason): \(outcome)")
            #expect(outcome.description.contains(words), "\(reason): \(outcome)")
            #expect(outcome.description.contains("RIP 0x"), "\(reason): \(outcome)")
        }
    }

    @Test func unreadableRegistersAreOmitted() throws {
        let bench = try MachineBench()
        bench.vcpu.refuseRegisters()
        bench.vcpu.exit(CKVM_EXIT_SHUTDOWN)
        let outcome = bench.run()
        #expect(outcome.exitStatus == 126 && !outcome.description.contains("RIP"))
    }

    /// KVM answers VMMCALL but cannot read its length: private code on a CPU that does not save the next RIP.
    @Test func aCallThatKVMCannotStepOverIsSteppedOver() throws {
        @Sendable func failingStep(_ vcpu: FakeVCPU) {
            var error = ckvm_run_internal()
            error.suberror = CKVM_INTERNAL_ERROR_EMULATION
            vcpu.runPage.internalError = error
            vcpu.runPage.exitReason = CKVM_EXIT_INTERNAL_ERROR
        }
        @Sendable func call(_ vcpu: FakeVCPU) {
            vcpu.change { $0.rip = 0x10_0010 }
            vcpu.runPage.hypercall = ckvm_run_hypercall()
            vcpu.runPage.exitReason = CKVM_EXIT_HYPERCALL
        }
        let bench = try MachineBench()
        for _ in 0..<2 {
            bench.vcpu.then { call($0) }
            bench.vcpu.then { failingStep($0) }
        }
        bench.vcpu.then { vcpu throws(Errno) in
            #expect(try vcpu.registers().rip == 0x10_0013)
            vcpu.runPage.exitReason = CKVM_EXIT_HLT
        }
        #expect(bench.run().kind == "halted")

        // KVM had stepped over the call, and failed at the next instruction.
        let other = try MachineBench()
        other.vcpu.then { call($0) }
        other.vcpu.then {
            $0.change { $0.rip = 0x10_0013 }
            failingStep($0)
        }
        #expect(other.run().kind == "crashed")
        // Stepped over once, not repeatedly.
        let again = try MachineBench()
        again.vcpu.then { call($0) }
        again.vcpu.then { failingStep($0) }
        again.vcpu.then {
            $0.change { $0.rip = 0x10_0010 }
            failingStep($0)
        }
        #expect(again.run().kind == "crashed")
    }

    @Test func internalErrorsDistinguishEmulation() throws {
        for (suberror, words) in [(1, "could not execute an instruction"), (3, "suberror 3")]
            as [(UInt32, String)]
        {
            let bench = try MachineBench()
            bench.vcpu.then { vcpu in
                var error = ckvm_run_internal()
                error.suberror = suberror
                vcpu.runPage.internalError = error
                vcpu.runPage.exitReason = CKVM_EXIT_INTERNAL_ERROR
            }
            #expect(bench.run().description.contains(words))
        }
    }

    @Test func accessesWithoutRAMOrDeviceAreDescribed() throws {
        for (write, words) in [(0, "read 4 bytes at 0xfee00000"), (1, "wrote 4 bytes at 0xfee00000")]
            as [(UInt8, String)]
        {
            let bench = try MachineBench()
            bench.vcpu.then { vcpu in
                var access = ckvm_run_mmio()
                access.phys_addr = 0xfee0_0000
                access.len = 4
                access.is_write = write
                vcpu.runPage.mmio = access
                vcpu.runPage.exitReason = CKVM_EXIT_MMIO
            }
            let outcome = bench.run()
            #expect(outcome.exitStatus == 126 && outcome.description.contains(words), "\(outcome)")
            #expect(bench.events.all.contains("mmio"))
        }
    }

    /// Errnos of KVM_RUN. EAGAIN and EINTR are retried.
    @Test func errorsOfTheCallItself() throws {
        for (errno, words) in [
            (Errno.badAddress, "without an address, at RIP 0x"), (.invalidArgument, "KVM_RUN: "),
            (Errno(rawValue: 133), "EHWPOISON"), (.ioError, "(EIO) on vCPU 0"),
        ] {
            let bench = try MachineBench()
            bench.vcpu.then { _ throws(Errno) in throw errno }
            let outcome = bench.run()
            #expect(outcome.exitStatus == 125 && outcome.description.contains(words), "\(outcome)")
        }
        let bench = try MachineBench()
        for errno in [Errno.resourceTemporarilyUnavailable, .interrupted] {
            bench.vcpu.then { _ throws(Errno) in throw errno }
        }
        bench.vcpu.exit(CKVM_EXIT_INTR)
        bench.vcpu.out(0xf4, [1])
        #expect(bench.run().exitStatus == 1)
    }

    @Test func aTimeLimitEndsAnEndlessGuest() throws {
        for inTurns in [true, false] {
            let bench = try MachineBench(FakeBackend(inTurns: inTurns)) { $0.vcpus = 2 }
            for vcpu in bench.backend.vm.vcpus { vcpu.forEver { $0.runPage.exitReason = CKVM_EXIT_INTR } }
            let outcome = bench.machine.run(timeout: .milliseconds(20))
            #expect(outcome.exitStatus == 124, "\(outcome)")
            #expect(outcome.description.contains("0.02 s"))
        }
    }

    @Test func theFirstOutcomeWins() throws {
        let bench = try MachineBench()
        bench.machine.stop(.interrupted(signal: 2))
        bench.machine.stop(.timeLimit(.nanoseconds(1)))
        bench.vcpu.out(0xf4, [1])
        #expect(bench.run().exitStatus == 130)
        #expect(bench.vcpu.entries == 0, "a machine stopped before its start must not run")
    }

    @Test func outcomesHaveTheDocumentedStatuses() {
        let fault = MemoryFault(gpa: 0x5000, size: pageSize, flags: 0)
        let cases: [(Outcome, Int32, String)] = [
            (.halted, 127, "halted"), (.quit, 130, "quit"),
            (.crashed(vcpu: 1, Crash(.tripleFault(.unknown))), 126, "crashed"),
            (.faultLoop(vcpu: 1, fault, faults: 3, rip: 4, .undone), 126, "fault-loop"),
            (.timeLimit(.milliseconds(1500)), 124, "time-limit"),
            (.interrupted(signal: 15), 143, "interrupted"),
            (.failed(.configuration(.vcpus(0))), 125, "failed"),
        ]
        for (outcome, status, kind) in cases {
            #expect(outcome.exitStatus == status && outcome.kind == kind)
            #expect(!outcome.description.isEmpty)
        }
        #expect(Outcome.timeLimit(.milliseconds(1500)).description.contains("1.5 s"))
        #expect(Outcome.timeLimit(.seconds(2)).description.contains("of 2 s"))
    }
}
