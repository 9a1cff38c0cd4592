// SPDX-License-Identifier: MIT
import Synchronization

/// Whether work that a guest or an option can make long is to end. Its loops ask, from any thread.
///
/// While nobody else waits for the time limit and for signals, asking looks for them. ``Machine`` waits for both itself once
/// its vCPUs run.
public final class Cancellation: Sendable {
    private let reason = Mutex<Outcome?>(nil)
    private let isSet = Atomic<Bool>(false)
    private let looks = Atomic<Bool>(true)
    /// When it was last looked for a signal, on the monotonic clock.
    private let lastLook = Atomic<UInt64>(0)
    private let limit: Duration?
    private let start = monotonicNanoseconds()
    private let interrupts: SignalDescriptor?

    /// A look for a signal is a system call, so it is made once in so many nanoseconds.
    private static let interval: UInt64 = 1_000_000

    /// - Parameters:
    ///   - timeout: real time from now on, nil for no limit.
    ///   - interrupts: signals that cancel it.
    public init(timeout: Duration? = nil, interrupts: SignalDescriptor? = nil) {
        limit = timeout
        self.interrupts = interrupts
        looks.store(timeout != nil || interrupts != nil, ordering: .relaxed)
    }

    /// Why it was cancelled; nil if it was not.
    public var outcome: Outcome? { reason.withLock { $0 } }

    /// What is left of the time limit, nil for no limit.
    public var remaining: Duration? { limit.map { max(.zero, $0 - spent(until: monotonicNanoseconds())) } }

    private func spent(until now: UInt64) -> Duration { Duration(wholeNanoseconds: now &- start) }

    /// The time limit and signals are waited for elsewhere from now on.
    public func stopLooking() { looks.store(false, ordering: .relaxed) }

    /// What is asked for from now on is not cancelled: the work that was is over.
    func reset() {
        stopLooking()
        isSet.store(false, ordering: .releasing)
    }

    /// Only the first outcome counts.
    public func cancel(_ outcome: Outcome) {
        reason.withLock { $0 = $0 ?? outcome }
        isSet.store(true, ordering: .releasing)
    }

    /// Until ``stopLooking()`` this also looks, at most once in a millisecond, whether the time limit is over
    /// or a signal has come. Any thread may ask.
    public var isCancelled: Bool {
        if isSet.load(ordering: .acquiring) { return true }
        return looks.load(ordering: .relaxed) && look()
    }

    private func look() -> Bool {
        let now = monotonicNanoseconds()
        guard now &- lastLook.load(ordering: .relaxed) >= Self.interval else { return false }
        lastLook.store(now, ordering: .relaxed)
        if let limit, spent(until: now) >= limit {
            cancel(.timeLimit(limit))
        } else if let signal = interrupts?.pending() {
            cancel(.interrupted(signal: signal))
        }
        return isSet.load(ordering: .acquiring)
    }
}
