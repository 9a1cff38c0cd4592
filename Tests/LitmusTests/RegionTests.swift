// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

/// The monitor's converter on guest memory that lies in several files.
@Suite("Conversions over several regions", .timeLimit(.minutes(120)))
struct RegionTests {
    static let head =
        "memory 2 pages shared\nmemory spare 1 pages shared unbound\nmemory other 2 pages shared"

    private func source(_ body: String, _ head: String = head) throws -> Source {
        try Source(parsing: "test \"x\"\n\(head)\n" + body)
    }

    private static let backends: [any Backend] = [
        SoftKVM(), MemslotTrapKVM(over: SoftKVM()), ParallelTests.real,
    ].compactMap { $0 }

    /// The guest's pages 0 and 1 are those of `ram`, 2 and 3 those of `other`.
    static let bodies = [
        """
        host write 1 0x41
        host write other:0 0x42
        host convert guest:1..2 private preserve
        host read 0 => 0
        host read 1 => SIGBUS
        host read other:0 => SIGBUS
        host read other:1 => 0
        host read spare:0 => 0
        host convert guest:0..3 shared preserve
        host read 1 => 0x41
        host read other:0 => 0x42
        """,
        """
        host hold other:0 as h
        host convert guest:0..3 private preserve => EAGAIN at 2
        host read 0 => SIGBUS
        host read other:1 => 0
        host convert guest:0..3 private preserve bisect attempts 2 => EAGAIN at 2
        host read other:0 => 0
        host read other:1 => SIGBUS
        host release h
        host convert guest:2 private preserve
        """,
        """
        host hold 0 as h
        host hold other:1 as i
        host convert guest:0..3 private unspecified bisect => EAGAIN at 0
        host read 1 => SIGBUS
        host read other:0 => SIGBUS
        host read other:1 => 0
        """,
        """
        host hold other:1 as h
        host convert guest:0..3 private unspecified chunk 1 => EAGAIN at 3
        host read other:0 => SIGBUS
        host read other:1 => 0
        """,
        """
        host write 1 0x41
        host write other:0 0x42
        host convert other:0 private
        host convert guest:1..3 private zero
        host convert guest:0..3 shared preserve
        host check 0..1 0
        host check other:0..1 0
        """,
        """
        host convert guest:3..4 private preserve => EINVAL
        host convert guest:4 private zero => EINVAL
        host convert guest:0..4 private unspecified bisect => EINVAL
        host read 0 => 0
        host read other:1 => 0
        """,
        // The header determines the guest's memory, whatever happens to memslots.
        """
        host unbind slot 1
        host convert guest:1..2 private unspecified
        host read other:0 => SIGBUS
        """,
    ]

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: bodies)
    func backendsConvertLikeTheModel(_ body: String) throws {
        let test = try source(body)
        for backend in Self.backends {
            #expect(Runner(backend).run(test) == .passed, "\(backend.identity)")
        }
        #expect(ModelRunner(configuration: .init()).run(test.test) == .passed)
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func aVCPURequestSpansFiles() throws {
        let test = try source(
            """
            vcpu0 fill 1..2 7
            host convert guest:1..2 private preserve
            vcpu0 check 1..2 7
            host write 0 9
            vcpu1 read 0 => 9
            """)
        for backend in Self.backends { #expect(Runner(backend).run(test) == .passed, "\(backend.identity)") }
    }

    /// A closed file has no descriptor for the call.
    @Test func aClosedFileCannotBeConverted() throws {
        let test = try source(
            """
            host close other
            host convert guest:1..2 private unspecified => EBADF
            host read 1 => SIGBUS
            host read other:0 => 0
            """)
        #expect(Runner(SoftKVM()).run(test) == .passed)
        #expect(ModelRunner(configuration: .init()).run(test.test) == .passed)
    }

    /// If the call has no content policy, each file is converted as in any other test.
    @Test(arguments: ContentDesign.allCases) func designsConvertFileByFile(_ design: ContentDesign) throws {
        let test = try source(
            """
            host hold other:1 as h
            host convert guest:1..2 private unspecified
            host read 1 => SIGBUS
            host read other:0 => SIGBUS
            host convert guest:1..3 shared unspecified
            host convert guest:1..3 private unspecified => EAGAIN at 3
            host convert guest:1..4 private unspecified => EINVAL
            host read 1 => SIGBUS
            host read other:0
            """)
        var configuration = SoftKVM.Configuration()
        configuration.contentDesign = design
        #expect(Runner(SoftKVM(configuration)).run(test) == .passed)
        #expect(ModelRunner(configuration: configuration).run(test.test) == .passed)
    }

    // MARK: parallel blocks

    private func outcomes(_ body: String) throws -> [String] {
        let report = Runner(SoftKVM()).report(try source("parallel\n\(body)\nend"))
        return report.blocks.flatMap(\.outcomes).map(\.text)
    }

    /// Other actors can act between two regions, but not within one.
    @Test func eachRegionIsAPiece() throws {
        let seen = try outcomes(
            """
            host convert guest:0..3 private preserve => a
            host1 write other:1 7 => w
            host1 write 1 7 => v
            """)
        #expect(seen.contains("a = ok, w = ok, v = SIGBUS"))
        #expect(seen.contains("a = EAGAIN at 3, w = ok, v = SIGBUS"))
        #expect(seen.contains("a = EAGAIN at 1, w = ok, v = ok"))
        // The first region is private when the second one is converted.
        #expect(!seen.contains("a = ok, w = SIGBUS, v = ok"))
        // Both pages of one region change together.
        let together = try outcomes(
            """
            host convert guest:0..1 private preserve => a
            host1 write 1 7 => w
            host1 write 0 7 => v
            """)
        #expect(together.contains("a = ok, w = SIGBUS, v = SIGBUS"))
        #expect(!together.contains("a = ok, w = SIGBUS, v = ok"))
    }

    @Test(.enabled(if: ParallelTests.real != nil, ParallelTests.noReal)) func threadsStayInTheModelsSet()
        throws
    {
        let test = try source(
            """
            parallel
            host convert guest:0..3 private unspecified => a
            host1 read 1 => x
            host1 read other:1 => y
            host2 convert guest:1..2 shared unspecified => b
            end
            """)
        let report = Runner(try #require(ParallelTests.real), .init(runs: 200, seed: 5)).report(test)
        #expect(report.verdict == .passed, "\(report)")
        #expect(report.blocks.first?.outcomes.allSatisfy { $0.isInModel == true } == true)
    }

    // MARK: the oracle

    /// A kernel may run out of memory at the start of each region, with the regions before it converted.
    @Test func eachRegionMayRunOutOfMemory() throws {
        let test = try source("host convert guest:1..2 private preserve\nhost convert guest:1..2 shared zero")
            .test
        let steps = test.steps
        var oracle = try Oracle(test)
        let (first, second) = (StepOutcome.errno(12, at: 4096), StepOutcome.errno(12, at: 8192))
        #expect(try oracle.answers(to: steps[0]) == .init(model: .ok, others: [first, second]))
        var copy = oracle
        #expect(try copy.follow(steps[0], first))
        #expect(copy.state(of: Place(page: 1)) == .shared)
        #expect(try oracle.follow(steps[0], second))
        let other = try #require(Name("other"))
        #expect(oracle.state(of: Place(page: 1)) == .private)
        #expect(oracle.state(of: Place(other, page: 0)) == .shared)
        // A page in the requested state needs no memory.
        #expect(try oracle.answers(to: steps[0]) == .init(model: .ok, others: [second]))
        #expect(try oracle.answers(to: steps[1]) == .init(model: .ok, others: [first]))
    }

    // MARK: failures

    @Test func aFailureShowsThePagesOfEachFile() throws {
        let test = try source("host convert guest:1..2 private preserve => EAGAIN")
        guard case .failed(let failure) = Runner(SoftKVM()).run(test) else {
            Issue.record("passed")
            return
        }
        #expect(
            failure.pages == [
                "page 0 of ram: shared, the host reads 0x0", "page 1 of ram: private, the host reads SIGBUS",
                "page 0 of other: private, the host reads SIGBUS",
                "page 1 of other: shared, the host reads 0x0",
            ])
        guard case .failed(let same) = ModelRunner(configuration: .init()).run(test.test) else {
            Issue.record("passed")
            return
        }
        #expect(same.pages == failure.pages)
    }
}
