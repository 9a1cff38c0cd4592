// SPDX-License-Identifier: MIT
import MiniVMM

// Which delays of a pair of actors are tried.
extension Sweeper {
    /// Uncounted runs without a preemption before a pair is swept. They also measure how long the steps take.
    private static let warmUps = 3
    /// The number of delays of the first grid.
    private static let gridPoints: UInt64 = 256
    /// The victim's stack is looked at once in so many delays of the grid, because the kernel takes longer to write it than for a
    /// run's system calls.
    private static let gridPointsPerLook = 4
    /// The most nanoseconds inside the kernel that are tried one by one.
    private static let fineNanoseconds: UInt64 = 4096
    /// A search finds the part of the steps inside the kernel to this share of their duration, and tries delays there at this
    /// distance, in nanoseconds, but at most so many. A wide window needs few, and a narrow one is found by another test of the
    /// same steps, whose delays lie between these.
    private static let searchLooks: UInt64 = 32
    private static let searchStep: UInt64 = 24
    private static let mostSearched: UInt64 = 100
    /// First delays of schedules with two preemptions besides the middles of intervals, and second delays for each.
    private static let firstDelays: UInt64 = 16
    private static let secondDelays: UInt64 = 32
    /// After the longest delay the intruder acts when the victim has certainly ended, in nanoseconds.
    static let afterTheEnd: UInt64 = 10_000_000
    /// The limits for ``limit``.
    private static let shortestLimit: UInt64 = 50_000
    static let longestLimit: UInt64 = 20_000_000

    /// Measures the steps without a preemption.
    mutating func prepare(_ sweep: inout DelaySweep) throws(Stop) -> Wrong? {
        let delay = Self.afterTheEnd
        limit = Self.longestLimit
        var taken: UInt64 = 0
        // The first runs take longer paths, in this process and in the kernel.
        for _ in 0..<Self.warmUps {
            let schedule = sweep.schedule(delay)
            let failure = try perform([schedule], looks: false, counts: false) { result in
                let run = result.run
                sweep.duration = min(sweep.second == nil ? run.duration : run.intruderDuration, delay)
                sweep.sleeps = run.sleeps
                taken = max(run.duration, run.intruderDuration)
            }
            if let failure { return (failure, schedule) }
        }
        if sweep.isExact { limit = min(max(2 * min(taken, delay), Self.shortestLimit), Self.longestLimit) }
        return nil
    }

    mutating func sweepDelays(_ sweep: inout DelaySweep, _ kind: Sweep) throws(Stop) -> Wrong? {
        let last = sweep.duration
        guard sweep.isExact else {
            for _ in 0..<options.runs {
                if let wrong = try run(chance.next() % (last + 1), &sweep, looks: true) { return wrong }
                if deadline.stop != nil { return nil }
            }
            return nil
        }
        if case .search = kind { return try search(&sweep) }
        if let wrong = try sweepGrid(delays(0...last, step: last / Self.gridPoints), &sweep) { return wrong }
        if let kernel = sweep.kernelDelays, kernel.upperBound - kernel.lowerBound <= Self.fineNanoseconds {
            let rest = kernel.filter { sweep.point(at: $0) == nil }
            if let wrong = try run(rest, &sweep) { return wrong }
        }
        return try refine(&sweep)
    }

    /// Tries the delays of a grid, and finds the first and the last that are inside the kernel.
    private mutating func sweepGrid(_ grid: [UInt64], _ sweep: inout DelaySweep) throws(Stop) -> Wrong? {
        for (index, delay) in grid.enumerated() {
            let looks = index % Self.gridPointsPerLook == 0
            if let wrong = try run(delay, &sweep, looks: looks) { return wrong }
            if deadline.stop != nil { return nil }
        }
        // The borders of the kernel's part are between two looks. If it was not seen, it may be anywhere.
        let seen = sweep.kernelDelays
        let distance = (sweep.duration / Self.gridPoints + 1) * UInt64(Self.gridPointsPerLook)
        let rest = grid.enumerated().filter { index, delay in
            guard index % Self.gridPointsPerLook != 0 else { return false }
            guard let seen else { return true }
            return delay < seen.lowerBound && seen.lowerBound - delay < distance
                || delay > seen.upperBound && delay - seen.upperBound < distance
        }
        return try run(rest.map(\.element), &sweep, looks: true)
    }

    /// Tries delays inside the kernel until an outcome is not allowed, and refines the map then.
    private mutating func search(_ sweep: inout DelaySweep) throws(Stop) -> Wrong? {
        if let wrong = try run([0, Self.afterTheEnd], &sweep) { return wrong }
        let step = max(1, sweep.duration / Self.searchLooks)
        var inside: UInt64?
        for share in Self.shares where inside == nil && deadline.stop == nil {
            let delay = share * step
            if let wrong = try run(delay, &sweep, looks: true) { return wrong }
            if sweep.isInKernel(delay) { inside = delay }
        }
        if let inside {
            // A look at the stack takes longer than a run, so the borders of the kernel's part are bisected.
            var low: UInt64 = 0
            var high = max(inside, sweep.duration)
            for isFirst in [true, false] {
                var (known, other) = (inside, isFirst ? low : high)
                while max(known, other) - min(known, other) > step, deadline.stop == nil {
                    let middle = (known + other) / 2
                    if let wrong = try run(middle, &sweep, looks: true) { return wrong }
                    if sweep.isInKernel(middle) { known = middle } else { other = middle }
                }
                if isFirst { low = other } else { high = other }
            }
            let distance = max(Self.searchStep, (high - low) / Self.mostSearched)
            low += min(chance.next() % distance, high - low)
            if let wrong = try run(delays(low...high, step: distance), &sweep, stopsAtWrong: true) {
                return wrong
            }
        }
        return sweep.isFine ? nil : try refine(&sweep)
    }

    /// Where in the steps, in 32nds, a search first looks for the kernel's part.
    private static let shares: [UInt64] = [16, 8, 24, 4, 12, 20, 28, 2, 6, 10, 14, 18, 22, 26, 30]

    private func delays(_ range: ClosedRange<UInt64>, step: UInt64) -> [UInt64] {
        stride(from: range.lowerBound, through: range.upperBound, by: Int(clamping: max(1, step))).map { $0 }
    }

    /// Bisects the borders, repeats delays with a result of their own, and looks at the stack in each interval.
    private mutating func refine(_ sweep: inout DelaySweep) throws(Stop) -> Wrong? {
        while case let delays = sweep.unknownBorders, !delays.isEmpty, deadline.stop == nil {
            if let wrong = try run(delays, &sweep) { return wrong }
        }
        for delay in sweep.isolated {
            for _ in 0..<2 { if let wrong = try run(delay, &sweep) { return wrong } }
            sweep.settle(delay)
        }
        return try run(sweep.unseen, &sweep, looks: true)
    }

    mutating func sweepSecond(_ sweep: DelaySweep, _ maps: inout [SweepMap]) throws(Stop) -> Wrong? {
        guard sweep.isExact else { return nil }
        let usual = Set(sweep.points.map(\.results))
        var firsts = Set(
            map(sweep).intervals.map {
                $0.delays.lowerBound + ($0.delays.upperBound - $0.delays.lowerBound) / 2
            })
        if let kernel = sweep.kernelDelays {
            firsts.formUnion(
                delays(kernel, step: (kernel.upperBound - kernel.lowerBound) / Self.firstDelays))
        }
        let actors = sweep.block.actors.compactMap(\.first?.step.actor).filter { $0 != sweep.intruder }
        for actor in actors {
            for first in firsts.sorted() where first <= sweep.duration {
                var line = DelaySweep(
                    sweep.block, sweep.victim, sweep.intruder, second: .init(firstDelay: first, actor: actor),
                    isExact: sweep.isExact)
                if let wrong = try prepare(&line) { return wrong }
                let grid = delays(0...line.duration, step: line.duration / Self.secondDelays)
                if let wrong = try run(grid, &line) { return wrong }
                let isNew = line.points.contains { !usual.contains($0.results) }
                if isNew, let wrong = try refine(&line) { return wrong }
                secondSchedules += line.runs.count
                if isNew { maps.append(map(line)) }
                if deadline.stop != nil { return nil }
            }
        }
        return nil
    }

    private mutating func run(
        _ delays: [UInt64], _ sweep: inout DelaySweep, looks: Bool = false, stopsAtWrong: Bool = false
    ) throws(Stop) -> Wrong? {
        for delay in delays {
            if let wrong = try run(delay, &sweep, looks: looks) { return wrong }
            if deadline.stop != nil { return nil }
            if stopsAtWrong, sweep.point(at: delay)?.isFine == false { return nil }
        }
        return nil
    }

    private mutating func run(
        _ delay: UInt64, _ sweep: inout DelaySweep, looks: Bool = false
    ) throws(Stop) -> Wrong? {
        let schedule = sweep.schedule(delay)
        let failure = try perform([schedule], looks: looks && delay <= sweep.duration) {
            sweep.add(delay, $0)
        }
        return failure.map { ($0, schedule) }
    }
}
