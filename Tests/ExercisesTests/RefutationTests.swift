// SPDX-License-Identifier: MIT
import ConversionModel
import Litmus
import Testing

@testable import Exercises

/// A wrong answer is refused with a run that the oracle confirms.
@Suite("Wrong answers")
struct RefutationTests {
    static let seeds = Seeds.first(3, orIfMany: 10)

    /// The model, step by step, must give the outcomes of the run. The oracle is another way to them.
    private func confirm(_ run: Run, _ kernel: SoftKernel, _ place: Comment) throws {
        var oracle = try Oracle(run.test, kernel.configuration)
        let steps = run.test.steps
        for line in run.trace.lines {
            let answers = try oracle.perform(steps[line.step])
            #expect(answers.model == line.outcome || answers.isAnyByte, place)
        }
    }

    @Test(arguments: [Exercise.hostReads, .guestSees, .refusedRequests, .confidential])
    func aPrediction(_ exercise: Exercise) throws {
        for seed in Self.seeds {
            let problem = Problem(exercise, seed: seed)
            for place in problem.sample.indices {
                // Another answer that the step can have.
                for wrong in ["0x03", "ok", "EIO"] where [wrong] != problem.sample[place] {
                    var answers = problem.sample
                    answers[place] = [wrong]
                    guard let found = try? ProblemTests.check(problem, answers) else { continue }
                    let comment: Comment = "\(exercise) seed \(seed) blank \(place)"
                    #expect(found.verdict == .wrong && found.points == problem.possible - 1, comment)
                    let run = try #require(found.run, comment)
                    #expect(run.trace.lines.last?.outcome?.description == problem.sample[place][0], comment)
                    try confirm(run, SoftKernel(), comment)
                }
            }
        }
    }

    @Test func contents() throws {
        for seed in Self.seeds {
            let problem = Problem(.contents, seed: seed)
            for place in problem.sample.indices {
                for word in ["preserved", "zero", "undefined", "refused"]
                where [word] != problem.sample[place] {
                    var answers = problem.sample
                    answers[place] = [word]
                    let found = try ProblemTests.check(problem, answers)
                    #expect(
                        found.verdict == .wrong && found.points == problem.possible - 1 && found.run != nil)
                }
            }
        }
    }

    @Test func outcomesOfARace() throws {
        for seed in Self.seeds {
            let problem = Problem(.raceOutcomes, seed: seed)
            guard case .possibilities(let task) = problem.task else { continue }
            for (place, row) in task.rows.enumerated() {
                var answers = problem.sample
                let isPossible = answers[place] == ["possible"]
                answers[place] = [isPossible ? "impossible" : "possible"]
                let found = try ProblemTests.check(problem, answers)
                let run = try #require(found.run, "seed \(seed)")
                #expect(found.verdict == .wrong && found.points == problem.possible - 1, "seed \(seed)")
                // The run of a possible outcome has that outcome, and no other run may.
                let steps = run.test.steps
                let results = run.trace.lines.filter { $0.outcome != nil && steps[$0.step].result != nil }
                let hasIt = row.allSatisfy { condition in
                    results.contains {
                        steps[$0.step].result == condition.result && $0.outcome == condition.outcome
                    }
                }
                #expect(hasIt == isPossible, "seed \(seed): \(found.text.joined(separator: "\n"))")
            }
        }
    }

    @Test func aRepairThatRepairsNothing() throws {
        for seed in Self.seeds {
            let problem = Problem(.raceRepair, seed: seed)
            guard case .repair(let task) = problem.task else { continue }
            // A step that changes nothing.
            let harmless = try ProblemTests.check(problem, [["host present 0"] + task.givenLines])
            #expect(harmless.verdict == .wrong && harmless.points == 0, "seed \(seed)")
            let run = try #require(harmless.run, "seed \(seed)")
            if task.forbidden.isEmpty {
                let failure = try #require(run.trace.failure, "seed \(seed)")
                #expect(run.trace.lines.last?.step == failure, "seed \(seed)")
            } else {
                let results = run.trace.lines.compactMap(\.outcome)
                #expect(results.contains { task.forbidden[0].outcome.means($0) }, "seed \(seed)")
            }
        }
    }

    /// A guard that is never released keeps the bad outcome away, and the conversion, too.
    @Test func aRepairThatNeverConverts() throws {
        var count = 0
        for seed in Self.seeds {
            let problem = Problem(.raceRepair, seed: seed)
            let without = problem.sample[0].filter { !$0.contains("release guard") }
            guard without.count < problem.sample[0].count else { continue }
            count += 1
            let found = try ProblemTests.check(problem, [without])
            #expect(found.verdict == .wrong && found.reason.contains("c = ok"), "seed \(seed): \(found.text)")
        }
        #expect(count > 0)
    }

    @Test func stepsForAPageInUse() throws {
        for seed in Self.seeds {
            let problem = Problem(.pageInUse, seed: seed)
            for wrong in ["preserve", "zero bisect", "unspecified"] {
                var answers = problem.sample
                answers[0] = [answers[0][0].replacing("preserve bisect", with: wrong)]
                let found = try ProblemTests.check(problem, answers)
                #expect(found.verdict == .wrong, "seed \(seed): \(wrong)")
                let run = try #require(found.run)
                try confirm(run, SoftKernel(), "seed \(seed)")
            }
        }
    }

    @Test func monitors() throws {
        for seed in Self.seeds {
            let problem = Problem(.monitor, seed: seed)
            let right = problem.sample
            var wrong: [[[String]]] = []
            func change(_ place: Int, _ old: String, _ new: String) {
                var answers = right
                answers[place] = [answers[place][0].replacing(old, with: new)]
                wrong.append(answers)
            }
            change(0, " bisect", "")
            change(0, "preserve", "zero")
            change(0, "preserve bisect", "unspecified bisect")
            change(1, "preserve", "zero")
            change(2, "preserve", "zero")
            change(2, "preserve", "unspecified")
            change(3, "preserve", "zero")
            change(3, "preserve", "unspecified")
            wrong.append([right[1], right[1], right[2], right[3]])
            wrong.append([right[0], right[0] + right[2], right[2], right[3]])
            wrong.append([right[0], ["host read 0"], right[2], right[3]])
            for answers in wrong {
                let found = try ProblemTests.check(problem, answers)
                #expect(found.verdict == .wrong && found.run != nil, "seed \(seed): \(answers)")
            }
        }
    }

    @Test func namesOfABrokenRule() throws {
        for seed in Self.seeds {
            let problem = Problem(.brokenKernel, seed: seed)
            guard case .hiddenFault(let task) = problem.task else { continue }
            for candidate in task.candidates where candidate != task.hidden {
                let found = try ProblemTests.check(problem, [[candidate.name], problem.sample[1]])
                #expect(found.verdict == .wrong && found.points == 1, "seed \(seed)")
                let run = try #require(found.run)
                #expect(!run.remarks.isEmpty, "seed \(seed): \(candidate)")
                try confirm(run, SoftKernel([task.hidden]), "seed \(seed)")
            }
            let pointless = try ProblemTests.check(
                problem, [problem.sample[0], ["memory 1 page shared", "host read 0"]])
            #expect(pointless.verdict == .wrong && pointless.points == 1, "seed \(seed)")
        }
    }
}
