// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Synchronization
import Testing

@testable import Litmus

/// Tests with parallel blocks that end early. No time is measured, because none of them could ever complete.
@Suite("Tests that are cut short", .timeLimit(.minutes(120)))
struct CutShortTests {
    private static let never = 100_000_000

    private func source(_ body: String, _ head: String = "memory 4 pages shared") throws -> Source {
        try Source(parsing: "test \"x\"\n\(head)\n" + body)
    }

    private func failure(_ report: Report) -> Failure? {
        if case .failed(let failure) = report.verdict { failure } else { nil }
    }

    /// On an adapter tests run many times.
    private var runner: Runner {
        Runner(MemslotTrapKVM(over: SoftKVM()), .init(runs: Self.never, timeLimit: .milliseconds(200)))
    }

    private static let race = "parallel\nhost convert 0 private => a\nhost1 read 0 => b\n"

    @Test func completedRunsAreReported() throws {
        let report = runner.report(try source(Self.race + "required b = 0x7\nend"))
        #expect(report.verdict == .passed, "\(report)")
        let cut = try #require(report.cut)
        #expect(cut.reason == .timeLimit(.milliseconds(200)))
        let runs = try #require(cut.runs)
        #expect(runs > 0 && runs < Self.never && cut.wanted == Self.never)
        let block = try #require(report.blocks.first)
        #expect(block.runs == runs && !block.isComplete)
        #expect(block.outcomes.compactMap(\.count).reduce(0, +) == runs)
    }

    @Test func aForbiddenOutcomeIsStillAFailure() throws {
        let report = runner.report(
            try source("parallel\nhost write 0 1 => a\nhost1 write 1 2 => b\nforbidden a = ok, b = ok\nend"))
        let runs = try #require(report.cut?.runs)
        #expect(failure(report)?.seen == "a = ok, b = ok, in \(grouped(runs)) of \(grouped(runs)) runs")
    }

    @Test func aTestInTimeIsNotCutShort() throws {
        let runner = Runner(MemslotTrapKVM(over: SoftKVM()), .init(runs: 20))
        let report = runner.report(try source(Self.race + "end"))
        #expect(
            report.cut == nil && report.blocks.first?.runs == 20 && report.blocks.first?.isComplete == true)
    }

    /// Sixteen steps of four actors have too many interleavings to explore in the time limit.
    @Test func exploredInterleavingsAreReported() throws {
        func steps(_ actor: String) -> String {
            (0..<4).map { "\(actor) convert \($0) \($0 % 2 == 0 ? "private" : "shared") => \(actor)_\($0)\n" }
                .joined()
        }
        let actors = ["host", "host1", "host2", "host3"].map(steps).joined()
        let runner = Runner(SoftKVM(), .init(timeLimit: .milliseconds(300)))
        let report = runner.report(
            try source("parallel\nhost5 write 0 7 => w\n" + actors + "required w = 0x9\nend"))
        guard case .timeLimit? = report.cut?.reason else {
            Issue.record("\(report.verdict), \(report.cut.debugDescription)")
            return
        }
        // On a busy machine no interleaving may be complete yet, and then there is nothing to judge.
        if case .skipped = report.verdict { return }
        #expect(report.verdict == .passed && report.blocks.first?.isComplete == false)
        #expect(report.blocks.first?.outcomes.isEmpty == false)
    }

    @Test func tooManyPiecesAreCutShort() throws {
        let model = SoftKVM.Configuration()
        let test = try source(Self.race + "required b = 0x7\nend")
        var part = Interleavings(test, on: model, TestDeadline(), mostPieces: 4, keepsPart: true)
        let result = try part.explore()
        #expect(result.cut == .pieces(4))
        // Without `keepsPart` an incomplete exploration is an error.
        var whole = Interleavings(test, on: model, TestDeadline(), mostPieces: 4)
        #expect(throws: (any Error).self) { try whole.explore() }
        #expect(Judge(test).report(exact: result).verdict != .passed || !result.endings.isEmpty)
    }

    /// A hanging run is a failure, and the runs before it are counted.
    @Test(.enabled(if: ParallelTests.real != nil, ParallelTests.noReal)) func aRunThatHangsIsNamed() throws {
        let backend = HangingBackend(try LinuxKVM())
        let runner = Runner(
            backend,
            .init(
                runs: Self.never, timeLimit: .milliseconds(200), hangLimit: .milliseconds(200),
                asksModel: false))
        let report = runner.report(
            try source("parallel\nhost write 0 1\nvcpu0 read 0\nend", "vm default\nmemory 1 pages shared"))
        let lines = try #require(failure(report)?.lines)
        #expect(lines == ["vcpu0 read 0", "timed out after 0.4 s (0 of 100,000,000 runs done)"])
    }

    @Test func progressIsReported() throws {
        let told = Told()
        let runner = Runner(
            MemslotTrapKVM(over: SoftKVM()), .init(runs: 20, progress: { runs in told.note(runs) }))
        _ = runner.report(try source(Self.race + "end"))
        #expect(told.all == Array(1...20))
    }
}

private final class Told: Sendable {
    private let runs = Mutex<[Int]>([])
    var all: [Int] { runs.withLock { $0 } }
    func note(_ count: Int) { runs.withLock { $0.append(count) } }
}
