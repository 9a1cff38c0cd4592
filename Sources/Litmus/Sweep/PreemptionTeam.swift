// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM
import Synchronization

/// Threads on one CPU that start at chosen times and preempt each other. A test thread keeps its team for all its sweeps.
///
/// The first seat is the owner's thread, which begins its job at once: to wake another thread takes longer than a short step. Each
/// other seat is a thread that sleeps until its timer expires, does its job once, and sleeps again. A later seat has a higher
/// SCHED_FIFO priority, so it preempts an earlier one when its timer expires. No seat is disturbed by threads of ordinary
/// priority, which run when the owner waits or rests. The owner calls everything but ``start(_:after:)`` and
/// ``prefer(_:processes:)``, which jobs call.
///
/// A thread may spin until a preempted one goes on: a vCPU enters the guest again and again while a conversion is in progress.
/// So the last seat watches a round, and gives one thread after the other precedence when it takes too long.
@safe final class PreemptionTeam: @unchecked Sendable {
    typealias Job = @Sendable (_ seat: Int) -> Void

    /// The number of seats: a victim, an intruder, one that preempts the intruder, and the one that watches.
    static let seats = 4
    static let watcher = 3
    /// Seats from the first to the last, and above them a seat that was given precedence.
    static let priorities: [Int32] = [10, 50, 60, 80, 70]

    /// A function in a lock is converted each time that it is read, which allocates memory.
    private final class Round: Sendable {
        let job: Job

        init(_ job: @escaping Job) { self.job = job }
    }

    private final class Seat: Sendable {
        let timer: OwnedDescriptor
        /// Written by the seat's thread before a round.
        let thread = Atomic<Int>(0)
        let host = Mutex<HostThread?>(nil)

        init(_ timer: Int32) { self.timer = OwnedDescriptor(owning: timer) }
    }

    /// The CPU of all threads.
    let cpu: Int32
    /// The times at which the timers can expire, measured once.
    private(set) var grid = TimerGrid([], from: 0)
    /// The kernel stacks of the first two seats.
    private(set) var stacks = PreemptedRun.Stacks(victim: nil, intruder: nil)
    private let all: [Seat]
    /// The round; nil ends the threads. Written by the owner between rounds.
    private let round = Mutex<Round?>(nil)
    /// Whether a round is in progress. Seats are given precedence under its lock, so none is after the round.
    private let isRunning = Mutex(false)
    /// Whether a seat was given precedence in the round.
    private let isChanged = Atomic<Bool>(false)
    /// Counts jobs of the threads that have ended.
    private let ended: UnsafeMutablePointer<sem_t>
    /// For ``measureTimer()``: whether the loop has to stop, and how far it has come.
    private let stop: UnsafeMutablePointer<Int32>
    private let count: UnsafeMutablePointer<UInt64>

    /// Binds the calling thread to its CPU, and creates the threads there.
    ///
    /// - Returns: nil if the system cannot create the threads or their timers.
    init?() {
        cpu = Int32(clamping: ckvm_current_cpu())
        var seats: [Seat] = []
        for _ in 0..<Self.seats {
            let timer = ckvm_timer()
            guard timer >= 0 else { return nil }
            seats.append(Seat(Int32(truncatingIfNeeded: timer)))
        }
        all = seats
        unsafe ended = .allocate(capacity: 1)
        unsafe sem_init(ended, 0, 0)
        unsafe stop = .allocate(capacity: 1)
        unsafe count = .allocate(capacity: 1)
        unsafe stop.initialize(to: 0)
        unsafe count.initialize(to: 0)
        bind()
        for number in all.indices.dropFirst() {
            guard let thread = HostThread({ [self] in work(number) }) else {
                end()
                unbind()
                return nil
            }
            all[number].host.withLock { $0 = thread }
            wait(1)
        }
        grid = measureTimer()
        stacks = PreemptedRun.Stacks(
            victim: KernelStack(thread: thread(of: 0)), intruder: KernelStack(thread: thread(of: 1)))
    }

    /// Binds the owner's thread to the CPU, with the priority of the first seat. Until ``unbind()`` it can run rounds.
    func bind() { take(0) }

    /// Lets the owner's thread run on all CPUs, with ordinary priority.
    func unbind() {
        _ = ckvm_set_fifo_priority(0, 0)
        _ = ckvm_bind_to_cpu(-1)
    }

    /// Makes the calling thread the thread of a seat.
    private func take(_ seat: Int) {
        _ = ckvm_bind_to_cpu(cpu)
        _ = ckvm_set_fifo_priority(0, Self.priorities[seat])
        all[seat].thread.store(ckvm_thread_id(), ordering: .releasing)
    }

    /// Lets threads of ordinary priority run for 200 µs: the one that handles Ctrl-C, and threads of the kernel. Work that they
    /// have not finished can disturb the next thousands of instructions, so the caller resets the machine between this and a round.
    func rest() { _ = ckvm_sleep_until(monotonicNanoseconds() + 200_000) }

    deinit {
        unsafe sem_destroy(ended)
        unsafe ended.deallocate()
        unsafe stop.deallocate()
        unsafe count.deallocate()
    }

    /// The thread of a seat, as gettid(2) names it.
    func thread(of seat: Int) -> Int { all[seat].thread.load(ordering: .acquiring) }

    /// Runs a round: the first seat does its job at once, the others when a job starts them. Returns when `count` jobs have ended.
    ///
    /// - Parameter limit: nanoseconds after which the job of the watching seat is called, which is not counted; nil if no
    ///   thread can spin. To arm a timer takes long on an emulated machine.
    func run(jobs count: Int, limit: UInt64?, _ job: @escaping Job) {
        let round = Round(job)
        self.round.withLock { $0 = round }
        isRunning.withLock { $0 = true }
        if let limit { start(Self.watcher, after: max(1, limit)) }
        job(0)
        wait(count - 1)
        isRunning.withLock { $0 = false }
        if limit != nil { start(Self.watcher, after: 0) }
        guard isChanged.exchange(false, ordering: .acquiringAndReleasing) else { return }
        for seat in 0..<Self.watcher {
            _ = ckvm_set_fifo_priority(Int32(truncatingIfNeeded: thread(of: seat)), Self.priorities[seat])
        }
    }

    /// Starts the job of a seat that sleeps, after a delay in nanoseconds; 0 withdraws an earlier start.
    func start(_ seat: Int, after delay: UInt64) { _ = ckvm_timer_start(all[seat].timer.rawValue, delay) }

    /// Gives a seat precedence over all others but the watcher, until another one gets it or the round ends.
    ///
    /// - Parameter processes: the children that act for seats, by seat.
    func prefer(_ seat: Int, processes: [Int32?]) {
        isRunning.withLock { isRunning in
            guard isRunning else { return }
            isChanged.store(true, ordering: .releasing)
            // A thread that spins at the highest priority would keep out the next one.
            for other in 0..<Self.watcher {
                let priority = other == seat ? Self.priorities[Self.seats] : Self.priorities[other]
                if processes.indices.contains(other), let process = processes[other] {
                    _ = ckvm_set_fifo_priority(process, priority)
                }
                _ = ckvm_set_fifo_priority(Int32(truncatingIfNeeded: thread(of: other)), priority)
            }
        }
    }

    /// Ends the threads. Nothing can be run afterwards.
    func end() {
        round.withLock { $0 = nil }
        for number in all.indices {
            let thread = all[number].host.withLock { $0.take() }
            guard let thread else { continue }
            start(number, after: 1)
            thread.join()
        }
    }

    private func wait(_ count: Int) {
        for _ in 0..<count { while unsafe sem_wait(ended) != 0 {} }
    }

    private func work(_ number: Int) {
        take(number)
        unsafe sem_post(ended)
        while ckvm_timer_wait(all[number].timer.rawValue) == 0 {
            guard let round = round.withLock({ $0 }) else { return }
            round.job(number)
            if number != Self.watcher { unsafe sem_post(ended) }
        }
    }

    // MARK: the timer

    /// The first delay that is measured, in nanoseconds, and the number of consecutive ones.
    private static let measured: (first: UInt64, count: UInt64) = (30_000, 96)

    /// Measures at which places of a loop the second seat preempts the first.
    private func measureTimer() -> TimerGrid {
        let delays = (0..<Self.measured.count).map { Self.measured.first + $0 }
        // The first attempts take longer paths.
        for _ in 0..<3 { _ = place(of: Self.measured.first) }
        return TimerGrid(delays.map { [place(of: $0), place(of: $0)] }, from: Self.measured.first)
    }

    /// The count that a loop of the first seat has reached `delay` after the second seat's timer was armed.
    private func place(of delay: UInt64) -> UInt64 {
        unsafe stop.pointee = 0
        unsafe count.pointee = 0
        run(jobs: 2, limit: nil) { [self] seat in
            switch seat {
            case 0:
                start(1, after: delay)
                unsafe ckvm_count_until(stop, count)
            case 1: unsafe stop.pointee = 1
            default: break
            }
        }
        return unsafe count.pointee
    }
}
