// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// Exercise 7: steps are added to a race until a bad outcome is impossible in every order.
struct RaceRepair: Sendable {
    /// The lines of the test before its steps.
    let header: [String]
    /// The steps and the block as given. All of them must stay.
    let given: LitmusTest
    let givenLines: [String]
    /// An outcome that no order may have; nil if the steps behind the block say what must not happen.
    let forbidden: [Clause.Condition]
    /// An outcome that some order must still have.
    let required: [Clause.Condition]

    /// The largest number of steps that an answer adds.
    static let mostAdded = 4
    static let mostPieces = 20_000

    // MARK: checking

    func assess(_ fillings: [Filling], faults: [PlantedFault] = []) throws(AnswerFile.Problem) -> Assessment {
        guard let filling = fillings.first else {
            return Assessment(.noAttempt, 0, of: 1, "the answer is missing")
        }
        var text = TestText(header)
        for line in filling.lines { text.add(line.text, line: line.number) }
        let test = try text.parsed()
        try checkGiven(test, filling.line)
        let race: ModelRace
        do throws(Oracle.Problem) {
            race = try test.race(on: ModelKernel(faults: faults), pieces: Self.mostPieces)
        } catch {
            throw AnswerFile.Problem(
                line: filling.line, message: "the model cannot run this answer: \(error.description)")
        }
        guard race.isComplete else {
            return Assessment(
                .undecided, 0, of: 1, line: filling.line,
                "the race has more orders than the check explores (\(Self.mostPieces) atomic pieces): use fewer steps"
            )
        }
        if let bad = race.outcomes.first(where: { !forbidden.isEmpty && $0.results.contains(all: forbidden) })
        {
            return Assessment(
                .wrong, 0, of: 1, line: filling.line, "`\(forbidden.text)` is still possible",
                run: Run("An order of the steps that leads to it", test, bad.trace))
        }
        if let trace = race.failures.first {
            return Assessment(
                .wrong, 0, of: 1, line: filling.line, "in some order a step ends as it must not",
                run: Run("The shortest order that shows it", test, trace))
        }
        guard race.outcomes.contains(where: { $0.results.contains(all: required) }) else {
            return Assessment(
                .wrong, 0, of: 1, line: filling.line,
                "`\(required.text)` has become impossible, so the request is never carried out",
                run: race.outcomes.first.map { Run("One of the orders that are left", test, $0.trace) })
        }
        return .right(1, "it holds in every order of the steps (\(race.states) states)")
    }

    func refuses(_ answer: [String], _ faults: [PlantedFault]) -> Bool {
        let lines = answer.map { AnswerFile.Line(number: 1, text: AnswerFile.normal($0)) }
        guard let found = try? assess([Filling(line: 1, lines: lines, isEmpty: false)], faults: faults) else {
            return true
        }
        return found.verdict != .right
    }

    /// The steps of the problem must stand in the answer, in their order, inside and outside of the block.
    private func checkGiven(_ test: LitmusTest, _ line: Int) throws(AnswerFile.Problem) {
        let (own, mine) = (Parts(given), Parts(test))
        guard mine.blocks == 1 else {
            throw AnswerFile.Problem(
                line: line, message: "the answer must have the one parallel block of the problem")
        }
        guard !mine.hasClauses else {
            throw AnswerFile.Problem(
                line: line, message: "the answer has no clauses: the problem says what must hold")
        }
        for (old, new) in [(own.before, mine.before), (own.behind, mine.behind)] {
            if let step = old.missing(in: new) { throw Self.missing(step, line) }
        }
        for first in own.block {
            let old = own.block.filter { $0.actor == first.actor }
            let new = mine.block.filter { $0.actor == first.actor }
            if let step = old.missing(in: new) { throw Self.missing(step, line) }
        }
        let added = test.steps.count - given.steps.count
        guard added <= Self.mostAdded else {
            throw AnswerFile.Problem(
                line: line,
                message: "the answer adds \(added) steps, and at most \(Self.mostAdded) are needed")
        }
    }

    private static func missing(_ step: Step, _ line: Int) -> AnswerFile.Problem {
        AnswerFile.Problem(
            line: line,
            message:
                "`\(step.text)` is missing or stands elsewhere: the steps of the problem stay where they are")
    }

    private struct Parts {
        var before: [Step] = []
        var block: [Step] = []
        var behind: [Step] = []
        var blocks = 0
        var hasClauses = false

        init(_ test: LitmusTest) {
            for entry in test.body {
                switch entry {
                case .step(let step): if blocks == 0 { before.append(step) } else { behind.append(step) }
                case .parallel(let parallel):
                    blocks += 1
                    block += parallel.steps
                    hasClauses = hasClauses || !parallel.clauses.isEmpty || parallel.preemption != nil
                }
            }
        }
    }

    // MARK: generating

    static func draft(_ seed: UInt64) -> Problem.Draft {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ 0x7007)
        for _ in 0..<100 {
            if let draft = one(&chance) { return draft }
        }
        let empty = RaceRepair(
            header: [], given: LitmusTest(name: "empty"), givenLines: [], forbidden: [], required: [])
        return Problem.Draft(lines: [], task: .repair(empty), sample: [])
    }

    /// A scenario as text. In it, the steps of the solution begin with `+`.
    private struct Scenario {
        let story: String
        let goal: String
        let lines: [String]
        let forbidden: String
        let required: String
    }

    private static func one(_ chance: inout Chance) -> Problem.Draft? {
        let pages = chance.number(1...4)
        let page = chance.below(pages)
        let range = "0..\(pages - 1)"
        let scenario = scenario(&chance, page, range)
        let header = [
            "test      \"repair a race\"", "memory    \(pages) page\(pages == 1 ? "" : "s") shared",
        ]
        let givenLines = scenario.lines.filter { $0.utf8.first != UInt8(ascii: "+") }
        let solution = scenario.lines.map { line in
            line.utf8.first == UInt8(ascii: "+")
                ? String(decoding: line.utf8.dropFirst(), as: UTF8.self) : line
        }
        func parsed(_ lines: [String], _ clause: String?) -> LitmusTest? {
            var text = TestText(header)
            for line in lines {
                if line == "end", let clause, !clause.isEmpty { text.add("forbidden " + clause) }
                text.add(line)
            }
            return try? text.parsed()
        }
        func conditions(_ clause: String) -> [Clause.Condition] {
            guard !clause.isEmpty, let test = parsed(givenLines, clause) else { return [] }
            for case .parallel(let block) in test.body { return block.clauses.first?.conditions ?? [] }
            return []
        }
        guard let given = parsed(givenLines, nil) else { return nil }
        let repair = RaceRepair(
            header: header, given: given, givenLines: givenLines, forbidden: conditions(scenario.forbidden),
            required: conditions(scenario.required))
        guard repair.refuses(givenLines, []), !repair.refuses(solution, []) else { return nil }
        var lines: [FormLine] = []
        lines.explain(scenario.story)
        lines.gap()
        lines.explain(scenario.goal)
        lines.gap()
        lines.explain(
            "Add at most \(mostAdded) steps: before the block, in it (of any actor), or behind it. The given steps stay where they "
                + "are. A step that you add in the block can have a result of its own: => x.")
        lines.gap()
        lines += header.map { .fixed($0) }
        lines.append(.steps(givenLines))
        return Problem.Draft(lines: lines, task: .repair(repair), sample: [solution])
    }

    private static func scenario(_ chance: inout Chance, _ page: Int, _ range: String) -> Scenario {
        func line(_ actor: String, _ action: String, _ outcome: String? = nil) -> String {
            CaseSuite.line(actor, action, outcome)
        }
        let byte = chance.byte()
        switch chance.below(4) {
        case 0:
            let access = chance.isTrue(50) ? "read \(page)" : "write \(page) \(chance.byte())"
            return Scenario(
                story:
                    "host1 is a thread of the monitor that uses a page of the guest. Meanwhile another thread converts it, and "
                    + "host1 gets SIGBUS.",
                goal:
                    "Repair it: r = SIGBUS must be impossible in every order, and the conversion must still be able to succeed "
                    + "(c = ok).",
                lines: [
                    line("host", "fill \(range) \(byte)"), "+" + line("host1", "hold \(page) as guard"),
                    "parallel",
                    line("host", "convert \(range) private", "c"), line("host1", access, "r"),
                    "+" + line("host1", "release guard"), "end",
                ], forbidden: "r = SIGBUS", required: "c = ok")
        case 1:
            return Scenario(
                story:
                    "The guest asks for pages to become private while a thread of the monitor reads one of them. The call can "
                    + "meet the reader's reference: EAGAIN, and nothing has changed.",
                goal:
                    "Repair it: behind the block the host must get SIGBUS for page \(page) in every order. c = ok must stay "
                    + "possible.",
                lines: [
                    line("host", "fill \(range) \(byte)"), "parallel",
                    line("host", "convert \(range) private", "c"),
                    line("host1", chance.isTrue(50) ? "read \(page)" : "write \(page) \(chance.byte())", "r"),
                    "end",
                    "+" + line("host", "convert \(range) private"), line("host", "read \(page)", "SIGBUS"),
                ], forbidden: "", required: "c = ok")
        case 2:
            return Scenario(
                story:
                    "Two vCPUs' requests for the same page reach the kernel at the same time, in opposite directions. The later one "
                    + "wins, and the monitor does not know which one that was.",
                goal:
                    "Repair it: behind the block page \(page) must be private in every order, with the byte that the guest has "
                    + "written. a = ok, b = ok must stay possible.",
                lines: [
                    line("vcpu0", "write \(page) \(byte)"), "parallel",
                    line("host", "convert \(page) private", "a"),
                    line("host1", "convert \(range) shared", "b"), "end",
                    "+" + line("host", "convert \(page) private"), line("host", "read \(page)", "SIGBUS"),
                    line("vcpu0", "read \(page)", byte),
                ], forbidden: "", required: "a = ok, b = ok")
        default:
            let other = chance.byte()
            return Scenario(
                story:
                    "A balloon thread (host1) punches a hole while the host writes a message into the page. The hole can swallow "
                    + "the message.",
                goal:
                    "Repair it: behind the block the guest must read \(other) in every order. w = ok, p = ok must stay "
                    + "possible.",
                lines: [
                    line("host", "fill \(range) \(byte)"), "parallel",
                    line("host", "write \(page) \(other)", "w"),
                    line("host1", "punch \(page)", "p"), "end", "+" + line("host", "write \(page) \(other)"),
                    line("vcpu0", "read \(page)", other),
                ], forbidden: "", required: "w = ok, p = ok")
        }
    }
}

extension [Clause.Condition] {
    /// Whether all of these conditions hold.
    fileprivate func contains(all conditions: [Clause.Condition]) -> Bool {
        conditions.allSatisfy { wanted in
            contains { $0.result == wanted.result && wanted.outcome.means($0.outcome) }
        }
    }
}

extension [Step] {
    /// The first of these steps that is not among others in this order; nil if all are.
    fileprivate func missing(in others: [Step]) -> Step? {
        var place = 0
        for step in self {
            while place < others.count, others[place] != step { place += 1 }
            guard place < others.count else { return step }
            place += 1
        }
        return nil
    }
}
