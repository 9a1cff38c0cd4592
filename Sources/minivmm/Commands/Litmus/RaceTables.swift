// SPDX-License-Identifier: MIT
import Litmus

/// Tables about the outcomes of races, printed as Markdown from results in JSON.
enum RaceTables {
    /// Prints for each outcome of each race the schedules that lead to it, from exact sweeps, and from results of both kinds on one
    /// backend how much more often aimed schedules show an outcome than random starting times.
    static func print(_ paths: [String]) throws {
        let all = try paths.map(LitmusResults.init(path:))
        // Further exact results of a backend are of sweeps with a second preemption.
        var shown: Set<String> = []
        for results in all where results.isExact && shown.insert(results.title).inserted {
            printPlaces(results, all.filter { $0.isExact && $0.title == results.title }.dropFirst())
        }
        for aimed in all where aimed.isAimed {
            guard let random = all.first(where: { !$0.isExact && !$0.isAimed && $0.title == aimed.title })
            else { continue }
            printGain(aimed, random)
        }
    }

    // MARK: where

    private static func printPlaces(_ results: LitmusResults, _ further: some Sequence<LitmusResults>) {
        let out = Terminal.output
        out.print("Schedules on \(results.title):")
        out.print("")
        var reached = 0
        var rows: [[String]] = []
        for test in results.tests {
            guard let maps = test.sweep, let blocks = test.blocks else { continue }
            for (number, block) in blocks.enumerated() {
                let own = maps.filter { $0.block == number + 1 }
                guard !own.isEmpty else { continue }
                let second = further.flatMap(\.tests).filter { $0.file == test.file }.flatMap {
                    $0.sweep ?? []
                }
                .filter { $0.block == number + 1 }
                let preemptions = second.isEmpty ? "one preemption" : "one or two preemptions"
                for outcome in block.outcomes {
                    let name = LitmusFiles.shortName(test.file)
                    guard let (map, interval) = best(outcome.results, own) ?? best(outcome.results, second)
                    else {
                        rows.append([name, outcome.results, "not reached with \(preemptions)", "", ""])
                        continue
                    }
                    reached += 1
                    rows.append([
                        name, outcome.results, "`\(interval.schedule)`",
                        "\(interval.fromNs) to \(interval.toNs)", place(map, interval),
                    ])
                }
            }
        }
        LitmusTables.printTable(["race", "outcome", "schedule", "delays in ns", "preempted in"], rows)
        out.print("")
        let maps = ([results] + further).flatMap(\.tests).flatMap { $0.sweep ?? [] }
        let schedules = maps.reduce(0) { $0 &+ $1.schedules }
        out.print("\(reached) of \(rows.count) outcomes are reached, in \(schedules) schedules")
        out.print("")
    }

    /// The widest interval with this outcome alone, else any with it. One preemption has precedence.
    private static func best(
        _ outcome: String, _ maps: [LitmusResults.Map]
    ) -> (LitmusResults.Map, LitmusResults.Interval)? {
        func rank(_ map: LitmusResults.Map, _ interval: LitmusResults.Interval) -> (Int, Int, UInt64) {
            (
                map.second == nil ? 1 : 0, interval.outcomes.count == 1 ? 1 : 0,
                interval.toNs &- interval.fromNs
            )
        }
        return maps.flatMap { map in map.intervals.map { (map, $0) } }
            .filter { $1.outcomes.contains { $0.outcome == outcome } }
            .max { rank($0.0, $0.1) < rank($1.0, $1.1) }
    }

    private static func place(_ map: LitmusResults.Map, _ interval: LitmusResults.Interval) -> String {
        let place =
            interval.functions.isEmpty
            ? "user space" : interval.functions.prefix(2).map { "`\($0)`" }.joined(separator: " < ")
        return place + (interval.intruderWaits ? "; \(map.intruder) waits" : "")
    }

    // MARK: gain

    /// An outcome is rare if less than this share of runs has it.
    private static let rare = 0.05

    private static func printGain(_ aimed: LitmusResults, _ random: LitmusResults) {
        let out = Terminal.output
        out.print(
            "Aimed schedules against random starting times on \(aimed.title), where an outcome is rare:")
        out.print("")
        var rows: [[String]] = []
        for test in random.tests {
            guard let other = aimed.tests.first(where: { $0.file == test.file }) else { continue }
            for (block, aim) in zip(test.blocks ?? [], other.blocks ?? []) {
                guard let runs = block.runs, let schedules = aim.runs, runs > 0, schedules > 0 else {
                    continue
                }
                for outcome in block.outcomes {
                    let count = outcome.count ?? 0
                    let hits = aim.outcomes.first { $0.results == outcome.results }?.count ?? 0
                    let shares = [Double(count) / Double(runs), Double(hits) / Double(schedules)]
                    guard shares.contains(where: { $0 < rare }) else { continue }
                    rows.append([
                        LitmusFiles.shortName(test.file), outcome.results, "\(count) of \(runs)",
                        "\(hits) of \(schedules)", gain(hits, schedules, count, runs),
                    ])
                }
            }
        }
        LitmusTables.printTable(["race", "outcome", "random", "aimed", "gain"], rows)
        out.print("")
    }

    /// The ratio of the rates; a bound if one of them is 0.
    private static func gain(_ hits: Int, _ schedules: Int, _ count: Int, _ runs: Int) -> String {
        if hits == 0, count == 0 { return "neither" }
        if hits == 0 { return "random alone" }
        let ratio = Double(hits) / Double(schedules) / (Double(max(1, count)) / Double(runs))
        let rounded = (ratio * 10).rounded() / 10
        return count == 0 ? "aimed alone, ≥ \(rounded)" : "\(rounded)"
    }
}

extension LitmusResults {
    /// Whether it is of a sweep with an exact timer, or of one whose delays are drawn at random.
    fileprivate var isExact: Bool {
        // A timer that varies can measure as exact once.
        let maps = tests.flatMap { $0.sweep ?? [] }
        return maps.count(where: \.exact) * 2 > maps.count
    }
    fileprivate var isAimed: Bool { !isExact && tests.contains { $0.sweep?.isEmpty == false } }
}
