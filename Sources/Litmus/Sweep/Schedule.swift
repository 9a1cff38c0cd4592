// SPDX-License-Identifier: MIT
import MiniVMM

/// A schedule of one parallel block of a test: which actor preempts which, and when.
public struct Schedule: Hashable, Sendable {
    /// The parallel block of the test, from 0.
    public let block: Int
    /// The preempted actor, the actor that preempts it, and the delay.
    public internal(set) var preemption: Preemption

    /// The delay of the last preemption in nanoseconds, over which a sweep goes.
    public var swept: UInt64 { preemption.second?.delay ?? preemption.delay }

    /// A schedule of a block.
    public init(block: Int, _ preemption: Preemption) {
        self.block = block
        self.preemption = preemption
    }
}

extension LitmusTest {
    /// The schedules of the blocks that have a `preempted` line.
    public var schedules: [Schedule] {
        body.compactMap { entry in if case .parallel(let block) = entry { block } else { nil } }.enumerated()
            .compactMap { number, block in block.preemption.map { Schedule(block: number, $0) } }
    }
}

extension Source {
    /// The same test without `preempted` lines; nil if it cannot be written so.
    public var withoutSchedules: Source? {
        var test = test
        test.body = test.body.map { entry in
            guard case .parallel(var block) = entry else { return entry }
            block.preemption = nil
            return .parallel(block)
        }
        return try? Source(test)
    }
}

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

extension Schedule: CustomStringConvertible {
    /// `host1@1594/host`, with `@300/host1` for a second preemption, and with `#2` for the second block.
    public var description: String {
        "\(preemption.victim)@\(preemption.delay)/\(preemption.intruder)"
            + (preemption.second.map { "@\($0.delay)/\($0.actor)" } ?? "")
            + (block > 0 ? "#\(block + 1)" : "")
    }

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
