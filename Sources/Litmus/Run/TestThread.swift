// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization
import SystemPackage

/// A thread that runs one test after the other, with the machines that they leave.
final class TestThread: Sendable {
    typealias Job = @Sendable (MachinePool) -> Void

    /// The state shared by the thread and its owner. The thread may outlive its owner inside a system call that does
    /// not return.
    private final class Shared: Sendable {
        /// Nil ends the thread. Written before ``given`` is signalled, read afterwards.
        let job = Mutex<Job?>(nil)
        let given: EventDescriptor
        let done: EventDescriptor

        init() throws(Errno) {
            given = try EventDescriptor()
            done = try EventDescriptor()
        }

        func work() {
            let pool = MachinePool()
            while true {
                _ = given.wait(timeout: nil)
                given.clear()
                guard let job = job.withLock({ $0.take() }) else { break }
                job(pool)
                done.signal()
            }
        }
    }

    private let shared: Shared
    private let thread: HostThread
    /// The time limit of the current test. The thread runs no other test after it has passed.
    let deadline = TestDeadline()

    /// - Throws: if the host has no more descriptors or threads.
    init() throws(HostFailure) {
        do throws(Errno) { shared = try Shared() } catch { throw HostFailure("eventfd", error) }
        let shared = shared
        guard let thread = HostThread({ shared.work() }) else {
            throw HostFailure("pthread_create", .resourceTemporarilyUnavailable)
        }
        self.thread = thread
    }

    /// Starts a job. The previous one must have ended.
    func begin(_ job: @escaping Job) {
        shared.done.clear()
        shared.job.withLock { $0 = job }
        shared.given.signal()
    }

    /// Waits for the end of the job.
    func wait(timeout: Duration, interrupts: SignalDescriptor?) -> EventDescriptor.Wakeup {
        shared.done.wait(timeout: timeout, interrupts: interrupts)
    }

    /// Ends the thread, which must have no job, and closes its machines.
    func end() {
        shared.given.signal()
        thread.join()
    }

    /// Makes the thread end after its job, and waits for that at most `timeout`.
    func abandon(after timeout: Duration) {
        deadline.end()
        let wakeup = shared.done.wait(timeout: timeout)
        shared.given.signal()
        if case .signalled = wakeup { thread.join() }
    }
}

/// The idle threads of a runner.
final class TestThreads: Sendable {
    private let idle = Mutex<[TestThread]>([])

    deinit { for thread in idle.withLock({ $0 }) { thread.end() } }

    /// The thread that ran a test last; a new one if there is none.
    func take() throws(HostFailure) -> TestThread {
        if let thread = idle.withLock({ $0.popLast() }) { return thread }
        return try TestThread()
    }

    func returnToPool(_ thread: TestThread) { idle.withLock { $0.append(thread) } }
}
