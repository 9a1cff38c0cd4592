// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
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
    let blocks: [Program.Block]
    private let facts: BackendFacts
    let deadline: TestDeadline
    let options: Runner.Options
    private let tally: Tally
    /// For each block the outcomes of the model; nil if the model was not asked.
    private let known: [Set<[Name: StepOutcome]>]?
    let team: PreemptionTeam
    private var world: World
    private var isFresh = true
    private var resets = 0
    /// The endings that were seen. A sweep has few, and comparing them is faster than judging one again or hashing it.
    private var judged: [Judgement] = []
    var chance: SplitMix64
    var secondSchedules = 0
    /// The time from which on a thread that has not ended counts as waiting, in nanoseconds.
    var limit = Sweeper.longestLimit

    /// One reset of the machine in so many is checked.
    private static let resetsPerCheck = 32
    /// The team rests before one reset in so many.
    private static let resetsPerRest = 32
    /// The progress is told after so many runs.
    private static let resetsPerProgress = 64

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

    /// Binds the calling thread to the CPU of the pool's team until ``report(_:)`` returns.
    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ options: Runner.Options,
        _ tally: Tally, _ model: Interleavings.Result?, _ pool: MachinePool
    ) throws(Stop) {
        self.source = source
        self.facts = facts
        self.deadline = deadline
        self.options = options
        self.tally = tally
        chance = SplitMix64(seed: options.seed &+ pool.nextSweep())
        let judge = Judge(source)
        program = judge.program
        blocks = judge.program.blocks
        known = model.map { model in judge.program.blocks.map { judge.complete(model.endings, $0) } }
        do throws(HostFailure) { team = try pool.preemptionTeam() } catch { throw .host(error) }
        do throws(Stop) { world = try World(facts, source.test, deadline) } catch {
            team.unbind()
            throw error
        }
    }

    private func end() {
        if resets > 1 { options.watcher?(.ended(.furtherRuns(runs: nil), .runs(tally.runs))) }
        // The thread of the test runs other tests afterwards.
        team.unbind()
        world.close()
    }

    /// A failure, and the schedule that showed it.
    typealias Wrong = (failure: Failure, schedule: Schedule)

    // MARK: all schedules

    /// Runs the schedules, and judges their outcomes like those of other runs. It can be called once.
    ///
    /// - Returns: the report of all runs, and a map for each pair of actors.
    mutating func report(_ kind: Sweep) throws(Stop) -> Report {
        defer { end() }
        var maps: [SweepMap] = []
        var wrong: Wrong?
        switch kind {
        case .these(let schedules):
            wrong = try run(schedules, &maps)
        case .search, .all:
            for var sweep in try pairs() {
                wrong = try prepare(&sweep)
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
        for block in blocks {
            let actors = block.actors.compactMap(\.first?.step.actor)
            for victim in actors {
                for intruder in actors where intruder != victim {
                    pairs.append(DelaySweep(block, victim, intruder, isExact: team.grid.isExact))
                }
            }
        }
        if pairs.isEmpty { throw .skip("no parallel block has two actors, so there is nothing to preempt") }
        return pairs
    }

    /// The outcomes of an ending.
    private struct Judgement {
        let ending: Ending
        /// Of each block.
        let results: [[Name: StepOutcome]]
        /// Whether neither the test nor the model forbids the outcome of any block.
        let isFine: Bool
        /// Where the tally counts the ending; nil before the first time.
        var place: Int?
    }

    /// - Returns: the index in ``judged``.
    private mutating func judge(_ ending: Ending) -> Int {
        if let place = judged.firstIndex(where: { $0.ending == ending }) { return place }
        let judgement = Judgement(
            ending: ending, results: blocks.map { $0.results(of: ending) },
            isFine: blocks.allSatisfy { block in
                let outcome = block.results(of: ending)
                return block.allows(outcome)
                    && (known?[block.number].contains(outcome) != false || block.names(outcome))
            })
        judged.append(judgement)
        return judged.count - 1
    }

    func map(_ sweep: DelaySweep) -> SweepMap {
        SweepMap(
            block: sweep.block.number, line: source.places[sweep.block.first].line, victim: sweep.victim,
            intruder: sweep.intruder, second: sweep.second, schedules: sweep.runs.count,
            duration: sweep.duration, isExact: sweep.isExact,
            intervals: sweep.intervals)
    }

    // MARK: one run

    /// The result of a run of a block under a schedule.
    struct BlockResult {
        let block: Int
        /// The number of the run's ending among those that were seen: runs with the same number have the same results.
        let ending: Int
        let results: [Name: StepOutcome]
        let run: PreemptedRun.Result
        let looked: Bool
        let isFine: Bool
    }

    /// Runs the test once.
    ///
    /// - Parameters:
    ///   - schedules: at most one for each block. The actors of other blocks act one after the other.
    ///   - looks: whether the intruder reads the victim's stack.
    ///   - note: called after the run for each block with a schedule.
    mutating func perform(
        _ schedules: [Schedule], looks: Bool, counts: Bool = true, _ note: (BlockResult) -> Void
    ) throws(Stop) -> Failure? {
        resets += 1
        let watcher = resets == 1 ? options.watcher : nil
        if resets == 2 { options.watcher?(.began(.furtherRuns(runs: nil))) }
        if resets % Self.resetsPerRest == 0 { team.rest() }
        if !isFresh, !world.reset(checks: resets % Self.resetsPerCheck == 0) {
            world.close()
            world = try World(facts, source.test, deadline)
        }
        isFresh = false
        var ending = Ending()
        var runs: [(block: Int, run: PreemptedRun.Result)] = []
        for part in program.parts {
            switch part {
            case .step(let index, let step):
                if let failure = try source.perform(index, step, world, watcher: watcher) {
                    return failure
                }
            case .block(let block):
                watcher?(.began(.block(first: block.first, runs: nil)))
                try block.prepare(world)
                let schedule = schedules.first { $0.block == block.number }
                guard let schedule else {
                    let all = block.actors.map { ActorResults(performing: $0, source, world) }
                    if let failure = try block.add(all, to: &ending) { return failure }
                    watcher?(.ended(.block(first: block.first, runs: nil), .results(of: block, ending)))
                    continue
                }
                let (run, all) = PreemptedRun.perform(
                    schedule.preemption, block, on: team,
                    stacks: looks ? stacks(schedule.preemption) : nil, limit: limit, source, world)
                if let failure = try block.add(all, to: &ending) { return failure }
                watcher?(.ended(.block(first: block.first, runs: nil), .results(of: block, ending)))
                runs.append((block.number, run))
            }
        }
        let place = judge(ending)
        for (block, run) in runs {
            note(
                BlockResult(
                    block: block, ending: place, results: judged[place].results[block], run: run,
                    looked: looks, isFine: judged[place].isFine))
        }
        guard counts else { return nil }
        judged[place].place = tally.add(ending, at: judged[place].place)
        if resets % Self.resetsPerProgress == 0 { options.progress?(tally.runs) }
        return nil
    }

    /// The stacks of the preempted actors: a child is a process of its own.
    private func stacks(_ preemption: Preemption) -> PreemptedRun.Stacks {
        let processes = world.processes
        func stack(_ actor: Actor, _ thread: KernelStack?) -> KernelStack? {
            processes[actor].map { KernelStack(process: $0) } ?? thread
        }
        return PreemptedRun.Stacks(
            victim: stack(preemption.victim, team.stacks.victim),
            intruder: stack(preemption.intruder, team.stacks.intruder))
    }
}

extension DelaySweep {
    mutating func add(_ delay: UInt64, _ result: Sweeper.BlockResult) {
        let stack = second == nil ? result.run.stack : result.run.secondStack
        let waits = result.run.sleeps > sleeps || result.run.rescues > 0
        let kind = kind(ofEnding: result.ending, waits: waits) {
            Point(results: result.results, isFine: result.isFine, intruderWaits: waits)
        }
        add(delay, kind: kind, stack: result.looked ? stack : nil)
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
