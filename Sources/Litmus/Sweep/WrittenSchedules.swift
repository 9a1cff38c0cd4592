// SPDX-License-Identifier: MIT
import MiniVMM

// Runs the schedules that a test or a command names.
extension Sweeper {
    /// Runs of one schedule where the timer is exact.
    private static let repetitions = 10
    /// How far from its delay the outcome of a schedule is looked for, and at what distances: first coarsely, then everywhere nearby,
    /// in nanoseconds. Two processes differ by up to some hundred instructions before a step, and some windows are narrower.
    private static let reach: [(distance: UInt64, step: UInt64)] = [(1024, 16), (256, 1)]

    /// Runs the schedules together, again and again. If the outcome that a test names for a schedule does not show, the delays
    /// around it are tried, and the middle of those with the outcome is run instead.
    mutating func run(_ schedules: [Schedule], _ maps: inout [SweepMap]) throws(Stop) -> Wrong? {
        var sweeps: [DelaySweep] = []
        for schedule in schedules {
            let preemption = schedule.preemption
            guard let block = blocks.first(where: { $0.number == schedule.block }),
                (try? preemption.check(block.actors.compactMap(\.first?.step.actor))) != nil
            else { throw .skip("the schedule \(schedule) does not fit the test") }
            sweeps.append(
                DelaySweep(
                    block, preemption.victim, preemption.intruder,
                    second: preemption.second.map { .init(firstDelay: preemption.delay, actor: $0.actor) },
                    isExact: team.grid.isExact))
        }
        guard !schedules.isEmpty else { throw .skip("there is no schedule to run") }
        for index in sweeps.indices {
            if let wrong = try prepare(&sweeps[index]) { return wrong }
        }
        var schedules = schedules
        var wrong = try runRepeatedly(schedules, &sweeps)
        if team.grid.isExact, wrong == nil {
            var isMoved = false
            for index in schedules.indices where !sweeps[index].shows(schedules[index].preemption.outcome) {
                guard schedules[index].swept <= sweeps[index].duration + Self.farthest,
                    let delay = try delayNearby(index, schedules, &sweeps)
                else { continue }
                schedules[index].move(to: delay)
                isMoved = true
            }
            if isMoved { wrong = try runRepeatedly(schedules, &sweeps) }
        }
        maps = sweeps.map(map)
        return wrong
    }

    private mutating func runRepeatedly(
        _ schedules: [Schedule], _ sweeps: inout [DelaySweep]
    ) throws(Stop) -> Wrong? {
        let runs = team.grid.isExact ? min(options.runs, Self.repetitions) : options.runs
        // After its end, the victim waits for the next run.
        let preempts = zip(schedules, sweeps).allSatisfy { $0.swept <= $1.duration }
        for number in 0..<runs where number == 0 || deadline.stop == nil {
            if let failure = try run(schedules, &sweeps, looks: preempts && number == 0),
                let first = schedules.first
            {
                return (failure, first)
            }
        }
        return nil
    }

    private static var farthest: UInt64 { reach.reduce(0) { max($0, $1.distance) } }

    /// The middle of the delays around that of a schedule at which its outcome shows; nil if it does not show.
    private mutating func delayNearby(
        _ index: Int, _ schedules: [Schedule], _ sweeps: inout [DelaySweep]
    ) throws(Stop) -> UInt64? {
        let wanted = schedules[index].preemption.outcome
        let written = schedules[index].swept
        /// Twice, because a tick of the kernel can show an outcome once.
        func shows(_ delay: UInt64) throws(Stop) -> Bool {
            var schedules = schedules
            schedules[index].move(to: delay)
            for _ in 0..<2 {
                guard deadline.stop == nil, try run(schedules, &sweeps, looks: false) == nil,
                    sweeps[index].shows(wanted, at: delay)
                else { return false }
            }
            return true
        }
        for (reach, step) in Self.reach {
            for distance in stride(from: step, through: reach, by: Int(step)) {
                if distance <= written, try shows(written - distance) {
                    var first = written - distance
                    while first >= step, written - first < reach, try shows(first - step) { first -= step }
                    return (first + written - distance) / 2
                }
                if try shows(written + distance) {
                    var last = written + distance
                    while last - written < reach, try shows(last + step) { last += step }
                    return (written + distance + last) / 2
                }
            }
        }
        return nil
    }

    private mutating func run(
        _ schedules: [Schedule], _ sweeps: inout [DelaySweep], looks: Bool
    ) throws(Stop) -> Failure? {
        try perform(schedules, looks: looks) { result in
            guard let index = sweeps.firstIndex(where: { $0.block.number == result.block }) else { return }
            sweeps[index].add(schedules[index].swept, result)
        }
    }
}

extension Schedule {
    fileprivate mutating func move(to delay: UInt64) {
        let second = preemption.second.map { SweepMap.Second(firstDelay: preemption.delay, actor: $0.actor) }
        let outcome = preemption.outcome
        preemption = Preemption(of: preemption.victim, by: preemption.intruder, second, swept: delay)
        preemption.outcome = outcome
    }
}

extension DelaySweep {
    /// Whether an outcome was seen; true if none is named.
    fileprivate func shows(_ conditions: [Clause.Condition]) -> Bool {
        conditions.isEmpty || points.contains { conditions.hold(for: $0.results) }
    }

    fileprivate func shows(_ conditions: [Clause.Condition], at delay: UInt64) -> Bool {
        point(at: delay).map { conditions.hold(for: $0.results) } ?? false
    }
}
