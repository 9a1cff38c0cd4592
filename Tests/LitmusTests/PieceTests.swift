// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

/// Steps that consist of several pieces, and the outcomes of two of them together.
@Suite("Pieces of steps", .timeLimit(.minutes(120)))
struct PieceTests {
    private func source(_ body: String, _ head: String = "memory 4 pages shared") throws -> Source {
        try Source(parsing: "test \"x\"\n\(head)\n" + body)
    }

    private func outcomes(_ body: String, _ before: String = "", _ head: String = "memory 4 pages shared")
        throws
        -> [String]
    {
        let report = Runner(SoftKVM()).report(try source("\(before)\nparallel\n\(body)\nend", head))
        return report.blocks.flatMap(\.outcomes).map(\.text)
    }

    // MARK: references, page by page

    @Test func aHoldThatFailsHasHeldThePagesBefore() throws {
        let seen = try outcomes(
            "host hold 0..1 as h => a\nhost1 convert 0 private => b", "host convert 1 private")
        #expect(seen == ["a = EFAULT, b = EAGAIN at 0", "a = EFAULT, b = ok"])
    }

    /// Both pages are released, one after the other.
    @Test func aReleaseIsPageByPage() throws {
        let seen = try outcomes("host release h => a\nhost1 convert 0..1 private => b", "host hold 0..1 as h")
        #expect(seen == ["a = ok, b = EAGAIN at 0", "a = ok, b = EAGAIN at 1", "a = ok, b = ok"])
    }

    @Test(arguments: ["populate_read", "populate_write"])
    func populatingHoldsAPageWhileItMapsIt(_ advice: String) throws {
        let seen = try outcomes("host madvise 0..1 \(advice) => a\nhost1 convert 1 private => b")
        #expect(seen == ["a = EFAULT, b = ok", "a = ok, b = EAGAIN at 1", "a = ok, b = ok"])
        // A page that is already mapped needs no reference.
        let mapped = try outcomes(
            "host madvise 0..1 \(advice) => a\nhost1 convert 1 private => b",
            "host madvise 0..1 populate_read")
        #expect(!mapped.contains { $0.contains("a = ok, b = EAGAIN") })
    }

    /// A fault holds the page only until it is mapped; the access may then have to fault again.
    @Test func aFaultThatHeldThePageMayLoseIt() throws {
        let seen = try outcomes(
            "host convert 0 private => a\nhost convert 0 private => b\nhost1 read 0 => c")
        #expect(seen.contains("a = EAGAIN at 0, b = ok, c = SIGBUS"))
        #expect(seen.contains("a = EAGAIN at 0, b = EAGAIN at 0, c = 0x0"))
        #expect(!seen.contains { $0.hasPrefix("a = ok") && $0.contains("b = EAGAIN") })
    }

    /// The page is held until the bytes are copied, and slightly longer.
    @Test func anAccessReleasesPagesAfterCopying() throws {
        let seen = try outcomes(
            "host read 0 => a\nhost1 write 0 7 => w\nhost1 convert 0 private => b", "host read 0")
        #expect(seen.contains("a = 0x0, w = ok, b = EAGAIN at 0"))
        #expect(seen.contains("a = 0x7, w = ok, b = EAGAIN at 0"))
    }

    /// A fill of several pages holds all of them before it writes the first byte.
    @Test func aFillHoldsItsPagesTogether() throws {
        let seen = try outcomes("host fill 0..1 9 => f\nhost1 read 0 => r\nhost1 convert 1 private => c")
        #expect(seen.contains("f = ok, r = 0x0, c = EAGAIN at 1"))
        #expect(seen.contains("f = SIGBUS at 1, r = 0x0, c = ok"))
        #expect(!seen.contains("f = SIGBUS at 1, r = 0x9, c = ok"))
    }

    @Test func peekHoldsThePageToo() throws {
        let seen = try outcomes("host peek 0 => a\nhost1 convert 0 private => b")
        #expect(seen == ["a = 0x0, b = EAGAIN at 0", "a = 0x0, b = ok", "a = EIO, b = ok"])
    }

    @Test func presentCountsPageByPage() throws {
        let seen = try outcomes(
            "host present 0..1 => a\nhost1 convert 0..1 private => b", "host madvise 0..1 populate_read")
        #expect(seen == ["a = 0x0, b = ok", "a = 0x1, b = ok", "a = 0x2, b = ok"])
    }

    // MARK: memslots

    @Test func preFaultingBesideADeletedMemslot() throws {
        #expect(
            try outcomes("vcpu0 prefault 0 => p\nhost unbind slot 0 => u") == [
                "p = EAGAIN, u = ok", "p = ENOENT, u = ok", "p = ok, u = ok",
            ])
        // It may have read the state of a private page before the memslot was deleted.
        #expect(
            try outcomes(
                "vcpu0 prefault 0 => p\nhost unbind slot 0 => u", "", "memory 4 pages private"
            ).contains("p = EFAULT, u = ok"))
    }

    @Test func preFaultingBesideAConversion() throws {
        #expect(
            try outcomes("vcpu0 prefault 0 => p\nhost convert 0 private => c") == [
                "p = EFAULT, c = ok", "p = ok, c = ok",
            ])
        // Pages done before count as success.
        #expect(try outcomes("vcpu0 prefault 0..1 => p\nhost convert 1 private => c") == ["p = ok, c = ok"])
    }

    /// While a memslot is being deleted, other changes of memslots and a vCPU's access wait.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func changesOfMemslotsWait() throws {
        let seen = try outcomes(
            "host unbind slot 0 => a\nhost1 bind slot 0 to 0..3 at 0 => b\nvcpu0 write 0 7 => w")
        #expect(
            seen == [
                "a = ok, b = EINVAL, w = mmio", "a = ok, b = EINVAL, w = ok", "a = ok, b = ok, w = mmio",
                "a = ok, b = ok, w = ok",
            ])
    }

    /// Through a mapping of the host, a vCPU reaches its page as the host does.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func aMemslotThatIsAMappingTakesReferences()
        throws
    {
        let seen = try outcomes(
            "vcpu0 read 8 => r\nhost convert 0 private => c", "host bind slot 1 to 0..3 at 8 flags 0",
            "memory 4 pages shared unbound")
        #expect(seen == ["r = 0x0, c = EAGAIN at 0", "r = 0x0, c = ok", "r = EFAULT, c = ok"])
        // Once mapped, it needs no reference.
        let mapped = try outcomes(
            "vcpu0 read 8 => r\nhost convert 0 private => c",
            "host bind slot 1 to 0..3 at 8 flags 0\nvcpu0 read 8 => 0", "memory 4 pages shared unbound")
        #expect(!mapped.contains("r = 0x0, c = EAGAIN at 0"))
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func aHypercallIsACallForEachMemslot() throws {
        let seen = try outcomes(
            "vcpu0 hypercall 0..3 private => h\nhost read 0 => a\nhost read other:0 => b", "",
            "memory 2 pages shared\nmemory other 2 pages shared")
        // The first memslot is already private while the second one is still shared.
        #expect(seen.contains("h = ok, a = SIGBUS, b = 0x0"))
        #expect(seen.contains("h = EAGAIN at 2, a = 0x0, b = 0x0"))
    }

    // MARK: clauses

    /// An outcome that a clause names is not a failure, even if the model does not have it.
    @Test func anAllowedClauseAddsToTheModel() throws {
        let test = try source(
            "parallel\nhost convert 0 private => a\nhost1 read 0 => b\nallowed a = ok\nallowed a = EAGAIN at 0\nend"
        )
        let block = try #require(Program(test.test).blocks.first)
        let odd: [Name: StepOutcome] = [
            try #require(Name("a")): .ok, try #require(Name("b")): .value(0x41),
        ]
        func verdict(_ test: Source) -> Verdict {
            Judge(test).report(seen: [[odd: 1]], runs: 1, model: .init(), failure: nil).verdict
        }
        #expect(block.names(odd) && verdict(test) == .passed)
        let silent = try source("parallel\nhost convert 0 private => a\nhost1 read 0 => b\nend")
        if case .failed(let failure) = verdict(silent) {
            #expect(failure.expected == "an outcome that the model allows")
        } else {
            Issue.record("not failed")
        }
    }

    @Test func zappedIsRefusedInABlock() {
        do {
            _ = try source("parallel\nhost zapped => a\nend")
            Issue.record("accepted")
        } catch let error as SyntaxError {
            #expect(error.message.contains("after the block"))
        } catch {
            Issue.record(error)
        }
    }

    // MARK: accesses of a vCPU to several pages

    /// A step ends with the first outcome that stops it.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func theFirstExitOfAStepCounts() throws {
        let test = try source(
            """
            host unbind slot 0
            host bind slot 0 to 1..2 at 1
            host convert 2 shared
            vcpu0 fill 0..2 7 => mmio
            """, "aliases two\nmemory 3 pages private")
        for backend in [SoftKVM(), MemslotTrapKVM(over: SoftKVM())] as [any Backend] {
            #expect(Runner(backend).run(test) == .passed, "\(backend.identity)")
        }
    }
}
