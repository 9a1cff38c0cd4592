// SPDX-License-Identifier: MIT
import Synchronization

/// Tells loops that a guest or an option can make long when to stop. Any thread may check it.
///
/// Checking also checks the time limit and signals, as long as nothing else waits for them. ``Machine`` waits for both
/// itself once its vCPUs run.
public final class Cancellation: Sendable {
    private let reason = Mutex<Outcome?>(nil)
    private let isSet = Atomic<Bool>(false)
    private let polls = Atomic<Bool>(true)
    /// When signals were last checked, on the monotonic clock.
    private let lastPoll = Atomic<UInt64>(0)
    private let limit: Duration?
    private let start = monotonicNanoseconds()
    private let interrupts: SignalDescriptor?

    /// Checking for a signal is a system call, so it is done at most once per this many nanoseconds.
    private static let interval: UInt64 = 1_000_000

    /// - Parameters:
    ///   - timeout: real time from now, nil for no limit.
    ///   - interrupts: signals that cancel it.
    public init(timeout: Duration? = nil, interrupts: SignalDescriptor? = nil) {
        limit = timeout
        self.interrupts = interrupts
        polls.store(timeout != nil || interrupts != nil, ordering: .relaxed)
    }

    /// Why it was cancelled; nil if it was not.
    public var outcome: Outcome? { reason.withLock { $0 } }

    /// The time left until the limit, nil for no limit.
    public var remaining: Duration? { limit.map { max(.zero, $0 - spent(until: monotonicNanoseconds())) } }

    private func spent(until now: UInt64) -> Duration { Duration(wholeNanoseconds: now &- start) }

    /// From now on, something else waits for the time limit and for signals.
    public func stopPolling() { polls.store(false, ordering: .relaxed) }

    /// Clears the cancellation for later work: the cancelled work has ended.
    func reset() {
        stopPolling()
        isSet.store(false, ordering: .releasing)
    }

    /// Only the first outcome counts.
    public func cancel(_ outcome: Outcome) {
        reason.withLock { $0 = $0 ?? outcome }
        isSet.store(true, ordering: .releasing)
    }

    /// Until ``stopPolling()`` this also checks, at most once per millisecond, whether the time limit is over
    /// or a signal has arrived. Any thread may call it.
    public var isCancelled: Bool {
        if isSet.load(ordering: .acquiring) { return true }
        return polls.load(ordering: .relaxed) && poll()
    }

    private func poll() -> Bool {
        let now = monotonicNanoseconds()
        guard now &- lastPoll.load(ordering: .relaxed) >= Self.interval else { return false }
        lastPoll.store(now, ordering: .relaxed)
        if let limit, spent(until: now) >= limit {
            cancel(.timeLimit(limit))
        } else if let signal = interrupts?.pending() {
            cancel(.interrupted(signal: signal))
        }
        return isSet.load(ordering: .acquiring)
    }
}
