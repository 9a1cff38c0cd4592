// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Synchronization
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
        #expect(short.preemption == Preemption(of: .host(1), at: 1594, by: .host(0)))
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
        #expect(try Schedule("host1@5/host2", in: test).preemption.intruder == .host(2))
        let second = try Schedule("host1@5/host2@7/host", in: test)
        #expect(second.preemption.second == .init(.host(0), after: 7))
        #expect(try Schedule(second.description, in: test) == second)
        #expect(try Schedule("host1@5/host2@7/host1", in: test).preemption.second?.actor == .host(1))
        for text in ["host1@5/host2@7", "host1@5@7/host", "host1@5/host2@7/host2", "host1@5/host2@/host"] {
            #expect(throws: ScheduleError.self) { try Schedule(text, in: test) }
        }
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

    private static let c = Name("c")
    private static let r = Name("r")

    private func sweep(isExact: Bool = true) throws -> DelaySweep {
        let block = try #require(Program(Source(parsing: Self.race).test).blocks.first)
        var sweep = DelaySweep(block, .host(1), .host(0), isExact: isExact)
        sweep.duration = 100
        return sweep
    }

    private func stack(_ functions: [String]) -> [UInt8] {
        functions.flatMap { Array("[<0>] \($0)+0x4c/0x170\n".utf8) }
    }

    private func point(_ outcome: StepOutcome, waits: Bool = false) throws -> DelaySweep.Point {
        let names = (try #require(Self.c), try #require(Self.r))
        return .init(results: [names.0: .ok, names.1: outcome], isFine: true, intruderWaits: waits)
    }

    @Test func neighboursWithOneOutcomeAreAnInterval() throws {
        var sweep = try sweep()
        for delay: UInt64 in [0, 10, 20] { sweep.add(delay, try point(.sigbus(at: nil)), stack: []) }
        for delay: UInt64 in [30, 40] { sweep.add(delay, try point(.value(0x41)), stack: stack(["gup"])) }
        #expect(sweep.kernelDelays == 30...40)
        // The border is bisected until the two outcomes are one nanosecond apart.
        var tried: [UInt64] = []
        while let delay = sweep.unknownBorders.first {
            tried.append(delay)
            let result = try delay < 23 ? point(.sigbus(at: nil)) : point(.value(0x41))
            sweep.add(delay, result, stack: nil)
        }
        #expect(tried == [25, 22, 23])
        let intervals = sweep.intervals
        #expect(intervals.map(\.delays) == [0...22, 23...40])
        #expect(intervals.map(\.schedules) == [4, 4])
        #expect(intervals.map(\.functions) == [[], ["gup"]])
        #expect(intervals[1].outcomes.map(\.text) == ["c = ok, r = 0x41"])
    }

    /// At a border outcomes may alternate within some nanoseconds. A single narrow interval stands for itself.
    @Test func narrowIntervalsInARowAreABorder() throws {
        var sweep = try sweep()
        for delay: UInt64 in 0...99 {
            let isRead = delay > 50 || [45, 47, 48].contains(delay)
            sweep.add(delay, try isRead ? point(.value(0x41)) : point(.sigbus(at: nil)), stack: nil)
        }
        #expect(sweep.intervals.map(\.delays) == [0...44, 45...50, 51...99])
        #expect(sweep.intervals[1].outcomes.map(\.schedules) == [3, 3])
    }

    @Test func aTickOfTheKernelIsOutvoted() throws {
        var sweep = try sweep()
        for delay: UInt64 in [0, 10, 20] {
            sweep.add(delay, try delay == 10 ? point(.value(0)) : point(.value(0x41)), stack: nil)
        }
        #expect(sweep.isolated == [10])
        for _ in 0..<2 { sweep.add(10, try point(.value(0x41)), stack: nil) }
        sweep.settle(10)
        #expect(sweep.isolated == [] && sweep.intervals.count == 1)
    }

    /// The program has locks of its own, which the kernel's functions tell from those of the kernel.
    @Test func onlyAVictimInTheKernelHoldsAnIntruderUp() throws {
        for (functions, waits) in [(["kvm_gmem_convert"], [false, true]), ([], [false])] {
            var sweep = try sweep()
            sweep.add(0, try point(.value(0x41)), stack: [])
            for delay: UInt64 in [50, 60, 90] {
                sweep.add(delay, try point(.value(0x41), waits: true), stack: stack(functions))
            }
            #expect(sweep.intervals.map(\.intruderWaits) == waits)
        }
    }

    @Test func aMapThatIsNotExactHasSharesOfOutcomes() throws {
        var sweep = try sweep(isExact: false)
        for delay: UInt64 in 0...9 {
            sweep.add(delay / 5 * 90, try delay == 0 ? point(.value(0)) : point(.value(0x41)), stack: nil)
        }
        #expect(sweep.intervals.map(\.delays) == [0...0, 90...90])
        #expect(sweep.intervals[0].outcomes.map(\.schedules) == [4, 1])
    }

    // MARK: the timer

    @Test func theTimerIsMeasured() {
        func grid(_ place: (_ delay: UInt64, _ attempt: UInt64) -> UInt64) -> TimerGrid {
            let delays: [UInt64] = Array(1000..<1096)
            return TimerGrid(delays.map { [place($0, 0), place($0, 1)] }, from: 1000)
        }
        // It expires every 16 ns, first at 1005; the loop counts every third instruction.
        let coarse = grid { delay, _ in (delay - 5) / 16 * 16 / 3 }
        #expect(coarse.isExact && coarse.period == 16)
        let delays: [UInt64] = [0, 1, 15, 16, 1000, 4095]
        for delay in delays {
            let (timer, padding) = coarse.split(delay)
            // Each delay has its place: the expiry minus the instructions before the steps.
            #expect(timer % 16 == coarse.phase && timer >= delay && timer - UInt64(padding) == delay)
            #expect(padding < 16 + UInt32(coarse.phase) && timer > 0)
        }
        let fine = grid { delay, _ in delay / 3 }
        #expect(fine.isExact && fine.period == 1 && fine.split(0) == (1, 0))
        #expect(!grid { delay, attempt in (delay * 37 + attempt * 53) % 91 }.isExact)
        #expect(!TimerGrid([], from: 1000).isExact)
        // A delay that is too short finds the loop where it began.
        #expect(!grid { _, _ in 1 }.isExact && !grid { _, _ in 0 }.isExact)
    }

    /// A thread that spins until a preempted one has done something would spin for ever, and so would that one if it then waited
    /// for the first.
    @Test(.enabled(if: Sweeper.absence() == nil, "SCHED_FIFO is not permitted"))
    func threadsThatSpinForEachOtherEnd() throws {
        let team = try #require(PreemptionTeam())
        defer {
            team.end()
            team.unbind()
        }
        let turns = Atomic<Int>(0)
        let rescues = Atomic<Int>(0)
        @Sendable func spin(until turn: Int) {
            while turns.load(ordering: .acquiring) < turn {}
            turns.add(1, ordering: .releasing)
        }
        for _ in 0..<3 {
            turns.store(0, ordering: .relaxed)
            team.run(jobs: 2, limit: 100_000) { seat in
                switch seat {
                case 0:
                    team.start(1, after: 1)
                    spin(until: 0)
                    spin(until: 2)
                case 1:
                    spin(until: 1)
                    spin(until: 3)
                default:
                    let count = rescues.add(1, ordering: .relaxed).oldValue
                    team.prefer(count % 2, processes: [])
                    team.start(PreemptionTeam.watcher, after: 100_000)
                }
            }
            #expect(turns.load(ordering: .acquiring) == 4)
        }
    }

    // MARK: the language

    @Test(
        arguments: [
            ("preempted host1 at 1594 by host", nil),
            ("preempted host1 at 0 by host, host at 300 by host1 => c = EAGAIN at 0, r = 0x41", nil),
            ("preempted host1 at 1594", "expected `by`"),
            ("preempted host1 at 1594 by", "an actor of the block"),
            ("preempted host1 by host", "expected `at`"),
            ("preempted host1 at x by host", "a delay in nanoseconds"),
            ("preempted host1 at 5 by host1", "host1 cannot preempt itself"),
            ("preempted host2 at 5 by host", "no actor host2 in the block"),
            ("preempted host1 at 5 by host, host1 at 3 by host", "is of host, the first intruder"),
            ("preempted host1 at 5 by host, host at 3 by host", "host cannot preempt itself"),
            ("preempted host1 at 10000000001 by host", "at most 10000000000 ns"),
            ("preempted host1 at 5 by host => z = ok", "no step of the block has a result `z`"),
            ("preempted host1 at 5 by host\npreempted host1 at 5 by host", "already has"),
            ("preempted host1 at 5 by host\nhost2 read 0", "steps come before"),
            ("end\npreempted host1 at 5 by host\nparallel\nhost read 0", "belongs in a parallel block"),
        ] as [(String, String?)])
    func blocksNameTheirSchedule(_ line: String, _ problem: String?) throws {
        let text = Self.race.replacing("\nend", with: "\n\(line)\nend")
        guard let problem else {
            let test = try Source(parsing: text).test
            #expect(try Source(parsing: test.text).test == test && test.schedules.count == 1)
            #expect(test.text.contains(line.replacing("preempted ", with: "preempted ")))
            return
        }
        do {
            _ = try Source(parsing: text)
            Issue.record("no error for \(line)")
        } catch {
            #expect(error.message.contains(problem), "\(error.message)")
        }
    }

    /// On a real kernel every outcome of a sweep is in the model's set.
    @Test(
        .enabled(if: Sweeper.absence() == nil, "SCHED_FIFO is not permitted"),
        .enabled(if: (try? LinuxKVM()) != nil, "there is no /dev/kvm"))
    func outcomesOfThisKernelAreAllowed() throws {
        let backend = try #require(try? MemslotTrapKVM(over: LinuxKVM()))
        let source = try Source(parsing: Self.race)
        let report = Runner(backend, .init(timeLimit: .seconds(3600), sweep: .all(preemptions: 1))).report(
            source)
        guard case .passed = report.verdict else {
            Issue.record("\(report.verdict)")
            return
        }
        #expect(report.maps.count == 2)
        for map in report.maps {
            #expect(map.schedules > 2 && map.intervals.allSatisfy(\.isFine))
            #expect(map.intervals.map(\.delays.lowerBound) == map.intervals.map(\.delays.lowerBound).sorted())
        }
        let strange = Schedule(block: 0, Preemption(of: .host(7), at: .max, by: .host(0)))
        for schedules in [[], [strange], [Schedule(block: 5, strange.preemption)]] {
            guard case .skipped = Runner(backend, .init(sweep: .these(schedules))).run(source) else {
                Issue.record("schedules that do not fit the test have a verdict")
                return
            }
        }
        let one = Runner(backend, .init(sweep: .these([try Schedule("host1@5000000", in: source.test)])))
            .report(
                source)
        #expect(one.maps.count == 1 && one.maps[0].intervals.allSatisfy(\.isFine))
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
        let runner = Runner(backend, .init(timeLimit: .seconds(3600), sweep: .all(preemptions: 1)))
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
            backend,
            .init(timeLimit: .seconds(3600), sweep: .these([try Schedule("host1@0#2", in: source.test)]))
        )
        let report = one.report(source)
        #expect(report.verdict == .passed && report.maps.map(\.block) == [1], "\(report.verdict)")
    }

    @Test func softKVMSaysWhyItIsNotSwept() throws {
        let report = Runner(SoftKVM(), .init(sweep: .all(preemptions: 1))).report(
            try Source(parsing: Self.race))
        #expect(report.verdict == .passed && report.maps.isEmpty)
        #expect(report.sweepAbsence?.contains("every interleaving") == true)
    }
}
