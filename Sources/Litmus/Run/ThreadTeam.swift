// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import Synchronization

/// Threads that do a job concurrently, again and again. The caller is one of them.
///
/// ``run(_:)`` starts a round through a counter that all threads poll; a thread that has waited long sleeps. All jobs
/// of a round begin when the last thread has arrived.
@safe final class ThreadTeam: @unchecked Sendable {
    typealias Job = @Sendable (_ number: Int) -> Void

    private let size: Int
    /// Counts rounds. Written by the caller of ``run(_:)`` under `mutex`.
    private let round = Atomic<Int>(0)
    /// Threads that have arrived for the round, and threads that have completed it.
    private let ready = Atomic<Int>(0)
    private let done = Atomic<Int>(0)
    /// The job of the round. Written before the round starts, read afterwards.
    private var job: Job = { _ in }
    private var threads: [HostThread] = []
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let handedOut: UnsafeMutablePointer<pthread_cond_t>

    /// - Returns: nil if so many threads cannot be created.
    init?(_ size: Int) {
        self.size = size
        unsafe mutex = .allocate(capacity: 1)
        unsafe handedOut = .allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(handedOut, nil)
        for number in 1..<max(1, size) {
            // The threads end before this object does: see ``end()``.
            guard let thread = HostThread({ [self] in work(number) }) else {
                end()
                return nil
            }
            threads.append(thread)
        }
    }

    deinit {
        unsafe pthread_cond_destroy(handedOut)
        unsafe pthread_mutex_destroy(mutex)
        unsafe handedOut.deallocate()
        unsafe mutex.deallocate()
    }

    /// Makes every thread do the job, and waits for the last one.
    func run(_ job: @escaping Job) {
        self.job = job
        ready.store(0, ordering: .relaxed)
        done.store(0, ordering: .relaxed)
        handOut(round.load(ordering: .relaxed) + 1)
        doJob(0)
        Self.spin { done.load(ordering: .acquiring) == size }
        self.job = { _ in }
    }

    /// Ends the threads. Nothing can be run afterwards.
    func end() {
        handOut(-1)
        for thread in threads { thread.join() }
        threads = []
    }

    private func handOut(_ number: Int) {
        unsafe pthread_mutex_lock(mutex)
        round.store(number, ordering: .releasing)
        unsafe pthread_cond_broadcast(handedOut)
        unsafe pthread_mutex_unlock(mutex)
    }

    private func work(_ number: Int) {
        var last = 0
        while true {
            var spins = 0
            while round.load(ordering: .acquiring) == last, spins < 200 {
                spins += 1
                sched_yield()
            }
            unsafe pthread_mutex_lock(mutex)
            while round.load(ordering: .acquiring) == last { unsafe pthread_cond_wait(handedOut, mutex) }
            last = round.load(ordering: .acquiring)
            unsafe pthread_mutex_unlock(mutex)
            if last < 0 { return }
            doJob(number)
        }
    }

    private func doJob(_ number: Int) {
        let job = job
        ready.add(1, ordering: .sequentiallyConsistent)
        Self.spin { ready.load(ordering: .sequentiallyConsistent) == size }
        job(number)
        done.add(1, ordering: .releasing)
    }

    private static func spin(until isSo: () -> Bool) {
        var spins = 0
        while !isSo() {
            spins += 1
            // A missing thread is no reason to keep a CPU busy.
            if spins > 1 << 20 { usleep(1000) } else if spins % 64 == 0 { sched_yield() }
        }
    }
}
