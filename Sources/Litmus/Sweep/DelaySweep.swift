// SPDX-License-Identifier: MIT
import MiniVMM

/// The schedules that were run of one pair of actors, by the delay that is swept: that of the first preemption, or with
/// ``second`` that of the second one.
struct DelaySweep {
    /// The result of one schedule.
    struct Point: Hashable {
        let results: [Name: StepOutcome]
        /// Whether neither the test nor the model forbids what any block of the run led to.
        let isFine: Bool
        /// Whether the intruder slept more often in the kernel than it does alone.
        var intruderWaits: Bool
    }

    let block: Program.Block
    let victim: Actor
    let intruder: Actor
    let second: SweepMap.Second?
    let isExact: Bool
    /// The duration of the preempted actor's steps, in nanoseconds. Later delays change nothing.
    var duration: UInt64 = 0
    /// Sleeps of the intruder if it acts after the victim's end.
    var sleeps = 0
    /// The results that were seen. They are few, and are compared by their indices, because a sweep compares neighbours thousands
    /// of times.
    private var kinds: [Point] = []
    /// The index of the result for each ending that led to it, so that the results themselves need not be compared.
    private var known: [(ending: Int, waits: Bool, kind: Int)] = []
    /// All runs in their order, with the index of their result.
    private(set) var runs: [(delay: UInt64, kind: Int)] = []
    /// The result of each delay, in ascending order of delays. After several runs of a delay it is that of the last one.
    private var places: [(delay: UInt64, kind: Int)] = []
    /// The preempted actor's kernel stack by delay, where it was looked at, as the kernel writes it. A map needs the functions of
    /// a few.
    private var looks: [UInt64: [UInt8]] = [:]

    /// Groups of delays narrower than this belong to a border if there are several in a row, in nanoseconds.
    private static let narrow: UInt64 = 16
    /// The number of intervals of a map that is not exact.
    private static let binCount: UInt64 = 16

    init(
        _ block: Program.Block, _ victim: Actor, _ intruder: Actor, second: SweepMap.Second? = nil,
        isExact: Bool
    ) {
        self.block = block
        self.victim = victim
        self.intruder = intruder
        self.second = second
        self.isExact = isExact
    }

    func schedule(_ delay: UInt64) -> Schedule {
        Schedule(block: block.number, Preemption(of: victim, by: intruder, second, swept: delay))
    }

    mutating func add(_ delay: UInt64, _ point: Point, stack: [UInt8]?) {
        add(delay, kind: kind(of: point), stack: stack)
    }

    /// The index of a result.
    private mutating func kind(of point: Point) -> Int {
        if let kind = kinds.firstIndex(of: point) { return kind }
        kinds.append(point)
        return kinds.count - 1
    }

    /// The index of the result of an ending.
    ///
    /// - Parameters:
    ///   - ending: its number.
    ///   - point: the result, always the same for the same ending.
    mutating func kind(ofEnding ending: Int, waits: Bool, _ point: () -> Point) -> Int {
        if let place = known.firstIndex(where: { $0.ending == ending && $0.waits == waits }) {
            return known[place].kind
        }
        let kind = kind(of: point())
        known.append((ending, waits, kind))
        return kind
    }

    /// - Parameter kind: the index of the result.
    mutating func add(_ delay: UInt64, kind: Int, stack: [UInt8]?) {
        runs.append((delay, kind))
        let place = index(of: delay)
        if places.indices.contains(place), places[place].delay == delay {
            places[place].kind = kind
        } else {
            places.insert((delay, kind), at: place)
        }
        if let stack { looks[delay] = stack }
    }

    /// The index of the first delay that is not below this one.
    private func index(of delay: UInt64) -> Int {
        var range = 0..<places.count
        while let first = range.first {
            let middle = first + range.count / 2
            range = places[middle].delay < delay ? middle + 1..<range.upperBound : first..<middle
        }
        return range.lowerBound
    }

    /// The result of a delay; nil if it was not tried.
    func point(at delay: UInt64) -> Point? {
        let place = index(of: delay)
        guard places.indices.contains(place), places[place].delay == delay else { return nil }
        return kinds[places[place].kind]
    }

    /// The different results.
    var points: [Point] {
        let used = Set(places.map(\.kind))
        return kinds.indices.filter(used.contains).map { kinds[$0] }
    }

    /// Whether all outcomes are allowed.
    var isFine: Bool { points.allSatisfy(\.isFine) }

    /// Whether the preempted actor was seen in the kernel at a delay.
    func isInKernel(_ delay: UInt64) -> Bool { looks[delay].map(KernelStack.isInKernel) == true }

    /// The delays at which the preempted actor was seen in the kernel, from the first to the last.
    var kernelDelays: ClosedRange<UInt64>? {
        let all = looks.keys.filter { $0 <= duration }.sorted()
        guard let first = all.first(where: isInKernel), let last = all.last(where: isInKernel) else {
            return nil
        }
        return first...last
    }

    /// Neighbouring delays with different results, within the preempted actor's steps.
    var borders: [(low: UInt64, high: UInt64)] {
        zip(places, places.dropFirst()).filter { low, high in
            high.delay <= duration && low.kind != high.kind
        }.map { (low: $0.delay, high: $1.delay) }
    }

    /// The delays in the middle of all borders that are not exact yet.
    var unknownBorders: [UInt64] {
        borders.filter { $0.high - $0.low > 1 }.map { $0.low + ($0.high - $0.low) / 2 }
    }

    /// Delays whose result differs from that of both neighbours, which agree with each other. A tick of the kernel may have come
    /// in between.
    var isolated: [UInt64] {
        places.indices.dropFirst().dropLast().filter { index in
            let around = places[index - 1].kind
            return around == places[index + 1].kind && around != places[index].kind
        }.map { places[$0].delay }
    }

    /// Makes the most frequent result of a delay its result.
    mutating func settle(_ delay: UInt64) {
        var counts: [Int: Int] = [:]
        for run in runs where run.delay == delay { counts[run.kind, default: 0] += 1 }
        let most = counts.values.max() ?? 0
        let place = index(of: delay)
        guard places.indices.contains(place), places[place].delay == delay,
            counts[places[place].kind] != most, let kind = counts.filter({ $0.value == most }).keys.min()
        else { return }
        places[place].kind = kind
    }

    /// The delays in the middle of the intervals without a look at the stack.
    var unseen: [UInt64] {
        groups.filter { group in !group.contains { looks[$0.delay] != nil } }
            .map { $0[$0.count / 2].delay }.filter { $0 <= duration }
    }

    /// Delays in ascending order, in groups of equal neighbours.
    private var groups: [[(delay: UInt64, point: Point)]] {
        var groups: [[(delay: UInt64, point: Point)]] = []
        var last: Int?
        for place in places {
            if place.kind == last {
                groups[groups.count - 1].append((place.delay, kinds[place.kind]))
            } else {
                groups.append([(place.delay, kinds[place.kind])])
            }
            last = place.kind
        }
        return groups
    }

    /// The groups, in which an intruder waits only if the victim was in the kernel at most delays that were looked at. In user
    /// space, the intruder waits for a lock of this program. A tick of the kernel may have disturbed a single look.
    private var groupsOfKernelWaits: [[(delay: UInt64, point: Point)]] {
        var merged: [[(delay: UInt64, point: Point)]] = []
        for var group in groups {
            let looked = group.filter { looks[$0.delay] != nil }
            if group.first?.point.intruderWaits == true,
                looked.count(where: { isInKernel($0.delay) }) * 2 <= looked.count
            {
                for index in group.indices { group[index].point.intruderWaits = false }
            }
            if let last = merged.last?.last?.point, last == group.first?.point {
                merged[merged.count - 1] += group
            } else {
                merged.append(group)
            }
        }
        return merged
    }

    // MARK: the map

    var intervals: [SweepMap.Interval] { isExact ? exactIntervals : bins }

    private var exactIntervals: [SweepMap.Interval] {
        var intervals: [SweepMap.Interval] = []
        var border: [[(delay: UInt64, point: Point)]] = []
        func close() {
            let all = border.flatMap { $0 }
            border = []
            interval(all).map { intervals.append($0) }
        }
        for group in groupsOfKernelWaits {
            guard let first = group.first, let last = group.last else { continue }
            let isNarrow = last.delay - first.delay < Self.narrow
            // A group that follows another narrow one shares its interval.
            if !isNarrow { close() }
            border.append(group)
            if !isNarrow { close() }
        }
        close()
        return intervals
    }

    private var bins: [SweepMap.Interval] {
        let width = max(1, duration / Self.binCount)
        var bins: [UInt64: [(delay: UInt64, point: Point)]] = [:]
        for run in runs {
            bins[min(run.delay / width, Self.binCount), default: []].append((run.delay, kinds[run.kind]))
        }
        return bins.keys.sorted().compactMap { bin in
            interval((bins[bin] ?? []).sorted { $0.delay < $1.delay })
        }
    }

    private func interval(_ runs: [(delay: UInt64, point: Point)]) -> SweepMap.Interval? {
        guard let first = runs.first, let last = runs.last else { return nil }
        var counts: [Point: Int] = [:]
        for run in runs {
            let point = Point(results: run.point.results, isFine: run.point.isFine, intruderWaits: false)
            counts[point, default: 0] += 1
        }
        let outcomes = counts.map { point, count in
            SweepMap.Outcome(
                results: block.list(point.results), schedules: count, isFine: point.isFine)
        }
        let middle = first.delay + (last.delay - first.delay) / 2
        // Looks are closer to each other near the borders of the kernel's part.
        let seen = runs.map(\.delay).filter { looks[$0] != nil }.min { one, other in
            (max(one, middle) - min(one, middle), one) < (max(other, middle) - min(other, middle), other)
        }
        return SweepMap.Interval(
            delays: first.delay...last.delay,
            outcomes: outcomes.sorted { ($1.schedules, $0.text) < ($0.schedules, $1.text) },
            functions: seen.flatMap { looks[$0] }.map(KernelStack.functions) ?? [],
            intruderWaits: isExact && runs.count { $0.point.intruderWaits } * 2 > runs.count)
    }
}
