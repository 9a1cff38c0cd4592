// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

@Suite("The oracle")
struct OracleTests {
    private func steps(_ body: String) throws -> (LitmusTest, [Step]) {
        let test = try Source(parsing: "test \"x\"\nmemory 4 pages shared\n" + body).test
        return (test, test.steps)
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func itPredictsWhatEveryActorMaySee() throws {
        let (test, steps) = try steps(
            """
            host write 1 0x41
            host fork child
            host convert 1..2 private
            host unbind slot 0
            """)
        var oracle = try Oracle(test)
        func visible() -> [VisibleByte?] {
            [Actor.host(0), .vcpu(0), .child(0)].map { oracle.visible(of: Place(page: 1), by: $0) }
        }
        #expect(visible() == [.byte(.known(0)), .byte(.known(0)), nil])
        try oracle.follow(steps[0], .ok)
        #expect(visible() == [.byte(.known(0x41)), .byte(.known(0x41)), nil])
        try oracle.follow(steps[1], .ok)
        try oracle.follow(steps[2], .ok)
        #expect(visible() == [.noPage, .byte(.known(0x41)), .noPage])
        #expect(oracle.state(of: Place(page: 2)) == .private)
        try oracle.follow(steps[3], .ok)
        #expect(oracle.visible(of: Place(page: 1), by: .vcpu(0)) == .noMemslot)
        #expect(oracle.visible(of: Place(page: 0), by: .host(0)) == .byte(.known(0)))
        // Reading the model maps no page.
        #expect(oracle.visible(of: Place(page: 4), by: .host(0)) == nil)
    }

    @Test func itAllowsTheChoicesOfAKernel() throws {
        let (test, steps) = try steps(
            """
            host convert 1..2 private
            host convert 1..2 private
            host hold 3 as h
            host convert 0..3 private => EAGAIN at 3
            host convert 1 shared
            """)
        var oracle = try Oracle(test)
        let noMemory = StepOutcome.errno(12, at: 4096)
        #expect(try oracle.answers(to: steps[0]) == .init(model: .ok, others: [noMemory]))
        // The kernel ran out of memory, and nothing has changed.
        #expect(try oracle.follow(steps[0], noMemory))
        #expect(oracle.state(of: Place(page: 1)) == .shared)
        #expect(try oracle.follow(steps[0], .ok))
        // Nothing changes, so no memory is needed.
        #expect(try oracle.answers(to: steps[1]) == .init(model: .ok))
        #expect(try !oracle.follow(steps[1], noMemory))
        #expect(try oracle.follow(steps[2], .ok))
        #expect(try oracle.follow(steps[3], .errno(11, at: 3 * 4096)))
        #expect(try !oracle.follow(steps[3], .errno(11, at: 2 * 4096)))
        #expect(try !oracle.follow(steps[4], .errno(22)))
    }

    @Test(arguments: [ABIProfile.rfcV1, .rfcV2, .rfcV4, .rfcV5]) func unspecifiedContentsAreAnyBytes(
        _ abi: ABIProfile
    ) throws {
        let (test, steps) = try steps(
            """
            host fill 0..1 0x41
            host convert 0 private
            host convert 0 shared
            host read 0
            host check 0..1 0x41
            host check 1 0x41
            host fill 0 0x42
            host check 0 0x42
            """)
        var oracle = try Oracle(test, SoftKVM.Configuration(seed: 3, abi: abi))
        for step in steps[..<3] { #expect(try oracle.follow(step, .ok)) }
        #expect(oracle.isUndefined(Place(page: 0)))
        #expect(try oracle.answers(to: steps[3]).isAnyByte)
        #expect(try oracle.follow(steps[3], .value(0x99)))
        #expect(try !oracle.follow(steps[3], .sigbus()))
        #expect(try oracle.follow(steps[4], .differs(at: 17)))
        #expect(try !oracle.follow(steps[5], .differs(at: 4096)))
        #expect(try oracle.follow(steps[6], .ok))
        #expect(try !oracle.follow(steps[7], .differs(at: 0)))
    }

    /// The same applies to conversions requested by a guest, for every reader.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func guestConversionsHaveUnspecifiedContents()
        throws
    {
        let body = """
            host fill 0..1 0x41
            vcpu0 hypercall 0 private
            vcpu0 read 0
            vcpu1 read shared:0
            vcpu0 hypercall 0 shared
            vcpu1 again
            host peek 0
            host peek 1
            """
        let test = try Source(parsing: "test \"x\"\naliases two\nmemory 4 pages shared\n" + body).test
        let steps = test.steps
        var oracle = try Oracle(test, SoftKVM.Configuration(seed: 3, abi: .rfcV2))
        for step in steps[..<2] { #expect(try oracle.follow(step, .ok)) }
        #expect(try oracle.perform(steps[2]).isAnyByte)
        #expect(try oracle.perform(steps[3]).model == .fault(.shared, at: 0))
        #expect(try oracle.follow(steps[4], .ok))
        for step in steps[5...6] { #expect(try oracle.perform(step).isAnyByte, "\(step)") }
        #expect(try oracle.perform(steps[7]) == .init(model: .value(0x41)))
    }

    /// Counts include the pages of the agent, which hide the page that its hypercall converted.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func countsIncludeTheAgent() throws {
        let source = try Source(
            parsing: """
                test "x"
                memory 4 pages shared
                memory other 1 pages private
                vcpu0 prefault 4
                vcpu0 hypercall 4 shared
                host zapped
                """)
        let facts = try BackendFacts(SoftKVM()).configured(for: source.test)
        let world = try World(facts, source.test, TestDeadline())
        defer { world.close() }
        var oracle = try Oracle(source.test)
        for step in source.test.steps {
            #expect(try oracle.follow(step, world.perform(step).outcome), "\(step)")
        }
    }

    /// Stepped through all of litmus/ beside a model with a fault, it detects the fault.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func itFollowsTheLibrary() throws {
        var judged = 0
        for file in RunnerTests.files {
            let source = try RunnerTests.source(file)
            guard Program(source.test).blocks.isEmpty, !source.test.vm.isConfidential else { continue }
            let facts = try BackendFacts(SoftKVM()).configured(for: source.test)
            let world = try World(facts, source.test, TestDeadline())
            defer { world.close() }
            var oracle = try Oracle(source.test)
            for step in source.test.steps {
                guard let seen = try? world.perform(step).outcome else { break }
                #expect(try oracle.follow(step, seen), "\(file.lastPathComponent): \(step)")
                judged += 1
            }
        }
        #expect(judged > 300)
    }
}
