// SPDX-License-Identifier: MIT
import CBaseline
import CKVMShim
import MiniVMM

/// Whether the time stamp counter counts instructions. It is decided by measurement: a loop of a known number of instructions
/// must advance the counter by exactly that number, each time.
enum InstructionClock {
    /// Measurements of one loop.
    struct Sample: Equatable {
        /// Instructions of the loop.
        let instructions: UInt64
        /// The advance of the counter in each measurement, without that of reading it.
        let counts: [UInt64]

        /// The most frequent count, and how often it occurs; the smallest of several.
        var typical: (count: UInt64, times: Int) {
            let times = counts.reduce(into: [UInt64: Int]()) { $0[$1, default: 0] += 1 }
            let best = times.max { ($0.value, $1.key) < ($1.value, $0.key) }
            return best.map { ($0.key, $0.value) } ?? (0, 0)
        }
    }

    /// Why costs cannot be counted.
    enum Refusal: Error, Equatable {
        /// The processor is not x86-64, so there is no counter to read.
        case noCounter
        /// The counter advances by `factor` with each instruction.
        case scaled(factor: UInt64)
        /// The counter counts something else, such as time: a loop of `instructions` took from `least` to `most`.
        case other(instructions: UInt64, least: UInt64, most: UInt64)
    }

    /// The lengths of the loops, in turns of two instructions.
    private static let turns: [UInt64] = [1, 500, 7_001, 50_000]
    private static let repetitions = 9

    /// Measures the loops on this processor.
    ///
    /// - Returns: what the reading of the counter itself takes, in instructions.
    /// - Throws: why the counter cannot be used.
    static func check() throws(Refusal) -> UInt64 {
        guard cbaseline_has_counter() else { throw .noCounter }
        // The first call of each function faults its page in.
        _ = cbaseline_count_nothing()
        _ = cbaseline_count_loop(1)
        let overhead = (0..<repetitions).map { _ in cbaseline_count_nothing() }.min() ?? 0
        let samples = turns.map { turns in
            Sample(
                instructions: 2 * turns,
                counts: (0..<repetitions).map { _ in
                    let count = cbaseline_count_loop(turns)
                    return count < overhead ? 0 : count - overhead
                })
        }
        try judge(samples)
        return overhead
    }

    /// An interrupt may lengthen a measurement, so a third of the counts of each loop may differ.
    ///
    /// - Throws: why the counter cannot be used.
    static func judge(_ samples: [Sample]) throws(Refusal) {
        var factor: UInt64?
        for sample in samples {
            let (count, times) = sample.typical
            guard sample.instructions > 0, count > 0, times * 3 >= sample.counts.count * 2,
                count % sample.instructions == 0, factor == nil || factor == count / sample.instructions
            else {
                let longest = samples.last ?? sample
                throw .other(
                    instructions: longest.instructions, least: longest.counts.min() ?? 0,
                    most: longest.counts.max() ?? 0)
            }
            factor = count / sample.instructions
        }
        guard let factor else { throw .noCounter }
        if factor != 1 { throw .scaled(factor: factor) }
    }
}

/// The kernel's timer tick, as seen by a program that spins. A measurement that begins right after a tick always has the same
/// number of ticks in it. Used by one thread.
struct TickClock {
    /// Instructions from one tick to the next; 0 if there is no tick.
    private(set) var period: UInt64 = 0
    /// The cost of each tick so far, in instructions.
    private(set) var costs: [UInt64] = []
    private var last: UInt64 = 0
    /// No tick within this number of instructions means that there is none.
    private static let limit: UInt64 = 50_000_000
    /// How long before a tick to wake up from sleep, in nanoseconds.
    private static let margin: UInt64 = 400_000

    /// How far from its time a tick may be seen, in instructions.
    private static let tolerance: UInt64 = 20_000

    /// Finds the period.
    init() {
        // Work that the program's start has left to the kernel.
        _ = ckvm_sleep_until(monotonicNanoseconds() + 200_000_000)
        var times: [UInt64] = []
        for _ in 0..<12 {
            guard let (time, cost) = Self.interrupt(within: Self.limit) else { return }
            times.append(time)
            costs.append(cost)
        }
        // The kernel ticks a whole number of times in a second of 10⁹ instructions.
        let seen = middle(zip(times.dropFirst(), times).map { $0 - $1 })
        let second: UInt64 = 1_000_000_000
        guard seen > 0 else { return }
        period = second / max(1, (second + seen / 2) / seen)
        last = times.last ?? 0
    }

    private static func interrupt(within limit: UInt64) -> (at: UInt64, cost: UInt64)? {
        var at: UInt64 = 0
        let cost = unsafe cbaseline_await_interrupt(limit, &at)
        return cost > 0 ? (at, cost) : nil
    }

    /// Sleeps for two ticks, in which the kernel does its deferred work, and returns right after the next one.
    mutating func settle() {
        guard period > Self.margin else { return }
        let now = cbaseline_counter()
        let passed = now >= last ? (now - last) / period : 0
        let target = last + (passed + 3) * period
        if target - Self.margin > now {
            _ = ckvm_sleep_until(monotonicNanoseconds() + (target - Self.margin - now))
        }
        // Other interrupts come at other times.
        for _ in 0..<8 {
            guard let (at, cost) = Self.interrupt(within: 2 * period) else { return }
            let phase = (at + period - last % period) % period
            guard min(phase, period - phase) < Self.tolerance else { continue }
            costs.append(cost)
            last = at
            return
        }
    }

    /// How many ticks a measurement of this length has that begins right after one.
    func ticks(in count: UInt64) -> UInt64 { period == 0 ? 0 : count / period }
}

/// The median; the lower one of two; 0 if there are no values.
func middle(_ values: [UInt64]) -> UInt64 {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[(sorted.count - 1) / 2]
}
