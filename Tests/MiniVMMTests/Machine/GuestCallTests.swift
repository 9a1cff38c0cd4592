// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Calls of the guest")
struct GuestCallTests {
    private static let page: UInt64 = 0x30_0000
    private static let ram: UInt64 = 4 << 20
    private static let map: UInt64 = 12
    private static let (hold, release, peek, poke, state, yield) = (
        0x4d56_0001 as UInt64, 0x4d56_0002 as UInt64, 0x4d56_0003 as UInt64, 0x4d56_0004 as UInt64,
        0x4d56_0005 as UInt64, 0x4d56_0006 as UInt64
    )
    private static let corners: [UInt64] = [
        0, 1, 2, 0xfff, 0x1000, 0x1001, page, page + 8, ram - 8, ram - 7, ram - 4096, ram, ram + 4096,
        1 << 46,
        1 << 52 - 1, 1 << 52, 1 << 63, .max - 4095, .max - 7, .max,
    ]

    struct Call: Sendable {
        let number: UInt64
        let a0: UInt64
        let a1: UInt64
        let a2: UInt64
        init(_ number: UInt64, _ a0: UInt64 = 0, _ a1: UInt64 = 0, _ a2: UInt64 = 0) {
            (self.number, self.a0, self.a1, self.a2) = (number, a0, a1, a2)
        }
    }

    /// RAX and RCX after each call.
    private func play(
        _ calls: [Call], _ backend: FakeBackend = FakeBackend(),
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws -> (answers: [Int64], words: [UInt64], bench: MachineBench) {
        let bench = try MachineBench(backend, change)
        let seen = Collected<(Int64, UInt64)>()
        for call in calls { bench.vcpu.call(call.number, call.a0, call.a1, call.a2) { seen.add(($0, $1)) } }
        let outcome = bench.run()
        #expect(outcome.kind == "halted", "\(outcome)")
        return (seen.all.map(\.0), seen.all.map(\.1), bench)
    }

    @Test func toSharedAndBack() throws {
        let (answers, _, bench) = try play([
            Call(Self.state, Self.page), Call(Self.map, Self.page, 2, 0), Call(Self.state, Self.page),
            Call(Self.state, Self.page + 0x1fff), Call(Self.state, Self.page + 0x2000),
            Call(Self.map, Self.page, 1, 0x10), Call(Self.state, Self.page),
        ])
        #expect(answers == [1, 0, 0, 0, 1, 0, 1])
        #expect(bench.machine.statistics.hypercalls == 7 && bench.machine.statistics.conversions == 2)
        #expect(bench.events.all.count { $0 == "hypercall" } == 7)
    }

    @Test func pageSizeHintsAndUnknownBits() throws {
        for (attributes, answer) in [
            (0x0, 0), (0x1, 0), (0x2, 0), (0x3, -22), (0xf, -22), (0x10, 0), (0x12, 0), (0x13, -22),
            (0x20, -22), (0x80, -22), (0x100, 0), (0x110, 0), (0x200, 0), (0x300, 0), (0x400, -22),
            (0x1000, -22), (1 << 63, -22), (.max, -22),
        ] as [(UInt64, Int64)] {
            let (answers, _, bench) = try play([Call(Self.map, Self.page, 1, attributes)])
            #expect(answers == [answer], "\(attributes)")
            #expect(bench.machine.statistics.conversions == (answer == 0 ? 1 : 0))
        }
    }

    @Test func invalidRanges() throws {
        let wrong = [
            Call(Self.map, Self.page, 0), Call(Self.map, Self.page + 1, 1), Call(Self.map, Self.ram, 1),
            Call(Self.map, Self.ram - 4096, 2), Call(Self.map, 0, .max), Call(Self.map, Self.page, 1 << 52),
            Call(Self.map, .max - 4095, 1), Call(Self.map, 1 << 46, 1), Call(Self.map, .max, .max, .max),
        ]
        let (answers, _, bench) = try play(wrong)
        #expect(answers == wrong.map { _ in -22 })
        // Only the conversion at boot.
        #expect(bench.file.calls.count == 1)
    }

    @Test func theCallsContentPolicyOverridesTheMachines() throws {
        for configured in ContentPolicy.allCases {
            for (bits, asked) in [
                (0, configured), (0x100, .preserve), (0x200, .zero), (0x300, .unspecified),
            ] as [(UInt64, ContentPolicy)] {
                let backend = FakeBackend(promise: .undefined)
                let (answers, _, bench) = try play([Call(Self.map, Self.page, 1, bits)], backend) {
                    $0.contents = configured
                }
                #expect(answers == [asked == .preserve ? -95 : 0], "\(configured) \(bits)")
                #expect(bench.file.holes.count == (asked == .zero ? 1 : 0))
            }
        }
    }

    @Test func busyPagesAreAnErrnoForTheGuest() throws {
        let (answers, _, bench) = try play(
            [
                Call(Self.map, Self.page, 8), Call(Self.hold, Self.page + 0x2000, 2, 1),
                Call(Self.map, Self.page, 8, 0x10), Call(Self.release), Call(Self.map, Self.page, 8, 0x10),
                Call(Self.map, Self.page, 8), Call(Self.hold, Self.page, 1, 0),
                Call(Self.map, Self.page, 8, 0x10),
            ]
        ) { $0.retry = RetryPolicy(attempts: 3) }
        #expect(answers == [0, 0, -11, 0, 0, 0, 0, 0])
        #expect(bench.machine.statistics.failedConversions == 1)
        #expect(bench.machine.statistics.busyAnswers == 4)
        #expect(bench.machine.converter.holds.heldRanges == [])
    }

    /// A call that stops half-way tells the guest where to go on.
    @Test func failedConversionReturnsTheFirstPageNotConverted() throws {
        for (inUse, first) in [(RetryPolicy.InUse.bisect, Self.page + 0x2000), (.fail, Self.page)] {
            let (answers, words, _) = try play(
                [
                    Call(Self.map, Self.page, 8), Call(Self.hold, Self.page + 0x2000, 2, 1),
                    Call(Self.map, Self.page, 8, 0x10), Call(Self.state, Self.page + 0x1000),
                    Call(Self.map, Self.page + 0x2000, 1, 0x10), Call(Self.map, Self.page + 1, 8, 0x10),
                ]
            ) { $0.retry = RetryPolicy(attempts: 3, inUse: inUse) }
            #expect(answers == [0, 0, -11, inUse == .bisect ? 1 : 0, -11, -22])
            #expect(words[2] == first && words[4] == Self.page + 0x2000, "\(words)")
            // An invalid request leaves RCX as it was.
            #expect(words[0] == 8 && words[5] == 8)
        }
        // A policy that cannot be honoured has changed nothing.
        let (answers, words, _) = try play(
            [Call(Self.map, Self.page, 2, 0x100)], FakeBackend(promise: .undefined))
        #expect(answers == [-95] && words == [Self.page])
        // The range of two regions, of which the second is in use.
        let (both, first, _) = try play(
            [
                Call(Self.map, 0x1f_e000, 4), Call(Self.hold, 0x20_1000, 1, 1),
                Call(Self.map, 0x1f_e000, 4, 0x10),
            ]
        ) {
            $0.regions = 2
            $0.retry = RetryPolicy(attempts: 2, inUse: .fail)
        }
        #expect(both == [0, 0, -11] && first[2] == 0x20_0000)
    }

    @Test func theGuestsHoldsAreReleasedAtTheEnd() throws {
        let (_, _, bench) = try play([Call(Self.map, Self.page, 1), Call(Self.hold, Self.page, 1, 1)])
        #expect(bench.file.state.withLock { $0.held }.isEmpty)
    }

    @Test func holdsHaveLimits() throws {
        var calls = [Call(Self.map, Self.page, 64)]
        calls += (0..<65).map { _ in Call(Self.hold, Self.page, 1, 1) }
        calls += [Call(Self.release), Call(Self.hold, Self.page, 17, 0), Call(Self.hold, Self.page, 16, 0)]
        calls += [Call(Self.hold, Self.page, 1, 2), Call(Self.hold, 0, 1), Call(Self.hold, Self.page, 0)]
        let (answers, _, _) = try play(calls)
        #expect(answers == [0] + [Int64](repeating: 0, count: 64) + [-12, 0, -11, 0, -22, -14, -22])
    }

    @Test func aHoldMayNotSpanRegions() throws {
        let (answers, _, _) = try play([Call(Self.map, 0x1f_f000, 2), Call(Self.hold, 0x1f_f000, 2)]) {
            $0.regions = 2
        }
        #expect(answers == [0, -22])
    }

    @Test func theHostPeeksAndPokesSharedMemoryOnly() throws {
        let word: UInt64 = 0x1122_3344_5566_7788
        let (answers, words, bench) = try play([
            Call(Self.peek, Self.page), Call(Self.poke, Self.page, word), Call(Self.map, Self.page, 1),
            Call(Self.poke, Self.page + 8, word), Call(Self.peek, Self.page + 8),
            Call(Self.peek, Self.page + 10), Call(Self.peek, Self.page + 4092), Call(Self.peek, Self.ram - 7),
            Call(Self.poke, Self.ram, 1), Call(Self.peek, .max), Call(Self.peek, .max - 7),
        ])
        #expect(answers == [-14, -14, 0, 0, 0, 0, -14, -22, -22, -22, -22])
        #expect(words[4] == word && words[5] == word >> 16)
        #expect(bench.file.byte(Self.page + 8) == 0x88)
        #expect(bench.events.all.count { $0 == "host-access" } == 6)
    }

    @Test func unknownNumbersAreENOSYS() throws {
        let numbers: [UInt64] = [0, 1, 11, 13, 0x4d56_0000, 0x4d56_0007, 0xffff_ffff]
        let (answers, _, _) = try play(numbers.map { Call($0, 1, 2, 3) })
        #expect(answers == numbers.map { _ in -38 })
        // The port uses EAX: the upper half is ignored.
        let (high, _, _) = try play([Call(0xdead_0000_0000_000c, Self.page, 1)])
        #expect(high == [0])
    }

    @Test func yieldLetsOtherVCPUsRun() throws {
        let bench = try MachineBench { $0.vcpus = 2 }
        let order = Collected<Int>()
        for vcpu in bench.backend.vm.vcpus {
            for _ in 0..<3 {
                vcpu.then { vcpu in
                    order.add(vcpu.id)
                    vcpu.runPage.exitReason = CKVM_EXIT_INTR
                }
            }
        }
        #expect(bench.run().kind == "halted")
        #expect(order.all == [0, 1, 0, 1, 0, 1])
    }

    /// Every call with every combination of corner values returns, and never crashes the monitor.
    @Test(arguments: [12, 0x4d56_0001, 0x4d56_0003, 0x4d56_0004, 0x4d56_0005] as [UInt64])
    func cornerValues(number: UInt64) throws {
        let bench = try MachineBench { $0.retry = RetryPolicy(attempts: 1) }
        let answers = Collected<Int64>()
        var count = 0
        for a0 in Self.corners {
            for a1 in Self.corners {
                for a2 in [0, 1, 0x10, 0x210, .max] as [UInt64] {
                    bench.vcpu.call(number, a0, a1, a2) { answer, _ in answers.add(answer) }
                    count += 1
                }
            }
        }
        #expect(bench.run().kind == "halted")
        #expect(answers.all.count == count)
        #expect(answers.all.allSatisfy { [0, 1, -11, -12, -14, -22, -95].contains($0) })
    }

    // MARK: by instruction

    @Test func theInstructionAnswersInTheRunPage() throws {
        let bench = try MachineBench { $0.hypercallInstruction = true }
        #expect(bench.backend.vm.capabilities == [201: 1 << 12])
        let answers = Collected<UInt64>()
        let calls: [(UInt64, UInt64, UInt64, UInt64)] = [
            (12, Self.page, 1, 0), (12, Self.page, 0, 0), (99, 0, 0, 0), (12 | 1 << 40, Self.page, 1, 0),
            (12, .max, .max, .max),
        ]
        for call in calls {
            bench.vcpu.then { vcpu in
                var request = ckvm_run_hypercall()
                request.nr = call.0
                request.args = (call.1, call.2, call.3, 0, 0, 0)
                vcpu.runPage.hypercall = request
                vcpu.runPage.exitReason = CKVM_EXIT_HYPERCALL
            }
            bench.vcpu.then { vcpu in
                answers.add(vcpu.runPage.hypercall.ret)
                vcpu.runPage.exitReason = CKVM_EXIT_INTR
            }
        }
        #expect(bench.run().kind == "halted")
        #expect(answers.all.map { Int64(bitPattern: $0) } == [0, -22, -38, -38, -22])
        #expect(bench.machine.memory.state(at: Self.page) == .shared)
    }

    /// The error contains the call that failed, and only that one.
    @Test(arguments: [("KVM_GET_REGS", true), ("KVM_SET_REGS", false)])
    func registersThatCannotBeReadOrWrittenEndTheMachine(_ call: String, _ areRead: Bool) throws {
        let bench = try MachineBench()
        bench.vcpu.call(Self.state, 0)
        if areRead { bench.vcpu.refuseRegisters() } else { bench.vcpu.refuseNewRegisters() }
        let words = bench.run().description
        #expect(words.contains("vCPU 0's call by port") && words.contains(call), "\(words)")
    }
}
