// SPDX-License-Identifier: MIT
import Litmus

/// Tables about the outcomes of races, printed as Markdown from results in JSON.
enum RaceTables {
    /// Prints for each outcome of each race the schedules that lead to it, from exact sweeps, and from results of both kinds on one
    /// backend how much more often aimed schedules show an outcome than random starting times. Results of one backend and kind
    /// belong together, in any order.
    static func print(_ paths: [String]) throws {
        let all = try paths.map(LitmusResults.init(path:))
        var titles: [String] = []
        for results in all where !titles.contains(results.title) { titles.append(results.title) }
        let kinds = titles.map { title in Kinds(of: all.filter { $0.title == title }, title: title) }
        for kind in kinds where !kind.exact.isEmpty { printPlaces(kind.exact, on: kind.title) }
        for kind in kinds where !kind.aimed.isEmpty && !kind.random.isEmpty {
            printGain(kind.aimed, kind.random, on: kind.title)
        }
    }

    /// The tests of one backend in the order of their names.
    private struct Kinds {
        let title: String
        let exact: [LitmusResults.Test]
        let aimed: [LitmusResults.Test]
        let random: [LitmusResults.Test]

        init(of results: [LitmusResults], title: String) {
            self.title = title
            func tests(_ belongs: (LitmusResults) -> Bool) -> [LitmusResults.Test] {
                results.filter(belongs).flatMap(\.tests).sorted { $0.file < $1.file }
            }
            exact = tests(\.isExact)
            aimed = tests(\.isAimed)
            random = tests { !$0.isExact && !$0.isAimed }
        }
    }

    // MARK: where

    /// - Parameter tests: a test may occur more than once, as with one preemption and with two.
    private static func printPlaces(_ tests: [LitmusResults.Test], on title: String) {
        let out = Terminal.output
        out.print("Schedules on \(title):")
        out.print("")
        var reached = 0
        var rows: [[String]] = []
        var shown: Set<String> = []
        for test in tests where test.sweep != nil && shown.insert(test.file).inserted {
            let maps = tests.filter { $0.file == test.file }.flatMap { $0.sweep ?? [] }
            for (number, block) in (test.blocks ?? []).enumerated() {
                let own = maps.filter { $0.block == number + 1 }
                guard !own.isEmpty else { continue }
                let preemptions =
                    own.allSatisfy { $0.second == nil } ? "one preemption" : "one or two preemptions"
                for outcome in block.outcomes {
                    let name = LitmusFiles.shortName(test.file)
                    guard let (map, interval) = best(outcome.results, own) else {
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
        let schedules = tests.flatMap { $0.sweep ?? [] }.reduce(0) { $0 &+ $1.schedules }
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

    private static func printGain(
        _ aimed: [LitmusResults.Test], _ random: [LitmusResults.Test], on title: String
    ) {
        let out = Terminal.output
        out.print("Aimed schedules against random starting times on \(title), where an outcome is rare:")
        out.print("")
        var rows: [[String]] = []
        for test in random {
            guard let other = aimed.first(where: { $0.file == test.file }) else { continue }
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
