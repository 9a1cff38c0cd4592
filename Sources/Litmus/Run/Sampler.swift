// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SoftKVM
import Synchronization

/// Runs a test with parallel blocks many times, an actor a thread, as litmus7 does: what is rare shows itself by
/// spreading the times at which actors start.
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

    /// Runs the test as often as the options say, or until it is to stop, but once at least.
    func report() throws(Stop) -> Report {
        let width = program.blocks.map(\.actors.count).max() ?? 1
        guard let team = ThreadTeam(width) else {
            throw .host(HostFailure("pthread_create", .resourceTemporarilyUnavailable))
        }
        defer { team.end() }
        var world = try World(
            facts, source.test, deadline, trace: options.recorder?.begin(backend: facts.backend))
        defer { world.close() }
        var chance = SplitMix64(seed: options.seed)
        var failure: Failure?
        var stop: Cut.Reason?
        var runs = 0
        while runs < options.runs, failure == nil, stop == nil {
            // A run that is written down has a machine of its own.
            if runs > 0, options.recorder != nil || !world.reset() {
                world.close()
                world = try World(
                    facts, source.test, deadline, trace: options.recorder?.begin(backend: facts.backend))
            }
            var ending = Ending()
            failure = try run(world, team, &chance, &ending)
            runs += 1
            if failure == nil { tally.add(ending, program) }
            world.record(ending, of: program, in: source)
            options.recorder?.end(isTelling: failure != nil || program.disallows(ending))
            options.progress?(runs)
            if runs < options.runs { stop = deadline.stop }
        }
        return tally.report(Judge(source), wanted: options.runs, failure: failure, stop)
    }

    private func run(
        _ world: World, _ team: ThreadTeam, _ chance: inout SplitMix64, _ ending: inout Ending
    ) throws(Stop) -> Failure? {
        for part in program.parts {
            switch part {
            case .step(let index, let step):
                if let failure = try source.perform(index, step, world) { return failure }
            case .block(let block):
                try prepare(block, world)
                let tracks = block.actors.map { Track($0, chance.next()) }
                team.run { number in
                    if tracks.indices.contains(number) { tracks[number].run(source, world) }
                }
                for track in tracks {
                    let (results, stop, failure) = track.ending
                    if let stop { throw stop }
                    if let failure { return failure }
                    for (name, outcome) in results {
                        if let place = block.place(of: name) { ending[place] = outcome }
                    }
                }
            }
        }
        return nil
    }

    /// What actors need is there before they race.
    private func prepare(_ block: Program.Block, _ world: World) throws(Stop) {
        for actor in block.actors {
            if case .vcpu(let number)? = actor.first?.step.actor { try world.guest().prepare(number) }
        }
    }
}

/// What was seen so far. It outlives the threads of a run that hangs.
final class Tally: Sendable {
    private struct State {
        var counts: [[[Name: StepOutcome]: Int]]
        var runs = 0
        var model: Interleavings.Result?
    }
    private let state: Mutex<State>

    init(_ program: Program) {
        state = Mutex(State(counts: Array(repeating: [:], count: program.blocks.count)))
    }

    /// Runs that came to their end.
    var runs: Int { state.withLock { $0.runs } }

    /// - Parameter model: what is judged by.
    func judge(by model: Interleavings.Result?) { state.withLock { $0.model = model } }

    func add(_ ending: Ending, _ program: Program) {
        state.withLock { state in
            state.runs += 1
            for block in program.blocks {
                state.counts[block.number][block.results(of: ending), default: 0] += 1
            }
        }
    }

    /// - Parameter stop: why these are not all runs.
    func report(_ judge: Judge, wanted: Int, failure: Failure?, _ stop: Cut.Reason?) -> Report {
        let state = state.withLock { $0 }
        return judge.report(
            seen: state.counts, runs: state.runs + (failure == nil ? 0 : 1), model: state.model,
            failure: failure,
            cut: stop.map { Cut(reason: $0, runs: state.runs, wanted: wanted) })
    }
}

/// The steps of one actor in one run. Used by its thread, and by the caller when that is done.
private final class Track: Sendable {
    private struct State {
        var results: [Name: StepOutcome] = [:]
        var stop: Stop?
        var failure: Failure?
    }
    private let steps: [(index: Int, step: Step)]
    private let seed: UInt64
    private let state = Mutex(State())

    init(_ steps: [(index: Int, step: Step)], _ seed: UInt64) {
        self.steps = steps
        self.seed = seed
    }

    var ending: (results: [Name: StepOutcome], stop: Stop?, failure: Failure?) {
        state.withLock { ($0.results, $0.stop, $0.failure) }
    }

    func run(_ source: Source, _ world: World) {
        var chance = SplitMix64(seed: seed)
        var state = State()
        do throws(Stop) {
            for (index, step) in steps {
                Self.wait(&chance)
                let failure = try source.perform(index, step, world, isRacing: true) { seen in
                    if let name = step.result { state.results[name] = seen }
                }
                if let failure {
                    state.failure = failure
                    break
                }
            }
        } catch {
            state.stop = error
        }
        self.state.withLock { $0 = state }
    }

    /// Nothing, a little while, or what it takes for another thread to run: on one CPU only that lets others in between.
    private static func wait(_ chance: inout SplitMix64) {
        let draw = chance.next()
        switch draw % 4 {
        case 0: break
        case 1: sched_yield()
        default:
            // Up to 64, 512 or 4096 turns of a loop that the compiler cannot leave out.
            let turns = (draw >> 8) % (64 << (3 * ((draw >> 4) % 3)))
            var clock: UInt64 = 0
            for _ in 0..<turns { clock &+= monotonicTick() }
            withExtendedLifetime(clock) {}
        }
    }

    @inline(never) private static func monotonicTick() -> UInt64 { 1 }
}
