// SPDX-License-Identifier: MIT
public import ConversionModel

/// `preempted host1 at 1594 by host`: where an actor of a parallel block is preempted.
///
/// All actors run on one CPU. The intruder preempts the victim `delay` after the victim has begun its steps, and performs all of
/// its own steps. With a second preemption, another actor interrupts that: a third one, or the victim, which then performs its
/// remaining steps. Actors without a part in it act afterwards, in the order of the text.
public struct Preemption: Hashable, Sendable {
    /// `, host at 300 by host1`: a preemption of the intruder.
    public struct Second: Hashable, Sendable {
        /// The actor that preempts the intruder: the victim, or a third actor.
        public var actor: Actor
        /// Nanoseconds from the start of the intruder's first step, up to ``Preemption/longestDelay``.
        public var delay: UInt64

        /// A second preemption.
        public init(_ actor: Actor, after delay: UInt64) {
            self.actor = actor
            self.delay = delay
        }
    }

    /// The actor that is preempted.
    public var victim: Actor
    /// The actor that preempts it.
    public var intruder: Actor
    /// Nanoseconds of the monotonic clock from the start of the victim's first step, up to ``longestDelay``. One instruction each
    /// under QEMU's instruction counting.
    public var delay: UInt64
    /// The preemption of the intruder; nil if there is none.
    public var second: Second?
    /// `=> c = EAGAIN at 0`: the outcome on the kernel for which the schedule was written. It judges nothing: another kernel may
    /// have another outcome at this place. Empty if it is not known.
    public var outcome: [Clause.Condition] = []

    /// The longest delay: 10 s, in nanoseconds.
    public static let longestDelay: UInt64 = 10_000_000_000

    /// A preemption, by default without a second one.
    public init(of victim: Actor, at delay: UInt64, by intruder: Actor, second: Second? = nil) {
        self.victim = victim
        self.intruder = intruder
        self.delay = delay
        self.second = second
    }

    /// Victim, intruder and a third actor, if there is one.
    package var actors: [Actor] {
        [victim, intruder] + (second.map { $0.actor == victim ? [] : [$0.actor] } ?? [])
    }
}

/// A preemption that a block cannot have.
package enum PreemptionProblem: Error, Equatable {
    /// The block has no such actor; the actors that it has.
    case actor(Actor, known: [Actor])
    /// An actor that would preempt itself.
    case itself(Actor)
    /// A delay above ``Preemption/longestDelay``.
    case delay
}

extension PreemptionProblem: CustomStringConvertible {
    package var description: String {
        switch self {
        case .actor(let actor, let known):
            "no actor \(actor) in the block; its actors are \(known.map { "\($0)" }.joined(separator: ", "))"
        case .itself(let actor): "\(actor) cannot preempt itself"
        case .delay: "a delay is at most \(Preemption.longestDelay) ns"
        }
    }
}

extension Preemption {
    /// - Parameter known: the actors of the block.
    /// - Throws: if a block of these actors cannot have it.
    package func check(_ known: [Actor]) throws(PreemptionProblem) {
        for actor in [victim, intruder] + (second.map { [$0.actor] } ?? []) where !known.contains(actor) {
            throw .actor(actor, known: known)
        }
        if victim == intruder { throw .itself(victim) }
        if let second, second.actor == intruder { throw .itself(intruder) }
        if max(delay, second?.delay ?? 0) > Self.longestDelay { throw .delay }
    }
}

extension Parallel {
    /// Whether the block's actors can have its ``preemption``.
    package var canBePreempted: Bool {
        guard let preemption else { return true }
        return (try? preemption.check(actors)) != nil
    }
}

extension Preemption: CustomStringConvertible {
    /// The words after `preempted`: `host1 at 1594 by host => c = EAGAIN at 0`.
    public var description: String {
        "\(victim) at \(delay) by \(intruder)"
            + (second.map { ", \(intruder) at \($0.delay) by \($0.actor)" } ?? "")
            + (outcome.isEmpty
                ? "" : " => " + outcome.map { "\($0.result) = \($0.outcome)" }.joined(separator: ", "))
    }
}

extension LineParser {
    /// `host1 at 1594 by host`, for a second preemption `, host at 300 by vcpu0`, and `=>` with the outcome.
    package mutating func preemption() throws(SyntaxError) -> Preemption {
        let first = try preemptionOfOne()
        var preemption = Preemption(of: first.victim, at: first.delay, by: first.intruder)
        if take(.sign(UInt8(ascii: ","))) {
            let start = column
            let second = try preemptionOfOne()
            guard second.victim == first.intruder else {
                throw error(at: start, "the second preemption is of \(first.intruder), the first intruder")
            }
            preemption.second = .init(second.intruder, after: second.delay)
        }
        if take(.arrow) { preemption.outcome = try conditions() }
        return preemption
    }

    private mutating func preemptionOfOne() throws(SyntaxError) -> (
        victim: Actor, delay: UInt64, intruder: Actor
    ) {
        let victim = try actor()
        try require("at")
        let delay: UInt64 = try number("a delay in nanoseconds")
        try require("by")
        return (victim, delay, try actor())
    }

    private mutating func actor() throws(SyntaxError) -> Actor {
        let start = column
        let word = try word("an actor of the block")
        guard let actor = Actor(word: word) else {
            throw error(at: start, "`\(word.prefix(40))` is not an actor: expected one of the block's actors")
        }
        return actor
    }
}
