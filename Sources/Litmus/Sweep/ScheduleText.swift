// SPDX-License-Identifier: MIT
import MiniVMM

/// A text that is no schedule of a test.
public enum ScheduleError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Not of the form `VICTIM@DELAY[/INTRUDER[@DELAY/ACTOR]][#BLOCK]`.
    case form
    /// The block cannot have the preemption, for this reason.
    case preemption(String)
    /// The test has no such parallel block, counted from 1.
    case block(Int)
    /// The block has no such actor; the actors that it has.
    case actor(String, known: [String])
    /// More than one other actor can preempt the victim.
    case ambiguous([String])

    /// The error message, with the valid forms or names.
    public var description: String {
        switch self {
        case .form:
            "a schedule is VICTIM@DELAY[/INTRUDER[@DELAY/ACTOR]], such as host1@1594 or host1@1594/host@300/host1, with delays in nanoseconds up to 10 s"
        case .preemption(let reason): reason
        case .block(let number): "the test has no parallel block \(number)"
        case .actor(let name, let known):
            "no actor \(name) in the block; its actors are \(known.joined(separator: ", "))"
        case .ambiguous(let names): "name the intruder, such as /\(names.joined(separator: " or /"))"
        }
    }
}

extension Schedule {
    /// Reads a schedule as ``description`` writes it; the intruder may be omitted if the block has two actors.
    ///
    /// - Throws: ``ScheduleError``.
    public init(_ text: String, in test: LitmusTest) throws(ScheduleError) {
        let blocks = Program(test).blocks.map { $0.actors.compactMap(\.first?.step.actor) }
        try self.init(text, blocks: blocks)
    }

    /// - Parameter blocks: the actors of each block.
    init(_ text: String, blocks: [[Actor]]) throws(ScheduleError) {
        let form =
            #/([a-z0-9-]+)@([0-9]+)(?:/([a-z0-9-]+)(?:@([0-9]+)/([a-z0-9-]+))?)?(?:\#([0-9]+))?/#
        guard let match = text.wholeMatch(of: form) else { throw .form }
        func delay(_ digits: Substring) throws(ScheduleError) -> UInt64 {
            guard let delay = UInt64(digits), delay <= Preemption.longestDelay else { throw .form }
            return delay
        }
        let number = match.6.map { Int($0) ?? 0 } ?? 1
        guard number >= 1, number <= blocks.count else { throw .block(number) }
        let actors = blocks[number - 1]
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
        } else {
            guard let other = others.first, others.count == 1 else {
                throw .ambiguous(others.map { "\($0)" })
            }
            intruder = other
        }
        var preemption = Preemption(of: victim, at: try delay(match.2), by: intruder)
        if let digits = match.4, let name = match.5 {
            preemption.second = .init(try actor(name), after: try delay(digits))
        }
        do throws(PreemptionProblem) { try preemption.check(actors) } catch {
            throw .preemption(error.description)
        }
        self.init(block: number - 1, preemption)
    }
}
