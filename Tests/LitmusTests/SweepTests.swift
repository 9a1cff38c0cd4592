// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

@Suite("Sweeps of parallel blocks", .timeLimit(.minutes(120)))
struct SweepTests {
    private static let race = """
        test "a conversion and a read"
        memory 1 page shared
        host write 0 0x41
        parallel
        host convert 0 private => c
        host1 read 0 => r
        end
        """

    // MARK: schedules as text

    @Test func schedulesAreReadAndWritten() throws {
        let test = try Source(parsing: Self.race).test
        let short = try Schedule("host1@1594", in: test)
        #expect(short.victim == .host(1) && short.intruder == .host(0) && short.delay == 1594)
        #expect(short.description == "host1@1594/host")
        #expect(try Schedule(short.description, in: test) == short)
        #expect(try Schedule("host@0/host1#1", in: test).description == "host@0/host1")
    }

    @Test(arguments: [
        "", "host1", "host1@", "@5", "host1@x", "host1@-1", "host1@99999999999999999999", "host1@5/",
        "host1@5/host1",
        "host2@5", "host1@5/vcpu0", "host1@5#0", "host1@5#2", "host1@5 ", "HOST@5",
    ])
    func wrongSchedulesAreErrors(_ text: String) throws {
        let test = try Source(parsing: Self.race).test
        #expect(throws: ScheduleError.self) { try Schedule(text, in: test) }
    }

    @Test func anAmbiguousIntruderIsNamed() throws {
        let test = try Source(
            parsing: Self.race.replacing("end", with: "host2 read 0 => s\nend")
        ).test
        #expect(throws: ScheduleError.ambiguous(["host", "host2"])) { try Schedule("host1@5", in: test) }
        #expect(try Schedule("host1@5/host2", in: test).intruder == .host(2))
    }

    // MARK: stacks

    @Test func functionsAreThoseBelowTheInterrupt() {
        let text = """
            [<0>] irqentry_exit+0x3c/0x60
            [<0>] asm_sysvec_apic_timer_interrupt+0x16/0x20
            [<0>] kvm_gmem_fault_user_mapping+0x4c/0x170
            [<0>] __do_fault+0x30/0x90
            """
        #expect(KernelStack.functions(Array(text.utf8)) == ["kvm_gmem_fault_user_mapping", "__do_fault"])
        #expect(KernelStack.functions([]) == [])
        #expect(KernelStack.functions(Array("\u{0}nothing\n]]+".utf8)) == [])
    }

    // MARK: maps

    @Test func neighboursWithOneOutcomeAreAnInterval() throws {
        let block = try #require(Program(Source(parsing: Self.race).test).blocks.first)
        var sweep = PairSweep(block, .host(1), .host(0))
        sweep.duration = 100
        let c = try #require(Name("c"))
        let r = try #require(Name("r"))
        func point(_ outcome: StepOutcome, _ functions: [String] = []) -> PairSweep.Point {
            PairSweep.Point(results: [c: .ok, r: outcome], functions: functions)
        }
        for delay: UInt64 in [0, 10, 20] { sweep.points[delay] = point(.sigbus(at: nil)) }
        for delay: UInt64 in [30, 40] { sweep.points[delay] = point(.value(0x41), ["gup"]) }
        #expect(sweep.kernelDelays == 30...40)
        // The border is bisected until the two outcomes are one nanosecond apart.
        var tried: [UInt64] = []
        while let delay = sweep.nextBorder() {
            tried.append(delay)
            sweep.points[delay] = delay < 23 ? point(.sigbus(at: nil)) : point(.value(0x41))
        }
        #expect(tried == [25, 22, 23])
        let intervals = sweep.intervals { _ in true }
        #expect(intervals.map(\.delays) == [0...22, 23...40])
        #expect(intervals.map(\.schedules) == [4, 4])
        #expect(intervals[1].text == "c = ok, r = 0x41")
    }

    /// On a real kernel every outcome of a sweep is in the model's set.
    @Test(
        .enabled(if: Sweeper.absence() == nil, "SCHED_FIFO is not permitted"),
        .enabled(if: (try? LinuxKVM()) != nil, "there is no /dev/kvm"))
    func outcomesOfThisKernelAreAllowed() throws {
        let backend = try #require(try? MemslotTrapKVM(over: LinuxKVM()))
        let source = try Source(parsing: Self.race)
        let report = Runner(backend, .init(timeLimit: .seconds(3600), sweep: .all)).report(source)
        guard case .passed = report.verdict else {
            Issue.record("\(report.verdict)")
            return
        }
        #expect(report.maps.count == 2)
        for map in report.maps {
            #expect(map.schedules > 2 && map.intervals.allSatisfy(\.isFine))
            #expect(map.intervals.map(\.delays.lowerBound) == map.intervals.map(\.delays.lowerBound).sorted())
        }
        let one = Runner(backend, .init(sweep: .one(try Schedule("host1@5000000", in: source.test)))).report(
            source)
        #expect(one.maps.map(\.schedules) == [1] && one.maps[0].intervals.allSatisfy(\.isFine))
    }

    /// A block with one actor has nothing to preempt. It runs all the same beside a block that is swept.
    @Test(
        .enabled(if: Sweeper.absence() == nil, "SCHED_FIFO is not permitted"),
        .enabled(if: (try? LinuxKVM()) != nil, "there is no /dev/kvm"))
    func blocksWithOneActor() throws {
        let backend = try #require(try? MemslotTrapKVM(over: LinuxKVM()))
        let alone = """
            test "one actor"
            memory 1 page shared
            parallel
            host read 0 => a
            end
            """
        let runner = Runner(backend, .init(timeLimit: .seconds(3600), sweep: .all))
        guard case .skipped(let reason) = runner.report(try Source(parsing: alone)).verdict else {
            Issue.record("a sweep without a schedule has a verdict")
            return
        }
        #expect(reason.contains("nothing to preempt"))
        let beside =
            alone + """

                parallel
                host convert 0 private => c
                host1 read 0 => r
                end
                """
        let source = try Source(parsing: beside)
        let one = Runner(
            backend, .init(timeLimit: .seconds(3600), sweep: .one(try Schedule("host1@0#2", in: source.test)))
        )
        let report = one.report(source)
        #expect(report.verdict == .passed && report.maps.map(\.block) == [1], "\(report.verdict)")
    }

    @Test func softKVMSaysWhyItIsNotSwept() throws {
        let report = Runner(SoftKVM(), .init(sweep: .all)).report(try Source(parsing: Self.race))
        #expect(report.verdict == .passed && report.maps.isEmpty)
        #expect(report.sweepAbsence?.contains("every interleaving") == true)
    }
}
