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
    /// The results and measurements of a run.
    struct Result: Sendable {
        var victim = ActorResults()
        var intruder = ActorResults()
        /// The results of a third actor that preempted the intruder.
        var third = ActorResults()
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

    /// The stacks of the victim and of the intruder. Nil if the kernel does not show it.
    struct Stacks: Sendable {
        let victim: KernelStack?
        let intruder: KernelStack?
    }

    private let preemption: Preemption
    private let block: Program.Block
    private let team: PreemptionTeam
    /// Reads the stacks of the victim and of the intruder; nil to read none.
    private let stacks: Stacks?
    /// The processes of actors that are children.
    private let processes: [Actor: Int32]
    private let limit: UInt64
    /// Each seat writes its part; read by the caller when all seats have ended.
    private let result = Mutex(Result())

    private init(
        _ preemption: Preemption, _ block: Program.Block, _ team: PreemptionTeam,
        _ stacks: Stacks?, _ processes: [Actor: Int32], _ limit: UInt64
    ) {
        self.limit = limit
        self.processes = processes
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
    /// - Returns: the results, and those of each actor in the block's order.
    static func perform(
        _ preemption: Preemption, _ block: Program.Block, on team: PreemptionTeam,
        stacks: Stacks?, limit: UInt64, _ source: Source, _ world: World
    ) -> (Result, [ActorResults]) {
        let processes = world.processes
        for (seat, actor) in preemption.actors.enumerated() {
            // A child performs the steps for its thread, so it has the thread's priority.
            if let process = processes[actor] {
                _ = ckvm_set_fifo_priority(process, PreemptionTeam.priorities[seat])
            }
        }
        let run = PreemptedRun(preemption, block, team, stacks, processes, limit)
        // Delays are at most Preemption.longestDelay each.
        let latest = preemption.delay + (preemption.second?.delay ?? 0) + limit
        // Only a vCPU spins.
        let isWatched = preemption.actors.contains { if case .vcpu = $0 { true } else { false } }
        team.run(jobs: preemption.second == nil ? 2 : 3, limit: isWatched ? latest : nil) {
            run.perform($0, source, world)
        }
        let result = run.result.withLock { $0 }
        let all = block.actors.map { steps in
            switch steps.first?.step.actor {
            case preemption.victim?: result.victim
            case preemption.intruder?: result.intruder
            case let actor? where actor == preemption.second?.actor: result.third
            default: ActorResults(performing: steps, source, world)
            }
        }
        return (result, all)
    }

    private func perform(_ seat: Int, _ source: Source, _ world: World) {
        switch seat {
        case 0:
            let start = monotonicNanoseconds()
            begin(1, after: preemption.delay)
            let actor = run(preemption.victim, source, world)
            let end = monotonicNanoseconds()
            result.withLock {
                $0.victim = actor
                $0.duration = end &- start
            }
        case 1:
            let stack = stacks?.victim?.text() ?? []
            let start = monotonicNanoseconds()
            let sleeps = ckvm_sleeps()
            if let second = preemption.second { begin(2, after: second.delay) }
            let actor = run(preemption.intruder, source, world)
            let slept = ckvm_sleeps() - sleeps
            let end = monotonicNanoseconds()
            result.withLock {
                $0.intruder = actor
                $0.intruderDuration = end &- start
                $0.sleeps = slept
                $0.stack = stack
            }
        case PreemptionTeam.watcher:
            // First the victim goes on, then the intruder, and so on, each time for longer.
            let rescues = result.withLock {
                $0.rescues += 1
                return $0.rescues
            }
            team.prefer(
                (rescues - 1) % preemption.actors.count, processes: preemption.actors.map { processes[$0] })
            team.start(PreemptionTeam.watcher, after: limit << UInt64(min(rescues, 8)))
        default:
            let stack = stacks?.intruder?.text() ?? []
            result.withLock { $0.secondStack = stack }
            guard let actor = preemption.second?.actor else { return }
            if actor == preemption.victim {
                team.prefer(0, processes: preemption.actors.map { processes[$0] })
            } else {
                let actor = run(actor, source, world)
                result.withLock { $0.third = actor }
            }
        }
    }

    /// Arms the timer of a seat. From here to the first step, the path is the same for each delay.
    private func begin(_ seat: Int, after delay: UInt64) {
        let (timer, padding) = team.grid.split(delay)
        team.start(seat, after: timer)
        ckvm_pad(padding)
    }

    private func run(_ actor: Actor, _ source: Source, _ world: World) -> ActorResults {
        ActorResults(
            performing: block.actors.first { $0.first?.step.actor == actor } ?? [], source, world)
    }
}
