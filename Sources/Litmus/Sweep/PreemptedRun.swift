// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization

/// One run of a parallel block with a ``Preemption``, on the threads of a ``PreemptionTeam``.
///
/// The victim arms the intruder's timer and performs its steps. The timer interrupt preempts it wherever it is, in user space
/// or in the kernel, and the intruder performs its steps. If the intruder blocks on a lock that the victim holds, the victim
/// continues.
final class PreemptedRun: Sendable {
    /// The measurements of a run.
    struct Result: Sendable {
        /// Nanoseconds that the steps of victim and intruder took, with preemptions.
        var duration: UInt64 = 0
        var intruderDuration: UInt64 = 0
        /// How often the intruder slept in the kernel during its steps.
        var sleeps = 0
        /// How often preempted threads were given precedence, because another one waited for them without sleeping.
        var rescues = 0
        /// The kernel stacks of the preempted threads, if they were asked for: of the victim, and of the intruder at the
        /// second preemption.
        var stack: [UInt8] = []
        var secondStack: [UInt8] = []
    }

    private struct State {
        var result = Result()
        var victim = ActorResults()
        var intruder = ActorResults()
        /// The results of a third actor that preempted the intruder.
        var third = ActorResults()
    }

    /// The stacks of the victim and of the intruder. Nil if the kernel does not show it.
    struct Stacks: Sendable {
        let victim: KernelStack?
        let intruder: KernelStack?
    }

    private let preemption: Preemption
    private let block: Program.Block
    private let team: PreemptionTeam
    private let source: Source
    private let world: World
    /// Reads the stacks of the victim and of the intruder; nil to read none.
    private let stacks: Stacks?
    /// The processes of actors that are children.
    private let processes: [Actor: Int32]
    private let limit: UInt64
    /// Each seat writes its part; read by the caller when all seats have ended.
    private let state = Mutex(State())
    /// Whether the victim has ended its steps. Afterwards it waits in the kernel, which is no place of a step.
    private let hasEnded = Atomic<Bool>(false)

    private init(
        _ preemption: Preemption, _ block: Program.Block, _ team: PreemptionTeam,
        _ stacks: Stacks?, _ limit: UInt64, _ source: Source, _ world: World
    ) {
        self.limit = limit
        self.source = source
        self.world = world
        processes = world.processes
        self.preemption = preemption
        self.team = team
        self.stacks = stacks
        self.block = block
    }

    /// Performs the steps of the block's actors under the preemption. Actors without a part in it act afterwards, in the
    /// order of the text, on the calling thread.
    ///
    /// - Parameter limit: the time after the last preemption from which on a thread that has not ended counts as waiting, in
    ///   nanoseconds.
    /// - Returns: the measurements, and the results of each actor in the block's order.
    static func perform(
        _ preemption: Preemption, _ block: Program.Block, on team: PreemptionTeam,
        stacks: Stacks?, limit: UInt64, _ source: Source, _ world: World
    ) -> (Result, [ActorResults]) {
        let run = PreemptedRun(preemption, block, team, stacks, limit, source, world)
        for (seat, actor) in run.processes.isEmpty ? [] : Array(preemption.actors.enumerated()) {
            // A child performs the steps for its thread, so it has the thread's priority.
            if let process = run.processes[actor] {
                _ = ckvm_set_fifo_priority(process, PreemptionTeam.priorities[seat])
            }
        }
        // Delays are at most Preemption.longestDelay each.
        let latest = preemption.delay + (preemption.second?.delay ?? 0) + limit
        // Only a vCPU spins.
        let isWatched =
            preemption.victim.isVCPU || preemption.intruder.isVCPU
            || preemption.second?.actor.isVCPU == true
        team.run(jobs: preemption.second == nil ? 2 : 3, limit: isWatched ? latest : nil) {
            run.perform($0)
        }
        var state = State()
        run.state.withLock { swap(&$0, &state) }
        let all = block.actors.map { steps in
            switch steps.first?.step.actor {
            case preemption.victim?: state.victim
            case preemption.intruder?: state.intruder
            case let actor? where actor == preemption.second?.actor: state.third
            default: ActorResults(performing: steps, source, world)
            }
        }
        return (state.result, all)
    }

    private func perform(_ seat: Int) {
        switch seat {
        case 0:
            let start = monotonicNanoseconds()
            begin(1, after: preemption.delay)
            let actor = run(preemption.victim)
            hasEnded.store(true, ordering: .releasing)
            let end = monotonicNanoseconds()
            state.withLock {
                $0.victim = actor
                $0.result.duration = end &- start
            }
        case 1:
            let stack = hasEnded.load(ordering: .acquiring) ? [] : stacks?.victim?.text() ?? []
            let start = monotonicNanoseconds()
            let sleeps = ckvm_sleeps()
            if let second = preemption.second { begin(2, after: second.delay) }
            let actor = run(preemption.intruder)
            let slept = ckvm_sleeps() - sleeps
            let end = monotonicNanoseconds()
            state.withLock {
                $0.intruder = actor
                $0.result.intruderDuration = end &- start
                $0.result.sleeps = slept
                $0.result.stack = stack
            }
        case PreemptionTeam.watcher:
            // First the victim goes on, then the intruder, and so on, each time for longer.
            let rescues = state.withLock {
                $0.result.rescues += 1
                return $0.result.rescues
            }
            team.prefer(
                (rescues - 1) % preemption.actors.count, processes: preemption.actors.map { processes[$0] })
            team.start(PreemptionTeam.watcher, after: limit << UInt64(min(rescues, 8)))
        default:
            let stack = stacks?.intruder?.text() ?? []
            state.withLock { $0.result.secondStack = stack }
            guard let actor = preemption.second?.actor else { return }
            if actor == preemption.victim {
                team.prefer(0, processes: preemption.actors.map { processes[$0] })
            } else {
                let actor = run(actor)
                state.withLock { $0.third = actor }
            }
        }
    }

    /// Arms the timer of a seat. From here to the first step, the path is the same for each delay.
    private func begin(_ seat: Int, after delay: UInt64) {
        let (timer, padding) = team.grid.split(delay)
        team.start(seat, after: timer)
        ckvm_pad(padding)
    }

    private func run(_ actor: Actor) -> ActorResults {
        ActorResults(
            performing: block.actors.first { $0.first?.step.actor == actor } ?? [], source, world)
    }
}

extension Actor {
    fileprivate var isVCPU: Bool { if case .vcpu = self { true } else { false } }
}
