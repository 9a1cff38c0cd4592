// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import Synchronization

/// Runs a test with parallel blocks many times with one thread for each actor, as litmus7 does. Random delays before
/// the steps make rare outcomes more likely.
struct Sampler {
    private let source: Source
    private let program: Program
    private let facts: BackendFacts
    private let deadline: TestDeadline
    private let options: Runner.Options
    private let tally: Tally

    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ options: Runner.Options,
        _ tally: Tally
    ) {
        self.source = source
        self.tally = tally
        program = Program(source.test)
        self.facts = facts
        self.deadline = deadline
        self.options = options
    }

    /// Runs the test until the requested number of runs is done or the test is stopped, but at least once.
    func report() throws(Stop) -> Report {
        let width = program.blocks.map(\.actors.count).max() ?? 1
        guard let team = ThreadTeam(width) else {
            throw .host(HostFailure("pthread_create", .resourceTemporarilyUnavailable))
        }
        defer { team.end() }
        var world = try World(
            facts, source.test, deadline,
            trace: options.recorder?.begin(backend: facts.backend, vm: source.test.vm))
        defer { world.close() }
        var chance = SplitMix64(seed: options.seed)
        var failure: Failure?
        var stop: Cut.Reason?
        var runs = 0
        while runs < options.runs, failure == nil, stop == nil {
            // A recorded run gets a machine of its own.
            if runs > 0, options.recorder != nil || !world.reset() {
                world.close()
                world = try World(
                    facts, source.test, deadline,
                    trace: options.recorder?.begin(backend: facts.backend, vm: source.test.vm))
            }
            var ending = Ending()
            let watcher = runs == 0 ? options.watcher : nil
            if runs == 1 { options.watcher?(.began(.furtherRuns(runs: options.runs))) }
            failure = try run(world, team, &chance, &ending, watcher)
            runs += 1
            if failure == nil { tally.add(ending) }
            world.record(ending, of: program, in: source)
            options.recorder?.end(isNotable: isNotable(ending, failure))
            options.progress?(runs)
            if runs < options.runs { stop = deadline.stop }
        }
        if runs > 1 { options.watcher?(.ended(.furtherRuns(runs: options.runs), .runs(runs))) }
        return tally.report(Judge(source), wanted: options.runs, failure: failure, stop)
    }

    private func isNotable(_ ending: Ending, _ failure: Failure?) -> Bool {
        if let witness = options.witness { return program.matches(witness, ending) }
        return failure != nil || program.fails(ending)
    }

    private func run(
        _ world: World, _ team: ThreadTeam, _ chance: inout SplitMix64, _ ending: inout Ending,
        _ watcher: (@Sendable (RunEvent) -> Void)?
    ) throws(Stop) -> Failure? {
        for part in program.parts {
            switch part {
            case .step(let index, let step):
                if let failure = try source.perform(index, step, world, watcher: watcher) {
                    return failure
                }
            case .block(let block):
                watcher?(.began(.block(first: block.first, runs: options.runs)))
                try block.prepare(world)
                let runs = block.actors.map { ActorRun($0, chance.next()) }
                team.run { number in
                    if runs.indices.contains(number) { runs[number].run(source, world) }
                }
                if let failure = try block.add(runs.map(\.results), to: &ending) { return failure }
                watcher?(.ended(.block(first: block.first, runs: options.runs), .results(of: block, ending)))
            }
        }
        return nil
    }
}

extension RunEvent.Result {
    static func results(of block: Program.Block, _ ending: Ending) -> Self {
        let results = block.results(of: ending)
        return .results(block.list(results), isAllowed: block.allows(results))
    }
}

/// The outcomes seen so far. It outlives the threads of a hanging run.
final class Tally: Sendable {
    private struct State {
        var counts: [(ending: Ending, runs: Int)] = []
        /// The index in ``counts`` of each ending.
        var places: [Ending: Int] = [:]
        var runs = 0
        var model: Interleavings.Result?
    }
    private let state = Mutex(State())

    /// Completed runs.
    var runs: Int { state.withLock { $0.runs } }

    /// - Parameter model: the interleavings that judge the outcomes.
    func judge(by model: Interleavings.Result?) { state.withLock { $0.model = model } }

    /// - Parameter place: where the ending was counted before, which saves hashing it; nil if that is not known.
    /// - Returns: where it is counted.
    @discardableResult func add(_ ending: Ending, at place: Int? = nil) -> Int {
        state.withLock { state in
            state.runs += 1
            if let place = place ?? state.places[ending] {
                state.counts[place].runs += 1
                return place
            }
            state.places[ending] = state.counts.count
            state.counts.append((ending, 1))
            return state.counts.count - 1
        }
    }

    /// - Parameter stop: why there are fewer runs than requested; nil if there are not.
    func report(_ judge: Judge, wanted: Int, failure: Failure?, _ stop: Cut.Reason?) -> Report {
        let state = state.withLock { $0 }
        let seen = judge.program.blocks.map { block in
            Dictionary(
                state.counts.map { (block.results(of: $0.ending), $0.runs) }, uniquingKeysWith: +)
        }
        return judge.report(
            seen: seen, runs: state.runs + (failure == nil ? 0 : 1), model: state.model,
            failure: failure,
            cut: stop.map { Cut(reason: $0, runs: state.runs, wanted: wanted) })
    }
}

/// The steps of one actor in one run. Used by its thread, then by the caller.
private final class ActorRun: Sendable {
    private let steps: [(index: Int, step: Step)]
    private let seed: UInt64
    private let state = Mutex(ActorResults())

    init(_ steps: [(index: Int, step: Step)], _ seed: UInt64) {
        self.steps = steps
        self.seed = seed
    }

    var results: ActorResults { state.withLock { $0 } }

    func run(_ source: Source, _ world: World) {
        var chance = SplitMix64(seed: seed)
        let results = ActorResults(performing: steps, source, world) { Self.wait(&chance) }
        state.withLock { $0 = results }
    }

    /// Waits for a random time: not at all, for a short loop, or until another thread has run. On one CPU only the
    /// latter lets others in between.
    private static func wait(_ chance: inout SplitMix64) {
        let draw = chance.next()
        switch draw % 4 {
        case 0: break
        case 1: sched_yield()
        default:
            // Up to 64, 512 or 4096 iterations, which the compiler cannot remove.
            let turns = (draw >> 8) % (64 << (3 * ((draw >> 4) % 3)))
            var clock: UInt64 = 0
            for _ in 0..<turns { clock &+= monotonicTick() }
            withExtendedLifetime(clock) {}
        }
    }

    @inline(never) private static func monotonicTick() -> UInt64 { 1 }
}
