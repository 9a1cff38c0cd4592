import CKVMShim
public import SystemPackage

/// SIGINT and SIGTERM as a descriptor. While it lives both are blocked in this thread and in those it starts.
public final class SignalDescriptor: Sendable {
    fileprivate let descriptor: OwnedDescriptor

    public init() throws(Errno) {
        descriptor = OwnedDescriptor(owning: Int32(try value(ckvm_signalfd_interrupts())))
    }

    /// The signal that has come, if one has.
    public func pending() -> Int32? {
        let answer = ckvm_wait(-1, descriptor.rawValue, 0)
        return answer > 0 ? Int32(truncatingIfNeeded: answer) : nil
    }

    /// Waits until `input` can be read, which it also can where it ends.
    ///
    /// - Returns: nil, or the signal that came meanwhile.
    public func wait(untilReadable input: FileDescriptor) -> Int32? {
        while true {
            let answer = ckvm_wait(input.rawValue, descriptor.rawValue, -1)
            if answer >= 0 { return answer == 0 ? nil : Int32(truncatingIfNeeded: answer) }
        }
    }
}

/// Waits until `input` can be read, which it also can where it ends.
///
/// - Parameter timeout: nanoseconds.
/// - Returns: false if it cannot yet.
public func isReadable(_ input: FileDescriptor, within timeout: UInt64) -> Bool {
    ckvm_wait(input.rawValue, -1, Int64(clamping: timeout)) == 0
}

/// Becomes readable once, when something has happened (eventfd).
package final class EventDescriptor: Sendable {
    package enum Wakeup {
        case signalled
        case timedOut
        case interrupted(signal: Int32)
    }
    private let descriptor: OwnedDescriptor

    package init() throws(Errno) { descriptor = OwnedDescriptor(owning: Int32(try value(ckvm_eventfd()))) }

    package func signal() { ckvm_eventfd_signal(descriptor.rawValue) }

    /// Waits without polling.
    ///
    /// - Parameter timeout: nanoseconds of real time, nil for ever.
    package func wait(timeout: UInt64?, interrupts: SignalDescriptor? = nil) -> Wakeup {
        let start = monotonicNanoseconds()
        while true {
            var left: Int64 = -1
            if let timeout {
                let spent = monotonicNanoseconds() &- start
                if spent >= timeout { return .timedOut }
                left = Int64(clamping: timeout - spent)
            }
            let answer = ckvm_wait(descriptor.rawValue, interrupts?.descriptor.rawValue ?? -1, left)
            switch answer {
            case 0: return .signalled
            case 1...: return .interrupted(signal: Int32(truncatingIfNeeded: answer))
            default: continue  // time is up, which the next round sees, or a signal that is none of ours
            }
        }
    }
}
