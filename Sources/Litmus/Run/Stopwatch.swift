// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization

/// Measures where tests spend their time. Several runners may share one; a lock guards it.
public final class Stopwatch: Sendable {
    /// A part of a test's run.
    public enum Part: String, Sendable, CaseIterable {
        /// Creating VMs.
        case vm
        /// Creating vCPUs and the guest that they run.
        case vcpu
        /// Creating guest_memfds, mappings and memslots.
        case files
        /// Performing the steps of the test.
        case steps
        /// Reverting what a test has done to a machine, and checking that it is reverted.
        case clearing
        /// Closing machines.
        case closing
    }
    private struct State {
        var nanoseconds: [Part: UInt64] = [:]
        var machinesMade = 0
        var machinesUsedAgain = 0
    }
    private let state = Mutex(State())

    /// A stopwatch with all times 0.
    public init() {}

    /// The time spent in a part so far, without that spent in parts nested in it.
    public func time(_ part: Part) -> Duration {
        Duration(wholeNanoseconds: state.withLock { $0.nanoseconds[part] ?? 0 })
    }

    /// How many machines were created, and how often one was used for another test.
    public var machines: (made: Int, usedAgain: Int) {
        state.withLock { ($0.machinesMade, $0.machinesUsedAgain) }
    }

    func add(_ nanoseconds: UInt64, _ part: Part) {
        state.withLock { $0.nanoseconds[part, default: 0] += nanoseconds }
    }

    func noteMachine(isUsedAgain: Bool) {
        state.withLock { state in
            if isUsedAgain { state.machinesUsedAgain += 1 } else { state.machinesMade += 1 }
        }
    }
}

/// Splits the time of one thread between the parts of a ``Stopwatch``. Used by that thread alone, apart from the lock that
/// makes it Sendable.
final class Lap: Sendable {
    private struct State {
        var parts: [Stopwatch.Part] = []
        var since: UInt64 = 0
    }
    private let stopwatch: Stopwatch
    private let state = Mutex(State())

    init(_ stopwatch: Stopwatch) { self.stopwatch = stopwatch }

    func begin(_ part: Stopwatch.Part) { change { $0.append(part) } }
    func end() { change { $0.removeLast() } }

    private func change(_ body: (inout [Stopwatch.Part]) -> Void) {
        state.withLock { state in
            let now = monotonicNanoseconds()
            if let part = state.parts.last { stopwatch.add(now - state.since, part) }
            body(&state.parts)
            state.since = now
        }
    }
}

extension Lap? {
    /// Charges the time of `body` to a part; without a stopwatch it is only called.
    func measure<R: ~Copyable, E: Error>(_ part: Stopwatch.Part, _ body: () throws(E) -> R) throws(E) -> R {
        self?.begin(part)
        defer { self?.end() }
        return try body()
    }
}
