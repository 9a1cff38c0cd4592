// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// Exercise 9: a kernel breaks one rule, and the student finds out which one by testing it.
struct HiddenFault: Sendable {
    /// The rule that the kernel breaks.
    let hidden: PlantedFault
    /// The rules among which the student chooses, with the hidden one.
    let candidates: [PlantedFault]

    /// The points of a right answer: one for a test that tells the kernels apart, one for the name.
    static let points = 2
    /// The largest number of steps of a test.
    static let mostSteps = 40

    private var broken: ModelKernel { ModelKernel(faults: [hidden]) }

    // MARK: checking

    func assess(_ fillings: [Filling]) throws(AnswerFile.Problem) -> Assessment {
        guard fillings.count == 2 else {
            return Assessment(.noAttempt, 0, of: Self.points, "the form is empty")
        }
        let (answer, probe) = (fillings[0], fillings[1])
        var named: PlantedFault?
        if !answer.isEmpty {
            named = candidates.first { $0.name == answer.text }
            if named == nil {
                throw AnswerFile.Problem(
                    line: answer.line,
                    message: "`\(AnswerFile.shown(answer.text))` is none of the names above")
            }
        }
        guard !probe.isEmpty, !probe.lines.isEmpty else {
            return Assessment(
                .incomplete, 0, of: Self.points, line: probe.line,
                "write a test first: what this kernel answers to it is shown")
        }
        let test = try test(probe)
        guard let seen = try? test.trace(on: broken, ignoring: nil),
            let sound = try? test.trace(on: ModelKernel(), ignoring: nil)
        else { throw AnswerFile.Problem(line: probe.line, message: "the model cannot create this machine") }
        let differs = seen.outcomes != sound.outcomes
        let run = Run("What this kernel answers", test, seen, isBroken: true)
        guard let named else {
            return Assessment(
                .incomplete, differs ? 1 : 0, of: Self.points, line: answer.line, "no rule is named yet",
                run: run)
        }
        guard named == hidden else {
            return Assessment(
                .wrong, differs ? 1 : 0, of: Self.points, line: answer.line,
                "a kernel with \(named.name) answers otherwise", run: refutation(of: named) ?? run)
        }
        guard differs else {
            return Assessment(
                .wrong, 1, of: Self.points, line: probe.line,
                "the name is right, but a sound kernel answers this test in the same way", run: run)
        }
        return .right(Self.points, "\(named.name), and the test shows it")
    }

    private func test(_ probe: Filling) throws(AnswerFile.Problem) -> LitmusTest {
        var text = TestText(["test \"a probe\""])
        for line in probe.lines { text.add(line.text, line: line.number) }
        let test = try text.parsed()
        guard test.body.allSatisfy({ if case .step = $0 { true } else { false } }) else {
            throw AnswerFile.Problem(
                line: probe.line, message: "a test of this exercise has no parallel block")
        }
        guard test.steps.count <= Self.mostSteps else {
            throw AnswerFile.Problem(
                line: probe.line, message: "a test of this exercise has at most \(Self.mostSteps) steps")
        }
        return test
    }

    /// The shortest run in which this kernel answers otherwise than a kernel with the named fault.
    private func refutation(of named: PlantedFault) -> Run? {
        var best: Run?
        for fault in [named, hidden] {
            guard let test = FaultProbe.test(of: fault),
                let seen = try? test.trace(on: broken, ignoring: nil),
                let claimed = try? test.trace(on: ModelKernel(faults: [named]), ignoring: nil)
            else { continue }
            let (mine, theirs) = (seen.outcomes, claimed.outcomes)
            guard let place = mine.indices.first(where: { $0 >= theirs.count || mine[$0] != theirs[$0] })
            else { continue }
            guard best.map({ place + 1 < $0.trace.lines.count }) ?? true else { continue }
            var short = test
            short.body = Array(test.body.prefix(place + 1))
            guard let trace = try? short.trace(on: broken, ignoring: nil) else { continue }
            let said = place < theirs.count ? theirs[place]?.description ?? "another" : "another"
            best = Run(
                "What this kernel answers", short, trace, remarks: [place: "with \(named.name): \(said)"],
                isBroken: true)
        }
        return best
    }

    // MARK: generating

    static func draft(_ seed: UInt64) -> Problem.Draft {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ 0x9009)
        // Outcomes do not show what a successful call writes to error_offset.
        let all = chance.shuffled(FaultProbe.all.map { $0.fault })
            .filter { $0 != .errorOffsetWrittenOnSuccess }
        var candidates = Array(all.prefix(1))
        for fault in all.dropFirst() where candidates.count < 8 {
            // Every two candidates can be told apart.
            if candidates.allSatisfy({ FaultProbe.differ($0, fault) }) { candidates.append(fault) }
        }
        let hidden = candidates.first ?? .flagsIgnored
        candidates = chance.shuffled(candidates)
        var lines: [FormLine] = []
        lines.explain(
            "This kernel is Linux 7.4 with one rule broken. Find out which one. Write a test between the two marks: `memory` and "
                + "other lines of a header, then at most \(mostSteps) steps (litmus/README.md). --check shows what this kernel "
                + "answers to each step. Change the test and check again, as often as you like. What a sound kernel answers is in "
                + "docs/ABI.md, and `minivmm litmus --backend soft` runs a test on one.")
        lines.gap()
        lines.explain(
            "When you know the rule, write its name behind `broken`. The answer is right if the name is, and if a sound kernel "
                + "answers your test otherwise.")
        lines.gap()
        for fault in candidates {
            // The description stands below the name, because both together are often wider than a terminal.
            lines.append(.comment(fault.name))
            var description: [FormLine] = []
            description.explain(fault.description, width: 72)
            for case .comment(let text) in description { lines.append(.comment("    " + text)) }
        }
        lines.gap()
        lines.append(.blank("broken"))
        lines.append(.steps([]))
        return Problem.Draft(
            lines: lines, task: .hiddenFault(HiddenFault(hidden: hidden, candidates: candidates)),
            sample: [[hidden.name], FaultProbe.lines(of: hidden)])
    }
}

extension ModelTrace {
    /// The outcomes of a sequential run. Undefined bytes are nil.
    var outcomes: [StepOutcome?] { lines.map { $0.isAnyByte ? nil : $0.outcome } }
}
