// SPDX-License-Identifier: MIT
import ConversionModel
import Litmus
import Testing

@testable import Exercises

@Suite("Problems and their answers")
struct ProblemTests {
    static let seeds: Range<UInt64> = 0..<200

    /// An answer to a problem, checked as the text of a file.
    static func check(_ problem: Problem, _ answers: [[String]]) throws -> Assessment {
        let text = problem.form(student: "ada", answers: answers)
        return try problem.assess(AnswerFile(parsing: Array(text.utf8)))
    }

    // MARK: right answers

    @Test(arguments: Exercise.allCases) func theSampleAnswerIsRight(_ exercise: Exercise) throws {
        for seed in Self.seeds {
            let problem = Problem(exercise, seed: seed)
            let found = try Self.check(problem, problem.sample)
            #expect(found.verdict == .right, "seed \(seed): \(found.text)")
            #expect(found.points == problem.possible && problem.possible > 0, "seed \(seed)")
        }
    }

    @Test(arguments: Exercise.allCases) func aFormIsNoAttempt(_ exercise: Exercise) throws {
        for seed in Self.seeds {
            let problem = Problem(exercise, seed: seed)
            let file = try AnswerFile(parsing: Array(problem.form().utf8))
            #expect(file.exercise == exercise && file.seed == seed && file.student == nil)
            let found = try problem.assess(file)
            #expect(found.verdict == .noAttempt && found.points == 0 && found.run == nil, "seed \(seed)")
        }
    }

    @Test(arguments: Exercise.allCases) func theSeedMakesTheProblem(_ exercise: Exercise) {
        var forms: Set<String> = []
        for seed in Self.seeds {
            let form = Problem(exercise, seed: seed).form(student: "ada")
            #expect(form == Problem(exercise, seed: seed).form(student: "ada"), "seed \(seed)")
            forms.insert(form.split(separator: "\n").filter { !$0.hasPrefix("seed") }.joined(separator: "\n"))
        }
        #expect(forms.count >= Self.seeds.count * 9 / 10, "\(forms.count) different problems")
    }

    /// A lecturer can make the problem of last year's course again: changes of the generator change this number.
    @Test func problemsAreTheSameEverywhere() {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for exercise in Exercise.allCases {
            for seed in 0..<10 as Range<UInt64> {
                for byte in Problem(exercise, seed: seed).form().utf8 {
                    hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3
                }
            }
        }
        #expect(hash == 0, "0x\(String(hash, radix: 16))")
    }

    // MARK: interesting problems

    @Test(arguments: [Exercise.hostReads, .guestSees, .refusedRequests, .confidential])
    func aPredictionHasSeveralKindsOfOutcome(_ exercise: Exercise) throws {
        let kinds = [Exercise.hostReads: 2, .guestSees: 3, .refusedRequests: 3, .confidential: 4]
        for seed in Self.seeds {
            let problem = Problem(exercise, seed: seed)
            guard case .prediction(let task) = problem.task else {
                Issue.record("not a prediction")
                return
            }
            let outcomes = task.outcomes(on: ModelKernel())
            #expect(!outcomes.contains(nil) && outcomes.count == problem.sample.count, "seed \(seed)")
            let found = Set(outcomes.compactMap { $0?.kind }).count
            #expect(found >= kinds[exercise] ?? 0, "seed \(seed): \(problem.sample)")
        }
    }

    @Test(arguments: [Exercise.contents, .raceOutcomes]) func noWordIsRightForAllRows(_ exercise: Exercise) {
        for seed in Self.seeds {
            let words = Problem(exercise, seed: seed).sample.map { $0[0] }
            let most = Set(words).map { word in words.count { $0 == word } }.max() ?? 0
            #expect(Set(words).count >= 2 && most <= words.count * 2 / 3, "seed \(seed): \(words)")
        }
    }

    // MARK: the broken kernel

    @Test func aProbeShowsEveryFault() throws {
        #expect(Set(FaultProbe.all.map(\.fault)).count == PlantedFault.allCases.count { !$0.isConfidential })
        for probe in FaultProbe.all {
            let test = try #require(FaultProbe.test(of: probe.fault), "\(probe.fault)")
            let sound = try test.trace(on: ModelKernel(), ignoring: nil)
            let broken = try test.trace(on: ModelKernel(faults: [probe.fault]), ignoring: nil)
            #expect(sound.outcomes != broken.outcomes, "\(probe.fault): \(sound.outcomes)")
        }
    }

    @Test func theCandidatesOfABrokenKernelCanBeToldApart() throws {
        for seed in Self.seeds {
            guard case .hiddenFault(let task) = Problem(.brokenKernel, seed: seed).task else { continue }
            #expect(task.candidates.count == 8 && task.candidates.contains(task.hidden), "seed \(seed)")
            for other in task.candidates where other != task.hidden {
                #expect(FaultProbe.differ(task.hidden, other), "seed \(seed): \(task.hidden), \(other)")
            }
        }
    }

    @Test func aTestWithoutANameShowsWhatTheKernelAnswers() throws {
        let problem = Problem(.brokenKernel, seed: 7)
        let found = try Self.check(problem, [["?"], problem.sample[1]])
        #expect(found.verdict == .incomplete && found.run != nil)
        let named = try Self.check(problem, [problem.sample[0], ["?"]])
        #expect(named.verdict == .incomplete && named.run == nil)
    }
}
