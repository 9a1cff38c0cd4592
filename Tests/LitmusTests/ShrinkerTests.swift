// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

/// Candidates of the shrinker, and the answers that the model writes into them.
@Suite("Shrinking", .timeLimit(.minutes(120)))
struct ShrinkerTests {
    private func test(_ body: String) throws -> LitmusTest {
        try Source(
            parsing: "test \"x\"\nvm default\nmemory 4 pages private\nmemory other 2 pages shared\n" + body
        )
        .test
    }

    /// Without a backend: a test shows the difference if it has a hold before a conversion.
    @Test func shrinkingKeepsWhatIsNeeded() throws {
        let large = try test(
            """
            host write 3 0x99
            host3 hold 1..2 by io_uring as h
            host map other:0..1 as v
            vcpu2 read 0
            host2 convert 1..3 private preserve
            host read v:0
            parallel
            host read 0 => a
            vcpu1 read 1 => b
            end
            """)
        var runs = 0
        var tried: Set<LitmusTest> = []
        let small = Shrinker { test in
            runs += 1
            #expect(tried.insert(test).inserted, "tried twice: \(test.text)")
            var isHeld = false
            for step in test.steps {
                switch step.action {
                case .hold: isHeld = true
                case .convert where isHeld: return true
                default: break
                }
            }
            return false
        }.shrink(large)
        let wanted = try Source(
            parsing: "test \"x\"\nhost hold 0 as h\nhost convert 0 private",
            memory: Memory(pages: 1, initial: .shared))
        #expect(small.steps == wanted.test.steps)
        #expect(small.memory.count <= 1 && small.vm == .softwareProtected)
        #expect(runs < 300)
    }

    /// Ranges are halved, because removing 2^52 pages one by one would not end.
    @Test func largeRangesShrinkFast() throws {
        let large = try test("host convert @0x1000+18446744073709547520 shared")
        var runs = 0
        let small = Shrinker { test in
            runs += 1
            return test.steps.contains { step in
                guard case .convert(let conversion) = step.action else { return false }
                let extent = conversion.extent
                return extent.offset.addingReportingOverflow(extent.size).overflow
            }
        }.shrink(large)
        #expect(small.steps.count == 1 && runs < 1000, "\(runs) runs: \(small.text)")
    }

    @Test func anUnneededBlockBecomesSteps() throws {
        let large = try test("parallel\nhost convert 0 private\nhost1 read 1\nend")
        let small = Shrinker { test in
            test.steps.contains { if case .convert = $0.action { true } else { false } }
        }.shrink(large)
        #expect(small.body.count == 1)
        if case .parallel = small.body[0] { Issue.record("\(small.text)") }
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func theModelWritesTheAnswers() throws {
        let predictor = Predictor(configuration: .init())
        let blank = try test(
            """
            host hold 1 as h
            host read other:0
            vcpu0 again
            host convert 0..2 private
            host read 0
            """)
        let said = try #require(predictor.predict(blank))
        // `again` is removed for a vCPU that has not stopped, as if it had never been there.
        #expect(
            said.test.steps.map { "\($0.action) \($0.expectation)" }.count == 4
                && !said.test.steps.contains { $0.action == .again })
        #expect(said.test.steps[1].expectation == .anyOf([.value(0)]))
        #expect(Runner(SoftKVM()).run(try Source(said.test)) == .passed)
    }
}

extension Source {
    fileprivate init(parsing text: String, memory: Memory) throws(SyntaxError) {
        let lines = text.split(separator: "\n", maxSplits: 1)
        try self.init(parsing: "\(lines[0])\nmemory \(memory)\n\(lines[1])")
    }
}
