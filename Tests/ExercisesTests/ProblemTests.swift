// SPDX-License-Identifier: MIT
import ConversionModel
import Litmus
import Testing

@testable import Exercises

@Suite("Problems and their answers")
struct ProblemTests {
    static let seeds = Seeds.first(10, orIfMany: 100)

    /// An answer to a problem, checked as the text of a file.
    static func check(_ problem: Problem, _ answers: [[String]]) throws -> Assessment {
        let text = problem.form(student: "ada", answers: answers)
        return try problem.assess(AnswerFile(parsing: Array(text.utf8)))
    }

    /// For each seed: the sample answer is right, the form alone is no attempt, and the problem is another one.
    @Test(arguments: Exercise.allCases) func problemsOfManySeeds(_ exercise: Exercise) throws {
        var forms: Set<String> = []
        for seed in Self.seeds {
            let problem = Problem(exercise, seed: seed)
            let found = try Self.check(problem, problem.sample)
            #expect(found.verdict == .right, "seed \(seed): \(found.text)")
            #expect(found.points == problem.possible && problem.possible > 0, "seed \(seed)")
            let form = problem.form()
            let file = try AnswerFile(parsing: Array(form.utf8))
            #expect(file.exercise == exercise && file.seed == seed && file.student == nil)
            let empty = try problem.assess(file)
            #expect(empty.verdict == .noAttempt && empty.points == 0 && empty.run == nil, "seed \(seed)")
            forms.insert(form.split(separator: "\n").filter { !$0.hasPrefix("seed") }.joined(separator: "\n"))
            interest(exercise, problem, "\(exercise) seed \(seed)")
        }
        #expect(forms.count >= Self.seeds.count * 9 / 10, "\(forms.count) different problems")
    }

    /// The problem is not trivial.
    private func interest(_ exercise: Exercise, _ problem: Problem, _ place: Comment) {
        let kinds = [Exercise.hostReads: 2, .guestSees: 3, .refusedRequests: 3, .confidential: 4]
        switch problem.task {
        case .prediction(let task):
            let outcomes = task.outcomes(on: ModelKernel())
            #expect(!outcomes.contains(nil) && outcomes.count == problem.sample.count, place)
            #expect(Set(outcomes.compactMap { $0?.kind }).count >= kinds[exercise] ?? 0, place)
        case .contents, .possibilities:
            let words = problem.sample.map { $0[0] }
            let most = Set(words).map { word in words.count { $0 == word } }.max() ?? 0
            #expect(Set(words).count >= 2 && most <= words.count * 2 / 3, place)
        case .hiddenFault(let task):
            #expect(task.candidates.count == 8 && task.candidates.contains(task.hidden), place)
        case .repair, .cases: break
        }
    }

    /// A lecturer can make the problem of last year's course again: changes of the generator change this number.
    @Test func problemsAreTheSameEverywhere() {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for exercise in Exercise.allCases {
            for seed in 0..<4 as Range<UInt64> {
                for byte in Problem(exercise, seed: seed).form().utf8 {
                    hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3
                }
            }
        }
        #expect(hash == 0x4cc0_446f_e52b_9fd0, "0x\(String(hash, radix: 16))")
    }

    // MARK: the broken kernel

    @Test func aProbeShowsEveryFault() throws {
        #expect(Set(FaultProbe.all.map(\.fault)).count == PlantedFault.allCases.count { !$0.isConfidential })
        for probe in FaultProbe.all {
            let test = try #require(FaultProbe.test(of: probe.fault), "\(probe.fault)")
            let sound = try test.trace(on: ModelKernel(), ignoring: nil)
            let broken = try test.trace(on: ModelKernel(faults: [probe.fault]), ignoring: nil)
            if probe.fault == .errorOffsetWrittenOnSuccess {
                // The outcome is `ok`, and fails as an expectation.
                let judged = try test.trace(on: ModelKernel(faults: [probe.fault]), ignoring: [])
                #expect(judged.failure != nil)
                continue
            }
            #expect(sound.outcomes != broken.outcomes, "\(probe.fault): \(sound.outcomes)")
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
