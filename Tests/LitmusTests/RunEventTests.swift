// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Synchronization
import Testing

@testable import Litmus

@Suite("Events of litmus tests", .timeLimit(.minutes(120)))
struct RunEventTests {
    private final class Seen: Sendable {
        private let list = Mutex<[RunEvent]>([])
        var events: [RunEvent] { list.withLock { $0 } }
        func add(_ event: RunEvent) { list.withLock { $0.append(event) } }
    }

    private static let race = """
        test "race"
        memory 1 page shared
        host fill 0 0x41
        parallel
        host convert 0 private => c
        host1 read 0 => r
        end
        host convert 0 shared

        """

    private func outcome(_ outcome: StepOutcome, isExpected: Bool = true) -> RunEvent.Result {
        .outcome(outcome, oddity: nil, isExpected: isExpected)
    }

    private func events(
        of text: String, on backend: any Backend, _ options: Runner.Options = .init()
    ) throws -> [RunEvent] {
        let seen = Seen()
        var options = options
        options.watcher = { seen.add($0) }
        _ = Runner(backend, options).report(try Source(parsing: text))
        return seen.events
    }

    @Test func eachStepBeginsAndEnds() throws {
        let text = "test \"x\"\nmemory 1 page shared\nhost write 0 2\nhost read 0 => 1\nhost read 0\n"
        #expect(
            try events(of: text, on: SoftKVM()) == [
                .began(.step(0)), .ended(.step(0), outcome(.ok)), .began(.step(1)),
                .ended(.step(1), outcome(.value(2), isExpected: false)),
            ])
    }

    /// A step that the backend cannot perform has begun and does not end.
    @Test func aStepWithoutAnOutcomeDoesNotEnd() throws {
        let text = "test \"x\"\nmemory 1 page shared\nhost read 0\nhost unmap ram\nhost read 0\n"
        let events = try events(of: text, on: SoftKVM())
        #expect(events.last == .began(.step(1)), "\(events)")
    }

    @Test func explorationsReportTheStepsThatAllInterleavingsShare() throws {
        let events = try events(of: Self.race, on: SoftKVM())
        #expect(
            events.prefix(3) == [
                .began(.step(0)), .ended(.step(0), outcome(.ok)), .began(.exploration(first: 1)),
            ])
        guard case .ended(.exploration(first: 1), .states(let states, isComplete: true)) = events.last else {
            Issue.record("\(events)")
            return
        }
        #expect(events.count == 4 && states > 1)
    }

    /// Of many runs the first is reported, with all steps outside of blocks.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func furtherRunsAreOne() throws {
        let backend = MemslotTrapKVM(over: SoftKVM())
        let events = try events(of: Self.race, on: backend, .init(runs: 20))
        let block = RunEvent.Part.block(first: 1, runs: 20)
        let further = RunEvent.Part.furtherRuns(runs: 20)
        #expect(events.count == 8, "\(events)")
        #expect(
            events.prefix(3) == [.began(.step(0)), .ended(.step(0), outcome(.ok)), .began(block)])
        guard events.count == 8, case .ended(block, .results(let results, isAllowed: true)) = events[3] else {
            return
        }
        #expect(results.map { "\($0.name)" } == ["c", "r"])
        #expect(
            events.suffix(4) == [
                .began(.step(3)), .ended(.step(3), outcome(.ok)), .began(further), .ended(further, .runs(20)),
            ])
        let one = try self.events(of: Self.race, on: backend, .init(runs: 1))
        #expect(one.count == 6 && !one.contains(.began(.furtherRuns(runs: 1))))
    }

    /// A failure on a used machine is confirmed on a new one.
    @Test func aTestThatBeginsAgainSaysSo() throws {
        let seen = Seen()
        let options = Runner.Options(watcher: { seen.add($0) })
        let runner = Runner(ForwardingBackend(SoftKVM()), options)
        let head = "test \"x\"\nmemory 1 page shared\n"
        _ = runner.report(try Source(parsing: head + "host read 0\n"))
        _ = runner.report(try Source(parsing: head + "host read 0 => 1\n"))
        let wrong: [RunEvent] = [
            .began(.step(0)), .ended(.step(0), outcome(.value(0), isExpected: false)),
        ]
        let right: [RunEvent] = [.began(.step(0)), .ended(.step(0), outcome(.value(0)))]
        #expect(seen.events == right + wrong + [.beganAgain] + wrong)
    }

    @Test func failingAllocationsAreReported() throws {
        let backend = StarvedBackend(SoftKVM())
        var options = Runner.Options(failures: .all)
        options.failing = backend.failures
        let text = "test \"x\"\nmemory 1 page shared\nhost read 0\nhost convert 0 private\n"
        let events = try events(of: text, on: backend, options)
        let allocation = RunEvent.Part.allocation(
            FailurePoint(step: 1, nth: 1, in: try Source(parsing: text)))
        let none = RunEvent.Part.allocation(FailurePoint(step: 1, nth: 2, in: try Source(parsing: text)))
        #expect(
            events == [
                .began(.step(0)), .ended(.step(0), outcome(.value(0))), .began(.step(1)),
                .ended(.step(1), outcome(.ok)), .began(allocation),
                .ended(allocation, .answer(.errno(12, at: 0), isRight: true)), .began(none),
                .ended(none, .unused),
            ], "\(events)")
    }
}
