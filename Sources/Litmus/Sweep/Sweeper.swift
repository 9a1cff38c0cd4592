// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// Runs a test with parallel blocks under chosen schedules: each actor of a block is the victim once for each other actor, and
/// the delay of the preemption goes through the whole of the victim's steps.
///
/// Where the timer is exact, as under instruction counting, delays are first tried on a grid. Then the part of the steps inside
/// the kernel is tried nanosecond by nanosecond if it is short, and every border between two outcomes is bisected down to
/// one nanosecond. Elsewhere delays are drawn at random.
///
/// Runs on the thread of a test, which binds itself and its team to one CPU.
struct Sweeper {
    private let source: Source
    private let program: Program
    private let facts: BackendFacts
    private let deadline: TestDeadline
    private let options: Runner.Options
    private let tally: Tally
    /// For each block the outcomes of the model; nil if the model was not asked.
    private let known: [Set<[Name: StepOutcome]>]?
    private let team: PreemptionTeam
    private let grid: TimerGrid
    private let stacks: PreemptedRun.Stacks
    private var world: World
    private var isFresh = true
    private var resets = 0
    private var chance: SplitMix64
    private var secondSchedules = 0
    /// The time from which on a thread that has not ended counts as waiting, in nanoseconds.
    private var limit = Sweeper.longestLimit

    /// Uncounted runs without a preemption before a pair is swept. They also measure how long the steps take.
    private static let warmUps = 3
    /// The number of delays of the first grid.
    private static let gridPoints: UInt64 = 256
    /// The most nanoseconds inside the kernel that are tried one by one.
    private static let fineNanoseconds: UInt64 = 4096
    /// A search finds the part of the steps inside the kernel to this share of their duration, and tries delays there at this
    /// distance, in nanoseconds, but at most so many.
    private static let searchLooks: UInt64 = 32
    private static let searchStep: UInt64 = 24
    private static let mostSearched: UInt64 = 200
    /// First delays of schedules with two preemptions besides the middles of intervals, and second delays for each.
    private static let firstDelays: UInt64 = 16
    private static let secondDelays: UInt64 = 32
    /// After the longest delay the intruder acts when the victim has certainly ended, in nanoseconds.
    private static let afterTheEnd: UInt64 = 10_000_000
    /// The limits for ``limit``.
    private static let shortestLimit: UInt64 = 200_000
    private static let longestLimit: UInt64 = 20_000_000
    /// One reset of the machine in so many is checked.
    private static let uncheckedResets = 32
    /// Runs of one schedule where the timer is exact.
    private static let repetitions = 10

    /// Why a sweep is impossible on this machine; nil if it is possible.
    static func absence() -> String? {
        let result = ckvm_set_fifo_priority(0, 1)
        guard result >= 0 else {
            return
                "SCHED_FIFO is not permitted (\(Errno(rawValue: Int32(-result)).name)); run as root, or with CAP_SYS_NICE"
        }
        _ = ckvm_set_fifo_priority(0, 0)
        return nil
    }

    /// Binds the calling thread to its CPU until ``end()``.
    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ options: Runner.Options,
        _ tally: Tally, _ model: Interleavings.Result?
    ) throws(Stop) {
        self.source = source
        self.facts = facts
        self.deadline = deadline
        self.options = options
        self.tally = tally
        chance = SplitMix64(seed: options.seed)
        program = Program(source.test)
        let judge = Judge(source)
        known = model.map { model in judge.program.blocks.map { judge.complete(model.endings, $0) } }
        let cpu = Int32(clamping: ckvm_current_cpu())
        _ = ckvm_bind_to_cpu(cpu)
        guard let team = PreemptionTeam(cpu: cpu) else {
            _ = ckvm_bind_to_cpu(-1)
            throw .host(HostFailure("pthread_create", .resourceTemporarilyUnavailable))
        }
        self.team = team
        grid = team.measureTimer()
        stacks = PreemptedRun.Stacks(
            victim: KernelStack(thread: team.thread(of: 0)), intruder: KernelStack(thread: team.thread(of: 1))
        )
        do throws(Stop) { world = try World(facts, source.test, deadline) } catch {
            team.end()
            _ = ckvm_bind_to_cpu(-1)
            throw error
        }
    }

    private func end() {
        // The thread of the test runs other tests afterwards.
        _ = ckvm_bind_to_cpu(-1)
        team.end()
        world.close()
    }

    // MARK: all schedules

    /// Runs the schedules, and judges their outcomes like those of other runs. It can be called once.
    ///
    /// - Returns: the report of all runs, and a map for each pair of actors.
    mutating func report(_ kind: Sweep) throws(Stop) -> Report {
        defer { end() }
        var maps: [SweepMap] = []
        var wrong: (failure: Failure, schedule: Schedule)?
        switch kind {
        case .these(let schedules):
            wrong = try run(schedules, &maps)
        case .search, .all:
            for var sweep in try pairs() {
                wrong = try prepare(&sweep, Self.afterTheEnd)
                if wrong == nil { wrong = try sweepDelays(&sweep, kind) }
                maps.append(map(sweep))
                if case .all(let preemptions) = kind, preemptions > 1, wrong == nil {
                    wrong = try sweepSecond(sweep, &maps)
                }
                if wrong != nil || deadline.stop != nil { break }
                if case .search = kind, maps.last?.isFine == false { break }
            }
        }
        var report = tally.report(
            Judge(source), wanted: tally.runs, failure: wrong?.failure, wrong == nil ? deadline.stop : nil)
        report.maps = maps
        report.secondSchedules = secondSchedules
        if case .failed = report.verdict {
            let shown = maps.lazy.compactMap { map in map.wrong.map { (map, $0) } }.first
            report.schedule = wrong?.schedule ?? shown.map { $0.schedule(of: $1) }
            report.functions = wrong == nil ? shown?.1.functions ?? [] : []
        }
        return report
    }

    /// The pairs of actors to sweep, in the order of the text.
    private func pairs() throws(Stop) -> [DelaySweep] {
        var pairs: [DelaySweep] = []
        for block in program.blocks {
            let actors = block.actors.compactMap(\.first?.step.actor)
            for victim in actors {
                for intruder in actors where intruder != victim {
                    pairs.append(DelaySweep(block, victim, intruder, isExact: grid.isExact))
                }
            }
        }
        if pairs.isEmpty { throw .skip("no parallel block has two actors, so there is nothing to preempt") }
        return pairs
    }

    /// Runs the schedules together, again and again.
    private mutating func run(
        _ schedules: [Schedule], _ maps: inout [SweepMap]
    ) throws(Stop) -> (Failure, Schedule)? {
        var sweeps: [DelaySweep] = []
        for block in program.blocks {
            guard let schedule = schedules.first(where: { $0.block == block.number }) else { continue }
            let preemption = schedule.preemption
            let second = preemption.second.map {
                SweepMap.Second(firstDelay: preemption.delay, actor: $0.actor)
            }
            sweeps.append(
                DelaySweep(
                    block, preemption.victim, preemption.intruder, second: second, isExact: grid.isExact))
        }
        for index in sweeps.indices {
            if let wrong = try prepare(&sweeps[index], Self.afterTheEnd) { return wrong }
        }
        let runs = grid.isExact ? min(options.runs, Self.repetitions) : options.runs
        for number in 0..<runs where number == 0 || deadline.stop == nil {
            if let failure = try perform(
                schedules, looks: number == 0,
                { results, block in
                    guard let index = sweeps.firstIndex(where: { $0.block.number == block }),
                        let preemption = schedules.first(where: { $0.block == block })?.preemption
                    else { return }
                    sweeps[index].add(preemption.second?.delay ?? preemption.delay, results)
                })
            {
                return (failure, schedules[0])
            }
        }
        maps = sweeps.map(map)
        return nil
    }

    // MARK: one pair

    private typealias Wrong = (failure: Failure, schedule: Schedule)

    /// Measures the steps without a preemption.
    ///
    /// - Parameter delay: a delay after the end of the steps.
    private mutating func prepare(_ sweep: inout DelaySweep, _ delay: UInt64) throws(Stop) -> Wrong? {
        limit = Self.longestLimit
        var taken: UInt64 = 0
        // The first runs take longer paths, in this process and in the kernel.
        for _ in 0..<Self.warmUps {
            let schedule = sweep.schedule(delay)
            let failure = try perform([schedule], looks: false, counts: false) { results, block in
                guard block == sweep.block.number else { return }
                let run = results.run
                sweep.duration = min(sweep.second == nil ? run.duration : run.intruderDuration, delay)
                sweep.sleeps = run.sleeps
                taken = max(run.duration, run.intruderDuration)
            }
            if let failure { return (failure, schedule) }
        }
        if sweep.isExact { limit = min(max(4 * min(taken, delay), Self.shortestLimit), Self.longestLimit) }
        return nil
    }

    private mutating func sweepDelays(_ sweep: inout DelaySweep, _ kind: Sweep) throws(Stop) -> Wrong? {
        let last = sweep.duration
        guard sweep.isExact else {
            for _ in 0..<options.runs {
                if let wrong = try run(chance.next() % (last + 1), &sweep, looks: true) { return wrong }
                if deadline.stop != nil { return nil }
            }
            return nil
        }
        if case .search = kind { return try search(&sweep) }
        if let wrong = try run(delays(0...last, step: last / Self.gridPoints), &sweep, looks: true) {
            return wrong
        }
        if let kernel = sweep.kernelDelays, kernel.upperBound - kernel.lowerBound <= Self.fineNanoseconds {
            let rest = kernel.filter { sweep.points[$0] == nil }
            if let wrong = try run(rest, &sweep) { return wrong }
        }
        return try refine(&sweep)
    }

    /// Tries delays inside the kernel until an outcome is not allowed, and refines the map then.
    private mutating func search(_ sweep: inout DelaySweep) throws(Stop) -> Wrong? {
        if let wrong = try run([0, Self.afterTheEnd], &sweep) { return wrong }
        let step = max(1, sweep.duration / Self.searchLooks)
        var inside: UInt64?
        for share in Self.shares where inside == nil && deadline.stop == nil {
            let delay = share * step
            if let wrong = try run(delay, &sweep, looks: true) { return wrong }
            if sweep.isInKernel(delay) { inside = delay }
        }
        if let inside {
            // A look at the stack takes longer than a run, so the borders of the kernel's part are bisected.
            var low: UInt64 = 0
            var high = max(inside, sweep.duration)
            for isFirst in [true, false] {
                var (known, other) = (inside, isFirst ? low : high)
                while max(known, other) - min(known, other) > step, deadline.stop == nil {
                    let middle = (known + other) / 2
                    if let wrong = try run(middle, &sweep, looks: true) { return wrong }
                    if sweep.isInKernel(middle) { known = middle } else { other = middle }
                }
                if isFirst { low = other } else { high = other }
            }
            let distance = max(Self.searchStep, (high - low) / Self.mostSearched)
            if let wrong = try run(delays(low...high, step: distance), &sweep, stopsAtWrong: true) {
                return wrong
            }
        }
        return sweep.isFine ? nil : try refine(&sweep)
    }

    /// Where in the steps, in 32nds, a search first looks for the kernel's part.
    private static let shares: [UInt64] = [16, 8, 24, 4, 12, 20, 28, 2, 6, 10, 14, 18, 22, 26, 30]

    private func delays(_ range: ClosedRange<UInt64>, step: UInt64) -> [UInt64] {
        stride(from: range.lowerBound, through: range.upperBound, by: Int(clamping: max(1, step))).map { $0 }
    }

    /// Bisects the borders, repeats delays with a result of their own, and looks at the stack in each interval.
    private mutating func refine(_ sweep: inout DelaySweep) throws(Stop) -> Wrong? {
        while case let delays = sweep.unknownBorders, !delays.isEmpty, deadline.stop == nil {
            if let wrong = try run(delays, &sweep) { return wrong }
        }
        for delay in sweep.isolated {
            for _ in 0..<2 { if let wrong = try run(delay, &sweep) { return wrong } }
            sweep.settle(delay)
        }
        return try run(sweep.unseen, &sweep, looks: true)
    }

    private mutating func sweepSecond(_ sweep: DelaySweep, _ maps: inout [SweepMap]) throws(Stop) -> Wrong? {
        guard sweep.isExact else { return nil }
        let usual = Set(sweep.points.values.map(\.results))
        var firsts = Set(
            map(sweep).intervals.map {
                $0.delays.lowerBound + ($0.delays.upperBound - $0.delays.lowerBound) / 2
            })
        if let kernel = sweep.kernelDelays {
            firsts.formUnion(
                delays(kernel, step: (kernel.upperBound - kernel.lowerBound) / Self.firstDelays))
        }
        let actors = sweep.block.actors.compactMap(\.first?.step.actor).filter { $0 != sweep.intruder }
        for actor in actors {
            for first in firsts.sorted() where first <= sweep.duration {
                var line = DelaySweep(
                    sweep.block, sweep.victim, sweep.intruder, second: .init(firstDelay: first, actor: actor),
                    isExact: sweep.isExact)
                if let wrong = try prepare(&line, Self.afterTheEnd) { return wrong }
                let grid = delays(0...line.duration, step: line.duration / Self.secondDelays)
                if let wrong = try run(grid, &line) { return wrong }
                let isNew = line.points.values.contains { !usual.contains($0.results) }
                if isNew, let wrong = try refine(&line) { return wrong }
                secondSchedules += line.runs.count
                if isNew { maps.append(map(line)) }
                if deadline.stop != nil { return nil }
            }
        }
        return nil
    }

    private mutating func run(
        _ delays: [UInt64], _ sweep: inout DelaySweep, looks: Bool = false, stopsAtWrong: Bool = false
    ) throws(Stop) -> Wrong? {
        for delay in delays {
            if let wrong = try run(delay, &sweep, looks: looks) { return wrong }
            if deadline.stop != nil { return nil }
            if stopsAtWrong, sweep.points[delay]?.isFine == false { return nil }
        }
        return nil
    }

    private mutating func run(
        _ delay: UInt64, _ sweep: inout DelaySweep, looks: Bool = false
    ) throws(Stop) -> Wrong? {
        let schedule = sweep.schedule(delay)
        let failure = try perform([schedule], looks: looks && delay <= sweep.duration) { results, block in
            if block == sweep.block.number { sweep.add(delay, results) }
        }
        return failure.map { ($0, schedule) }
    }

    /// Whether neither the test nor the model forbids the outcome of any block.
    private func isFine(_ ending: Ending) -> Bool {
        program.blocks.allSatisfy { block in
            let outcome = block.results(of: ending)
            return block.allows(outcome)
                && (known?[block.number].contains(outcome) != false || block.names(outcome))
        }
    }

    private func map(_ sweep: DelaySweep) -> SweepMap {
        SweepMap(
            block: sweep.block.number, line: source.places[sweep.block.first].line, victim: sweep.victim,
            intruder: sweep.intruder, second: sweep.second, schedules: sweep.runs.count,
            duration: sweep.duration, isExact: sweep.isExact,
            intervals: sweep.intervals)
    }

    // MARK: one run

    /// What a run of a block under a schedule led to.
    fileprivate struct BlockResult {
        let block: Int
        let results: [Name: StepOutcome]
        let run: PreemptedRun.Result
        let looked: Bool
        var isFine = true
    }

    /// Runs the test once.
    ///
    /// - Parameters:
    ///   - schedules: at most one for each block. The actors of other blocks act one after the other.
    ///   - looks: whether the intruder reads the victim's stack.
    ///   - note: called after the run for each block with a schedule, with the block's number.
    private mutating func perform(
        _ schedules: [Schedule], looks: Bool, counts: Bool = true, _ note: (BlockResult, Int) -> Void
    ) throws(Stop) -> Failure? {
        resets += 1
        if !isFresh, !world.reset(checks: resets % Self.uncheckedResets == 0) {
            world.close()
            world = try World(facts, source.test, deadline)
        }
        isFresh = false
        var ending = Ending()
        var blocks: [BlockResult] = []
        for part in program.parts {
            switch part {
            case .step(let index, let step):
                if let failure = try source.perform(index, step, world) { return failure }
            case .block(let block):
                try block.prepare(world)
                let schedule = schedules.first { $0.block == block.number }
                guard let schedule else {
                    let all = block.actors.map { ActorResults(performing: $0, source, world) }
                    if let failure = try block.add(all, to: &ending) { return failure }
                    continue
                }
                let (run, all) = PreemptedRun.perform(
                    schedule.preemption, block, grid, on: team,
                    stacks: looks ? stacks(schedule.preemption) : nil, limit: limit, source, world)
                if let failure = try block.add(all, to: &ending) { return failure }
                blocks.append(
                    BlockResult(
                        block: block.number, results: block.results(of: ending), run: run, looked: looks))
            }
        }
        let isFine = isFine(ending)
        for var result in blocks {
            result.isFine = isFine
            note(result, result.block)
        }
        guard counts else { return nil }
        tally.add(ending, program)
        options.progress?(tally.runs)
        return nil
    }

    /// The stacks of the preempted actors: a child is a process of its own.
    private func stacks(_ preemption: Preemption) -> PreemptedRun.Stacks {
        let processes = world.processes
        func stack(_ actor: Actor, _ thread: KernelStack?) -> KernelStack? {
            processes[actor].map { KernelStack(process: $0) } ?? thread
        }
        return PreemptedRun.Stacks(
            victim: stack(preemption.victim, stacks.victim),
            intruder: stack(preemption.intruder, stacks.intruder))
    }
}

extension DelaySweep {
    fileprivate mutating func add(_ delay: UInt64, _ result: Sweeper.BlockResult) {
        let stack = second == nil ? result.run.stack : result.run.secondStack
        add(
            delay,
            Point(
                results: result.results, isFine: result.isFine,
                intruderWaits: result.run.sleeps > sleeps || result.run.rescues > 0),
            functions: result.looked ? KernelStack.functions(stack) : nil)
    }
}

extension SweepMap {
    fileprivate var isFine: Bool { intervals.allSatisfy(\.isFine) }

    /// The widest interval with a forbidden outcome.
    fileprivate var wrong: Interval? {
        intervals.filter { !$0.isFine }.max {
            $0.delays.upperBound - $0.delays.lowerBound < $1.delays.upperBound - $1.delays.lowerBound
        }
    }
}
