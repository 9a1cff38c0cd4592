// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
public import SystemPackage

/// SIGINT, SIGTERM and SIGHUP as a descriptor. While it exists, they are blocked in this thread and in the threads it
/// starts, so long-running work has to check for them. The thread that created it must also release it.
public final class SignalDescriptor: Sendable {
    fileprivate let descriptor: OwnedDescriptor
    /// The first signal that was read; 0 before that.
    private let first = Atomic<Int32>(0)
    /// The number of live objects: the signals stay blocked until the last one is released.
    private static let alive = Atomic<Int>(0)

    /// Blocks the signals in the calling thread.
    ///
    /// - Throws: `EMFILE`, `ENFILE` or `ENOMEM` if the host has no descriptor or memory left.
    public init() throws(Errno) {
        descriptor = OwnedDescriptor(owning: Int32(try value(ckvm_signalfd_interrupts())))
        Self.alive.add(1, ordering: .relaxed)
    }

    deinit {
        if Self.alive.subtract(1, ordering: .relaxed).newValue == 0 { ckvm_unblock_interrupts() }
    }

    /// Lets these signals end the calling thread again, for when nothing checks for them any more.
    public func unblock() { ckvm_unblock_interrupts() }

    /// The first signal that has arrived, if any, even if another thread has read it.
    public func pending() -> Int32? {
        let seen = first.load(ordering: .acquiring)
        if seen != 0 { return seen }
        let answer = ckvm_wait(-1, descriptor.rawValue, 0)
        return answer > 0 ? note(answer) : nil
    }

    @discardableResult
    fileprivate func note(_ answer: Int) -> Int32 {
        let signal = Int32(truncatingIfNeeded: answer)
        let (_, before) = first.compareExchange(
            expected: 0, desired: signal, ordering: .acquiringAndReleasing)
        return before == 0 ? signal : before
    }

    /// Waits until `input` is readable or at end of file.
    ///
    /// - Returns: nil, or the signal that arrived meanwhile.
    public func wait(untilReadable input: FileDescriptor) -> Int32? {
        while true {
            let answer = ckvm_wait(input.rawValue, descriptor.rawValue, -1)
            if answer >= 0 { return answer == 0 ? nil : note(answer) }
        }
    }
}

/// Waits until `input` is readable or at end of file.
///
/// - Returns: false if the time ran out.
public func isReadable(_ input: FileDescriptor, within timeout: Duration) -> Bool {
    ckvm_wait(input.rawValue, -1, Int64(clamping: timeout.wholeNanoseconds)) == 0
}

/// Becomes readable when signalled, until it is cleared (eventfd).
package final class EventDescriptor: Sendable {
    package enum Wakeup {
        case signalled
        case timedOut
        case interrupted(signal: Int32)
    }
    private let descriptor: OwnedDescriptor

    package init() throws(Errno) { descriptor = OwnedDescriptor(owning: Int32(try value(ckvm_eventfd()))) }

    /// For waiting together with other descriptors.
    package var number: Int32 { descriptor.rawValue }

    package func signal() { ckvm_eventfd_signal(descriptor.rawValue) }

    /// Makes the descriptor unreadable until the next ``signal()``.
    package func clear() { ckvm_eventfd_clear(descriptor.rawValue) }

    /// Waits without polling.
    ///
    /// - Parameter timeout: real time, nil for no limit.
    package func wait(timeout: Duration?, interrupts: SignalDescriptor? = nil) -> Wakeup {
        let start = monotonicNanoseconds()
        let limit = timeout?.wholeNanoseconds
        while true {
            var left: Int64 = -1
            if let limit {
                let spent = monotonicNanoseconds() &- start
                if spent >= limit { return .timedOut }
                left = Int64(clamping: limit - spent)
            }
            let answer = ckvm_wait(descriptor.rawValue, interrupts?.descriptor.rawValue ?? -1, left)
            switch answer {
            case 0: return .signalled
            case 1...:
                let signal = Int32(truncatingIfNeeded: answer)
                return .interrupted(signal: interrupts?.note(answer) ?? signal)
            default: continue  // timed out, which the next round detects, or another signal
            }
        }
    }
}
