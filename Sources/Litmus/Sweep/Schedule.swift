// SPDX-License-Identifier: MIT
import MiniVMM

/// A schedule of a parallel block with one preemption: on one CPU, the intruder preempts the victim `delay` after the
/// victim has begun its steps, and performs all of its own steps.
public struct Schedule: Hashable, Sendable {
    /// The parallel block of the test, from 0.
    public let block: Int
    /// The actor that is preempted.
    public let victim: Actor
    /// The actor that preempts it.
    public let intruder: Actor
    /// Nanoseconds of the monotonic clock from the start of the victim's first step. One instruction each under QEMU's
    /// instruction counting.
    public let delay: UInt64

    /// A schedule.
    public init(block: Int, victim: Actor, intruder: Actor, delay: UInt64) {
        self.block = block
        self.victim = victim
        self.intruder = intruder
        self.delay = delay
    }
}

/// A text that is no schedule of a test.
public enum ScheduleError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Not of the form `VICTIM@DELAY[/INTRUDER][#BLOCK]`.
    case form
    /// The test has no such parallel block, counted from 1.
    case block(Int)
    /// The block has no such actor; the actors that it has.
    case actor(String, known: [String])
    /// More than one other actor can preempt the victim.
    case ambiguous([String])

    /// The error message, with the valid forms or names.
    public var description: String {
        switch self {
        case .form: "a schedule is VICTIM@DELAY, such as host1@1594, with a delay in nanoseconds"
        case .block(let number): "the test has no parallel block \(number)"
        case .actor(let name, let known):
            "no actor \(name) in the block; its actors are \(known.joined(separator: ", "))"
        case .ambiguous(let names): "name the intruder, such as /\(names.joined(separator: " or /"))"
        }
    }
}

extension Schedule: CustomStringConvertible {
    /// `host1@1594/host`, with `#2` for the second block.
    public var description: String { "\(victim)@\(delay)/\(intruder)" + (block > 0 ? "#\(block + 1)" : "") }

    /// Reads a schedule as ``description`` writes it; the intruder may be omitted if the block has two actors.
    ///
    /// - Throws: ``ScheduleError``.
    public init(_ text: String, in test: LitmusTest) throws(ScheduleError) {
        guard let match = text.wholeMatch(of: #/([a-z0-9-]+)@([0-9]+)(?:/([a-z0-9-]+))?(?:\#([0-9]+))?/#),
            let delay = UInt64(match.2), delay <= 10_000_000_000
        else { throw .form }
        let number = match.4.map { Int($0) ?? 0 } ?? 1
        let blocks = Program(test).blocks
        guard blocks.indices.contains(number - 1) else { throw .block(number) }
        let block = blocks[number - 1]
        let actors = block.actors.compactMap(\.first?.step.actor)
        func actor(_ name: Substring) throws(ScheduleError) -> Actor {
            guard let actor = actors.first(where: { "\($0)" == name }) else {
                throw .actor(String(name), known: actors.map { "\($0)" })
            }
            return actor
        }
        let victim = try actor(match.1)
        let others = actors.filter { $0 != victim }
        let intruder: Actor
        if let name = match.3 {
            intruder = try actor(name)
            if intruder == victim { throw .form }
        } else {
            guard let other = others.first, others.count == 1 else {
                throw .ambiguous(others.map { "\($0)" })
            }
            intruder = other
        }
        self.init(block: block.number, victim: victim, intruder: intruder, delay: delay)
    }
}

/// The schedules that are run of a test with parallel blocks.
public enum Sweep: Hashable, Sendable {
    /// Every pair of actors of every block, over all delays.
    case all
    /// One schedule.
    case one(Schedule)
}

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
    /// The number of schedules that were run.
    public let schedules: Int
    /// The duration of the victim's steps without a preemption, in nanoseconds. Later delays change nothing.
    public let duration: UInt64
    /// Whether the same delay always led to the same outcome where that was tried. Otherwise the timer of the machine varies, and
    /// the borders of intervals are approximate.
    public let isExact: Bool
    /// Consecutive delays with the same outcome, in ascending order.
    public let intervals: [Interval]

    /// Consecutive delays with the same outcome.
    public struct Interval: Sendable, Equatable {
        /// The first and the last delay with the outcome, in nanoseconds.
        public let delays: ClosedRange<UInt64>
        /// How the steps with named results ended.
        public let results: [Failure.NamedOutcome]
        /// The number of schedules that were run in the interval.
        public let schedules: Int
        /// The kernel functions on the victim's stack in the middle of the interval, innermost first. Empty if it was in
        /// user space, or if the kernel does not show stacks.
        public let functions: [String]
        /// Whether neither the test nor the model forbids the outcome.
        public let isFine: Bool

        /// `a = ok, b = EAGAIN at 0`.
        public var text: String {
            results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
        }
    }
}
