// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// Runs a test with parallel blocks under chosen schedules: each actor of a block is the victim once for each other actor, and
/// the delay of the preemption goes through the whole of the victim's steps.
///
/// Delays are first tried on a grid. If the same delay leads to the same outcome again, as under instruction counting, every
/// border between two outcomes is bisected down to one nanosecond, and the part of the steps inside the kernel is tried
/// nanosecond by nanosecond if it is short. Runs on the thread of a test, which binds itself and its team to one CPU.
struct Sweeper {
    private let source: Source
    private let program: Program
    private let facts: BackendFacts
    private let deadline: TestDeadline
    private let options: Runner.Options
    private let tally: Tally
    private let model: Interleavings.Result?
    private let team: ThreadTeam
    private var world: World
    private var isFresh = true

    /// Uncounted runs without a preemption before a pair is swept. They also measure how long the victim's steps take.
    private static let warmUps = 3
    /// The delays of the first grid.
    private static let gridPoints: UInt64 = 256
    /// The most nanoseconds inside the kernel that are tried one by one.
    private static let fineNanoseconds: UInt64 = 4096
    /// After the longest delay the intruder acts when the victim has certainly ended, in nanoseconds.
    private static let afterTheEnd: UInt64 = 10_000_000

    /// Why a sweep is impossible on this machine; nil if it is possible.
    static func absence() -> String? {
        let result = ckvm_set_fifo_priority(1)
        guard result >= 0 else {
            return
                "SCHED_FIFO is not permitted (\(Errno(rawValue: Int32(-result)).name)); run as root, or with CAP_SYS_NICE"
        }
        _ = ckvm_set_fifo_priority(0)
        return nil
    }

    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ options: Runner.Options,
        _ tally: Tally, _ model: Interleavings.Result?
    ) throws(Stop) {
        self.model = model
        self.source = source
        self.facts = facts
        self.deadline = deadline
        self.options = options
        self.tally = tally
        program = Program(source.test)
        guard let team = ThreadTeam(program.blocks.map(\.actors.count).max() ?? 1) else {
            throw .host(HostFailure("pthread_create", .resourceTemporarilyUnavailable))
        }
        self.team = team
        do throws(Stop) { world = try World(facts, source.test, deadline) } catch {
            team.end()
            throw error
        }
    }

    /// Runs the schedules, and judges their outcomes like those of other runs.
    ///
    /// - Returns: the report of all runs, and a map for each pair of actors.
    mutating func report(_ kind: Sweep) throws(Stop) -> Report {
        let cpu = ckvm_current_cpu()
        if cpu >= 0 { team.run { _ in _ = ckvm_bind_to_cpu(Int32(cpu)) } }
        defer {
            // The thread of the test runs other tests afterwards.
            _ = ckvm_bind_to_cpu(-1)
            team.end()
            world.close()
        }
        var maps: [SweepMap] = []
        for var sweep in try pairs(kind) {
            // The first runs take longer paths, in this process and in the kernel. They are not counted.
            for _ in 0..<Self.warmUps {
                if let failure = try run(Self.afterTheEnd, &sweep, counts: false) {
                    return report(maps, failure, nil)
                }
            }
            let failure: Failure?
            switch kind {
            case .all: failure = try run(&sweep)
            case .one(let schedule): failure = try run(schedule.delay, &sweep)
            }
            maps.append(map(sweep))
            if let failure { return report(maps, failure, nil) }
            if let stop = deadline.stop { return report(maps, nil, stop) }
        }
        return report(maps, nil, nil)
    }

    /// The pairs of actors to sweep, in the order of the text.
    private func pairs(_ kind: Sweep) throws(Stop) -> [PairSweep] {
        var pairs: [PairSweep] = []
        for block in program.blocks {
            let actors = block.actors.compactMap(\.first?.step.actor)
            for victim in actors {
                for intruder in actors where intruder != victim {
                    if case .one(let schedule) = kind,
                        (schedule.block, schedule.victim, schedule.intruder) != (
                            block.number, victim, intruder
                        )
                    {
                        continue
                    }
                    pairs.append(PairSweep(block, victim, intruder))
                }
            }
        }
        if pairs.isEmpty, case .all = kind {
            throw .skip("no parallel block has two actors, so there is nothing to preempt")
        }
        if pairs.isEmpty, case .one(let schedule) = kind {
            throw .skip(
                "no parallel block \(schedule.block + 1) in which \(schedule.intruder) can preempt \(schedule.victim)"
            )
        }
        return pairs
    }

    private func report(_ maps: [SweepMap], _ failure: Failure?, _ stop: Cut.Reason?) -> Report {
        var report = tally.report(Judge(source), wanted: tally.runs, failure: failure, stop)
        report.maps = maps
        return report
    }

    private func map(_ sweep: PairSweep) -> SweepMap {
        let block = sweep.block
        let known = model.map { Judge(source).complete($0.endings, block) }
        return SweepMap(
            block: block.number, line: source.places[block.first].line, victim: sweep.victim,
            intruder: sweep.intruder, schedules: sweep.schedules, duration: sweep.duration,
            isExact: sweep.isExact,
            intervals: sweep.intervals { outcome in
                block.allows(outcome) && (known?.contains(outcome) != false || block.names(outcome))
            })
    }

    // MARK: one pair

    private mutating func run(_ sweep: inout PairSweep) throws(Stop) -> Failure? {
        if let failure = try run(Self.afterTheEnd, &sweep) { return failure }
        let last = sweep.duration
        let stride = max(1, last / Self.gridPoints)
        for delay in Swift.stride(from: 0, through: last, by: Int(stride)).map({ UInt64($0) }) {
            if let failure = try run(delay, &sweep) { return failure }
            if deadline.stop != nil { return nil }
        }
        if let failure = try checkExactness(&sweep) { return failure }
        guard sweep.isExact else { return nil }
        if let kernel = sweep.kernelDelays, kernel.upperBound - kernel.lowerBound <= Self.fineNanoseconds {
            for delay in kernel where sweep.points[delay] == nil {
                if let failure = try run(delay, &sweep) { return failure }
                if deadline.stop != nil { return nil }
            }
        }
        while let delay = sweep.nextBorder() {
            if let failure = try run(delay, &sweep) { return failure }
            if deadline.stop != nil { return nil }
        }
        return nil
    }

    /// Repeats the delays at both sides of the first borders.
    private mutating func checkExactness(_ sweep: inout PairSweep) throws(Stop) -> Failure? {
        for delay in sweep.borders.prefix(2).flatMap({ [$0.low, $0.high] }) {
            for _ in 0..<3 {
                let before = sweep.points[delay]?.results
                if let failure = try run(delay, &sweep) { return failure }
                if sweep.points[delay]?.results != before { sweep.isExact = false }
                if deadline.stop != nil || !sweep.isExact { return nil }
            }
        }
        return nil
    }

    private mutating func run(
        _ delay: UInt64, _ sweep: inout PairSweep, counts: Bool = true
    ) throws(Stop) -> Failure? {
        if !isFresh, !world.reset() {
            world.close()
            world = try World(facts, source.test, deadline)
        }
        isFresh = false
        var ending = Ending()
        for part in program.parts {
            switch part {
            case .step(let index, let step):
                if let failure = try source.perform(index, step, world) { return failure }
            case .block(let block):
                try block.prepare(world)
                let isSwept = block.number == sweep.block.number
                let schedule =
                    isSwept
                    ? Schedule(
                        block: block.number, victim: sweep.victim, intruder: sweep.intruder, delay: delay)
                    : Schedule(oneAfterTheOther: block, delay: Self.afterTheEnd)
                let run = schedule.map { PreemptedRun($0, block) }
                let (source, world) = (source, world)
                if let run {
                    team.run { number in run.perform(number, source, world) }
                }
                let results =
                    run?.actorResults ?? block.actors.map { ActorResults(performing: $0, source, world) }
                if let failure = try block.add(results, to: &ending) { return failure }
                if isSwept, let run {
                    if delay == Self.afterTheEnd { sweep.duration = min(run.duration, Self.afterTheEnd) }
                    guard counts else { continue }
                    sweep.schedules += 1
                    sweep.points[delay] = PairSweep.Point(
                        results: block.results(of: ending),
                        functions: delay <= sweep.duration ? KernelStack.functions(run.stackText) : [])
                }
            }
        }
        guard counts else { return nil }
        tally.add(ending, program)
        options.progress?(tally.runs)
        return nil
    }
}

/// The schedules of one pair of actors that were run.
struct PairSweep {
    struct Point {
        let results: [Name: StepOutcome]
        let functions: [String]
    }
    let block: Program.Block
    let victim: Actor
    let intruder: Actor
    var duration: UInt64 = 0
    /// Schedules that were run; a delay may be run more than once.
    var schedules = 0
    var isExact = true
    /// The last result by delay.
    var points: [UInt64: Point] = [:]

    init(_ block: Program.Block, _ victim: Actor, _ intruder: Actor) {
        self.block = block
        self.victim = victim
        self.intruder = intruder
    }

    private var delays: [UInt64] { points.keys.sorted() }

    /// The delays at which the victim was in the kernel, from the first to the last.
    var kernelDelays: ClosedRange<UInt64>? {
        let inside = points.filter { !$0.value.functions.isEmpty && $0.key <= duration }.keys
        guard let first = inside.min(), let last = inside.max() else { return nil }
        return first...last
    }

    /// A delay between two neighbours with different outcomes; nil if all borders are exact.
    func nextBorder() -> UInt64? {
        borders.first { $0.high - $0.low > 1 }.map { $0.low + ($0.high - $0.low) / 2 }
    }

    /// Neighbouring delays with different outcomes, within the victim's steps.
    var borders: [(low: UInt64, high: UInt64)] {
        let delays = delays
        return zip(delays, delays.dropFirst()).filter { low, high in
            high <= duration && points[low]?.results != points[high]?.results
        }.map { (low: $0, high: $1) }
    }

    func intervals(_ isFine: ([Name: StepOutcome]) -> Bool) -> [SweepMap.Interval] {
        var intervals: [SweepMap.Interval] = []
        var group: [(delay: UInt64, point: Point)] = []
        func close() {
            guard let first = group.first, let last = group.last else { return }
            intervals.append(
                SweepMap.Interval(
                    delays: first.delay...last.delay, results: block.list(first.point.results),
                    schedules: group.count, functions: group[group.count / 2].point.functions,
                    isFine: isFine(first.point.results)))
        }
        for delay in delays {
            guard let point = points[delay] else { continue }
            if let last = group.last, last.point.results != point.results {
                close()
                group = []
            }
            group.append((delay, point))
        }
        close()
        return intervals
    }
}

extension Schedule {
    /// A block that is not swept: the second actor acts when the first has ended. Nil for a block with one actor.
    fileprivate init?(oneAfterTheOther block: Program.Block, delay: UInt64) {
        let actors = block.actors.compactMap(\.first?.step.actor)
        guard actors.count > 1 else { return nil }
        self.init(block: block.number, victim: actors[0], intruder: actors[1], delay: delay)
    }
}
