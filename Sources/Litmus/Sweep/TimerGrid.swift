// SPDX-License-Identifier: MIT

/// The times at which a timer of this machine can interrupt a thread, as measured by a ``PreemptionTeam``.
///
/// Under QEMU's instruction counting a timer expires at the same instruction each time, but a timer of the interrupt
/// controller counts in units of several instructions. A place between two of them is reached by instructions that the
/// victim executes before its steps.
struct TimerGrid: Sendable, Equatable {
    /// Whether the same delay always interrupts at the same instruction.
    let isExact: Bool
    /// The difference of consecutive times at which the timer can expire, in nanoseconds. 1 if it is not exact.
    let period: UInt64
    /// A delay in the middle between two changes of the time of expiry, below ``period``.
    let phase: UInt64

    /// The share of delays, in percent, that must interrupt at the same place each time. A periodic tick of the kernel may
    /// disturb the rest.
    private static let exactShare = 90
    /// Periods up to this, in nanoseconds, cannot be distinguished from 1.
    private static let finest: UInt64 = 4

    /// - Parameters:
    ///   - places: for consecutive delays the place of the interrupt at each attempt, as a count that a loop had reached.
    ///   - first: the first delay, in nanoseconds.
    init(_ places: [[UInt64]], from first: UInt64) {
        // A loop that has not begun says nothing about the timer.
        let stable = places.count { attempts in
            attempts.allSatisfy { $0 > 0 && $0 == attempts.first }
        }
        let heights = places.compactMap(\.first)
        let changes = heights.indices.dropFirst().filter { heights[$0] != heights[$0 - 1] }.map {
            first + UInt64($0)
        }
        // Nor does a loop that each delay finds at the same place, because it has just begun.
        isExact = !changes.isEmpty && stable * 100 >= places.count * Self.exactShare
        let gaps = zip(changes, changes.dropFirst()).map { $1 - $0 }.sorted()
        let gap = gaps.isEmpty ? 1 : gaps[gaps.count / 2]
        guard isExact, gap > Self.finest, let change = changes.first else {
            period = 1
            phase = 0
            return
        }
        period = gap
        phase = (change + gap / 2) % gap
    }

    /// The delay for which the timer is armed, at least 1 ns, and the number of instructions that the victim executes
    /// before its steps, so that the interrupt comes `delay` after a fixed place.
    func split(_ delay: UInt64) -> (timer: UInt64, padding: UInt32) {
        guard period > 1 else { return (max(1, delay), 0) }
        var timer = delay / period * period + phase
        if timer < delay || timer == 0 { timer += period }
        return (timer, UInt32(clamping: timer - delay))
    }
}
