// SPDX-License-Identifier: MIT
import ConversionModel

/// A schedule of one parallel block of a test: which actor preempts which, and when.
public struct Schedule: Hashable, Sendable {
    /// The parallel block of the test, from 0.
    public let block: Int
    /// The preempted actor, the actor that preempts it, and the delay.
    public package(set) var preemption: Preemption

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

extension Schedule: CustomStringConvertible {
    /// `host1@1594/host`, with `@300/host1` for a second preemption, and with `#2` for the second block.
    public var description: String {
        "\(preemption.victim)@\(preemption.delay)/\(preemption.intruder)"
            + (preemption.second.map { "@\($0.delay)/\($0.actor)" } ?? "")
            + (block > 0 ? "#\(block + 1)" : "")
    }
}
