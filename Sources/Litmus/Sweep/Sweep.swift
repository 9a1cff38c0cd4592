// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// The schedules that are run of a test with parallel blocks.
public enum Sweep: Hashable, Sendable {
    /// Every pair of actors of every block, over all delays of one preemption. With two preemptions, the intruder is preempted,
    /// too, by each other actor.
    case all(preemptions: Int)
    /// A grid of delays that is fine enough for windows of a few dozen instructions, until an outcome is not allowed.
    case search
    /// One schedule for each of some blocks.
    case these([Schedule])
}

extension Sweep {
    /// Why tests with parallel blocks are not swept by an exploration of this backend, as a sentence without its period; nil if
    /// they are.
    static func absence(on backend: any Backend) -> String? {
        if backend is SoftKVM { return "SoftKVM explores every interleaving" }
        if let reason = Sweeper.absence() { return reason }
        guard let team = PreemptionTeam() else { return "this machine has no timers or threads left" }
        defer {
            team.end()
            team.unbind()
        }
        return team.grid.isExact
            ? nil
            : "the timer of this machine varies, so a schedule cannot be chosen exactly; lab/boot --icount makes it exact"
    }
}
