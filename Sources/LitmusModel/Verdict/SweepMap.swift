// SPDX-License-Identifier: MIT
public import ConversionModel

/// A sweep of one pair of actors over the delay, as a map from delays to outcomes.
public struct SweepMap: Sendable, Equatable {
    /// The parallel block of the test, from 0.
    public let block: Int
    /// The line of the block's first step in the text.
    public let line: Int
    /// The actor that is preempted.
    public let victim: Actor
    /// The actor that preempts it.
    public let intruder: Actor
    /// The delay of the first preemption and the actor of the second one, over whose delay this map goes. Nil for a map over the
    /// delay of the only preemption.
    public let second: Second?
    /// The number of schedules that were run.
    public let schedules: Int
    /// The duration of the preempted actor's steps without a preemption, in nanoseconds. Later delays change nothing.
    public let duration: UInt64
    /// Whether the same delay always interrupts the victim at the same instruction. Otherwise the timer of the machine varies, and
    /// an interval is a part of the delays with all outcomes seen in it.
    public let isExact: Bool
    /// Consecutive delays with the same outcome, in ascending order.
    public let intervals: [Interval]

    package init(
        block: Int, line: Int, victim: Actor, intruder: Actor, second: Second?, schedules: Int,
        duration: UInt64, isExact: Bool, intervals: [Interval]
    ) {
        self.block = block
        self.line = line
        self.victim = victim
        self.intruder = intruder
        self.second = second
        self.schedules = schedules
        self.duration = duration
        self.isExact = isExact
        self.intervals = intervals
    }

    /// The part of a schedule that is the same in all of a map over the second delay.
    public struct Second: Sendable, Equatable {
        /// The delay of the first preemption, in nanoseconds.
        public let firstDelay: UInt64
        /// The actor that preempts the intruder.
        public let actor: Actor

        package init(firstDelay: UInt64, actor: Actor) {
            self.firstDelay = firstDelay
            self.actor = actor
        }
    }

    /// An outcome that was seen in an interval.
    public struct Outcome: Sendable, Equatable {
        /// How the steps with named results ended.
        public let results: [Failure.NamedOutcome]
        /// The number of schedules with it.
        public let schedules: Int
        /// Whether neither the test nor the model forbids the outcome.
        public let isFine: Bool

        package init(results: [Failure.NamedOutcome], schedules: Int, isFine: Bool) {
            self.results = results
            self.schedules = schedules
            self.isFine = isFine
        }

        /// `a = ok, b = EAGAIN at 0`.
        public var text: String {
            results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
        }

        /// Whether it satisfies all conditions.
        public func satisfies(_ conditions: [Clause.Condition]) -> Bool {
            conditions.hold(
                for: results.reduce(into: [:]) { all, result in
                    if all[result.name] == nil { all[result.name] = result.outcome }
                })
        }
    }

    /// Consecutive delays with the same outcome.
    public struct Interval: Sendable, Equatable {
        /// The first and the last delay of it, in nanoseconds.
        public let delays: ClosedRange<UInt64>
        /// The outcome. More than one, the most frequent first, at a border where outcomes alternate within a few nanoseconds, and
        /// where the timer varies.
        public let outcomes: [Outcome]
        /// The kernel functions on the preempted actor's stack in the middle of the interval, innermost first. Empty if it was in
        /// user space, or if the kernel does not show stacks.
        public let functions: [String]
        /// Whether the intruder had to wait for the victim, as for a lock.
        public let intruderWaits: Bool

        package init(
            delays: ClosedRange<UInt64>, outcomes: [Outcome], functions: [String], intruderWaits: Bool
        ) {
            self.delays = delays
            self.outcomes = outcomes
            self.functions = functions
            self.intruderWaits = intruderWaits
        }

        /// The number of schedules that were run in the interval.
        public var schedules: Int { outcomes.reduce(0) { $0 + $1.schedules } }
        /// Whether neither the test nor the model forbids an outcome.
        public var isFine: Bool { outcomes.allSatisfy { $0.isFine } }
    }

    /// The schedule at the middle of an interval.
    public func schedule(of interval: Interval) -> Schedule {
        let middle =
            interval.delays.lowerBound + (interval.delays.upperBound - interval.delays.lowerBound) / 2
        return Schedule(block: block, Preemption(of: victim, by: intruder, second, swept: middle))
    }
}

extension Preemption {
    /// The preemption of a map at one of its delays.
    package init(of victim: Actor, by intruder: Actor, _ second: SweepMap.Second?, swept delay: UInt64) {
        self.init(
            of: victim, at: second?.firstDelay ?? delay, by: intruder,
            second: second.map { .init($0.actor, after: delay) })
    }
}
