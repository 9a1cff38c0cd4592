// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// Exercise 6: which outcomes of a parallel block are possible.
struct Possibilities: Sendable {
    let test: LitmusTest
    /// Outcomes of the block, some possible and some not.
    let rows: [[Clause.Condition]]

    /// The number of atomic pieces after which an exploration ends.
    static let mostPieces = 20_000

    /// For each row whether it is possible; nil if the exploration is incomplete.
    func answers(_ faults: [PlantedFault] = []) -> [Bool]? {
        guard let race = try? test.race(on: ModelKernel(faults: faults), pieces: Self.mostPieces),
            race.isComplete
        else { return nil }
        return rows.map { row in race.outcomes.contains { $0.results == row } }
    }

    // MARK: checking

    func assess(_ fillings: [Filling]) throws(AnswerFile.Problem) -> Assessment {
        var said: [Bool] = []
        for filling in fillings {
            guard filling.text == "possible" || filling.text == "impossible" else {
                throw AnswerFile.Problem(
                    line: filling.line,
                    message: "`\(AnswerFile.shown(filling.text))` is neither `possible` nor `impossible`")
            }
            said.append(filling.text == "possible")
        }
        guard let race = try? test.race(on: ModelKernel(), pieces: Self.mostPieces), race.isComplete else {
            return Assessment(
                .undecided, 0, of: rows.count, "the model stopped at \(Self.mostPieces) atomic pieces")
        }
        var points = 0
        var first: Int?
        for (place, row) in rows.enumerated() where place < said.count {
            if race.outcomes.contains(where: { $0.results == row }) == said[place] {
                points += 1
            } else {
                first = first ?? place
            }
        }
        guard let first else {
            return .right(
                rows.count, "all \(rows.count) outcomes, checked in every order (\(race.states) states)")
        }
        let row = rows[first]
        let line = fillings[first].line
        if let found = race.outcomes.first(where: { $0.results == row }) {
            return Assessment(
                .wrong, points, of: rows.count, line: line, "`\(row.text)` is possible",
                run: Run("An order of the steps that leads to it", test, found.trace))
        }
        // The run that comes closest to the claim.
        func agreement(_ outcome: ModelRace.Outcome) -> Int {
            zip(outcome.results, row).reduce(0) { $0 + ($1.0 == $1.1 ? 1 : 0) }
        }
        var closest: ModelRace.Outcome?
        for outcome in race.outcomes where closest.map({ agreement(outcome) > agreement($0) }) ?? true {
            closest = outcome
        }
        return Assessment(
            .wrong, points, of: rows.count, line: line,
            "no order of the steps ends with `\(row.text)` (\(race.states) states explored)",
            run: closest.map { Run("The closest that a run comes to it", test, $0.trace) })
    }

    // MARK: generating

    static func draft(_ seed: UInt64) -> Problem.Draft {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ 0x6006)
        var best: Possibilities?
        for _ in 0..<400 {
            guard let test = sketch(&chance), let race = try? test.race(on: ModelKernel(), pieces: 4_000),
                race.isComplete, race.failures.isEmpty
            else { continue }
            guard let drawn = rows(race, &chance) else { continue }
            best = Possibilities(test: test, rows: drawn)
            break
        }
        let found = best ?? Possibilities(test: LitmusTest(name: "empty"), rows: [])
        var lines: [FormLine] = []
        lines.explain(
            "The actors of the parallel block act at the same time: each in its own order, and in any order among each other. An "
                + "access of the host takes a reference on the page, copies, and drops the reference; in between, others may act. "
                + "Say for each outcome whether some order leads to it: possible or impossible.")
        lines.gap()
        for line in found.test.formLines { lines.append(.fixed(line)) }
        lines.gap()
        for row in found.rows { lines.append(.blank(row.text.padded(to: 46) + "=>")) }
        let sample = (found.answers() ?? []).map { [$0 ? "possible" : "impossible"] }
        return Problem.Draft(lines: lines, task: .possibilities(found), sample: sample)
    }

    /// A block of two or three actors.
    private static func sketch(_ chance: inout Chance) -> LitmusTest? {
        let pages = chance.number(1...2)
        let page = chance.below(pages)
        var text = TestText(["test \"a race\"", "memory \(pages) page\(pages == 1 ? "" : "s") shared"])
        text.add("host fill 0..\(pages - 1) \(chance.byte())")
        if chance.isTrue(20) { text.add("host convert \(page) private") }
        text.add("parallel")
        var names = ["d", "c", "b", "a"]
        func result() -> String { " => " + (names.popLast() ?? "e") }
        text.add("host convert 0..\(pages - 1) \(chance.pick("private", "private", "shared"))" + result())
        let others = chance.shuffled([1, 2, 3, 4, 5, 6]).prefix(chance.number(1...2))
        for actor in others {
            switch actor {
            case 1: text.add("host1 read \(page)" + result())
            case 2: text.add("host2 write \(page) \(chance.byte())" + result())
            case 3:
                text.add("vcpu0 \(chance.pick("read \(page)", "write \(page) \(chance.byte())"))" + result())
            case 4: text.add("host3 punch \(page)" + result())
            case 5: text.add("host4 hold \(page) as pin" + result())
            default: text.add("host5 convert \(page) \(chance.pick("private", "shared"))" + result())
            }
        }
        if others.count == 1, chance.isTrue(60) {
            text.add("host1 read \(chance.below(pages))" + result())
        }
        text.add("end")
        return try? text.parsed()
    }

    /// Possible outcomes, and impossible ones made of outcomes that the steps have in other runs.
    private static func rows(_ race: ModelRace, _ chance: inout Chance) -> [[Clause.Condition]]? {
        let possible = race.outcomes.map { $0.results }
        guard possible.count >= 2, let first = possible.first else { return nil }
        var all: [[Clause.Condition]] = [[]]
        for place in first.indices {
            var seen: [Clause.Condition] = []
            for row in possible where place < row.count && !seen.contains(row[place]) {
                seen.append(row[place])
            }
            all = all.flatMap { row in seen.map { row + [$0] } }
            guard all.count <= 64 else { return nil }
        }
        let impossible = all.filter { !possible.contains($0) }
        guard impossible.count >= 2 else { return nil }
        let some = chance.shuffled(possible).prefix(3) + chance.shuffled(impossible).prefix(3)
        return chance.shuffled(Array(some))
    }
}

extension [Clause.Condition] {
    /// `a = ok, b = 0x41`.
    var text: String {
        map { "\($0.result.description) = \($0.outcome.description)" }.joined(separator: ", ")
    }
}

extension LitmusTest {
    /// The lines of the test for a form.
    var formLines: [String] {
        text.utf8.split(separator: 10).map { String(decoding: $0, as: UTF8.self) }
    }
}
