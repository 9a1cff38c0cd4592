// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM
import Synchronization

/// One run of a parallel block with one preemption.
///
/// All threads run on one CPU. The intruder, with SCHED_FIFO priority, sleeps until `delay` after the victim's start. Its
/// timer interrupt then preempts the victim wherever it is, in user space or in the kernel, and it performs its steps. If it
/// blocks on a lock that the victim holds, the victim continues. Other actors act after both have ended, in the order of the
/// text.
///
/// The fields are written by the thread named in their comments and read by the caller after ``ThreadTeam/run(_:)``.
final class PreemptedRun: Sendable {
    private let schedule: Schedule
    private let steps: [(actor: Actor, steps: [(index: Int, step: Step)])]
    private let results: Mutex<[ActorResults]>
    /// The start of the victim's steps on the monotonic clock; set by the intruder just before it sleeps.
    private let start = Atomic<UInt64>(0)
    /// Counts actors that have ended.
    private let ended = Atomic<Int>(0)
    /// Set by the victim: the end of its steps on the monotonic clock.
    private let victimEnd = Atomic<UInt64>(0)
    /// Set by the victim before ``start``: its thread.
    private let victimThread = Atomic<Int>(0)
    /// Set by the intruder: the text of the victim's kernel stack.
    private let stack = Mutex<[UInt8]>([])

    /// Time for the intruder to go to sleep before the victim starts, in nanoseconds.
    private static let lead: UInt64 = 100_000
    private static let priority: Int32 = 50

    init(_ schedule: Schedule, _ block: Program.Block) {
        self.schedule = schedule
        steps = block.actors.compactMap { steps in steps.first.map { ($0.step.actor, steps) } }
        results = Mutex(Array(repeating: ActorResults(), count: block.actors.count))
    }

    /// The results of the actors, in their order.
    var actorResults: [ActorResults] { results.withLock { $0 } }
    /// Nanoseconds that the victim's steps took, with the preemption.
    var duration: UInt64 {
        victimEnd.load(ordering: .acquiring) &- start.load(ordering: .acquiring)
    }
    var stackText: [UInt8] { stack.withLock { $0 } }

    /// Performs the steps of one actor; called on a thread of its own.
    func perform(_ number: Int, _ source: Source, _ world: World) {
        guard steps.indices.contains(number) else { return }
        let (actor, steps) = steps[number]
        switch actor {
        case schedule.victim: preempted(number, steps, source, world)
        case schedule.intruder: preempting(number, steps, source, world)
        default:
            let before = self.steps.prefix(number).count {
                $0.actor != schedule.victim && $0.actor != schedule.intruder
            }
            while ended.load(ordering: .acquiring) < 2 + before { sched_yield() }
            run(number, steps, source, world)
        }
        ended.add(1, ordering: .releasing)
    }

    private func preempted(
        _ number: Int, _ steps: [(index: Int, step: Step)], _ source: Source, _ world: World
    ) {
        victimThread.store(ckvm_thread_id(), ordering: .releasing)
        var start = self.start.load(ordering: .acquiring)
        while start == 0 {
            sched_yield()
            start = self.start.load(ordering: .acquiring)
        }
        while monotonicNanoseconds() < start {}
        run(number, steps, source, world)
        victimEnd.store(monotonicNanoseconds(), ordering: .releasing)
    }

    private func preempting(
        _ number: Int, _ steps: [(index: Int, step: Step)], _ source: Source, _ world: World
    ) {
        var thread = 0
        while thread == 0 {
            sched_yield()
            thread = victimThread.load(ordering: .acquiring)
        }
        let stack = KernelStack(thread: thread)
        var text = [UInt8](repeating: 0, count: 4096)
        // From here to the end of its steps nothing but a lock lets the victim run.
        _ = ckvm_set_fifo_priority(Self.priority)
        let start = monotonicNanoseconds() + Self.lead
        self.start.store(start, ordering: .releasing)
        _ = ckvm_sleep_until(start + schedule.delay)
        let count = stack?.read(into: &text) ?? 0
        run(number, steps, source, world)
        _ = ckvm_set_fifo_priority(0)
        stack?.close()
        self.stack.withLock { $0 = Array(text[..<count]) }
    }

    private func run(
        _ number: Int, _ steps: [(index: Int, step: Step)], _ source: Source, _ world: World
    ) {
        let actor = ActorResults(performing: steps, source, world)
        results.withLock { $0[number] = actor }
    }
}
