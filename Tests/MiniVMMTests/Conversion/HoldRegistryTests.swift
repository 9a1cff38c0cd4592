// SPDX-License-Identifier: MIT
import Synchronization
import SystemPackage
import Testing

@testable import MiniVMM

private final class CountedHold: PageHold {
    private let count = Atomic<Int>(0)
    /// Called on each release, to check the locks.
    let onRelease = Mutex<(@Sendable () -> Void)?>(nil)
    var releases: Int { count.load(ordering: .relaxed) }
    func release() {
        count.add(1, ordering: .relaxed)
        onRelease.withLock { $0 }?()
    }
}

@Suite("Holders of pages")
struct HoldRegistryTests {
    private func pages(_ first: UInt64, _ count: UInt64) throws -> PageRange {
        try #require(PageRange(start: first * pageSize, size: count * pageSize))
    }

    @Test func onlyHoldersOfThePageAreAskedAndOnlyYieldingHoldersReleaseIt() throws {
        let registry = HoldRegistry()
        let holds = (0..<4).map { _ in CountedHold() }
        registry.add(holds[0], range: try pages(1, 2), yields: true)
        registry.add(holds[1], range: try pages(2, 2), yields: false)
        registry.add(holds[2], range: try pages(2, 1), yields: true)
        registry.add(holds[3], range: try pages(5, 1), yields: true)
        #expect(registry.askToRelease(gpa: 4 * pageSize) == (0, 0))
        #expect(registry.askToRelease(gpa: 2 * pageSize + 17) == (2, 1))
        #expect(holds.map(\.releases) == [1, 0, 1, 0])
        #expect(registry.heldRanges == [try pages(2, 2), try pages(5, 1)])
        #expect(registry.askToRelease(gpa: 2 * pageSize) == (0, 1))
        #expect(registry.releaseAll() == 2)
        #expect(holds.map(\.releases) == [1, 1, 1, 1])
        #expect(registry.releaseAll() == 0)
        #expect(registry.heldRanges == [])
    }

    @Test func holdsAreReleasedOutsideTheLock() throws {
        let registry = HoldRegistry()
        for yields in [true, false] {
            let hold = CountedHold()
            registry.add(hold, range: try pages(0, 1), yields: yields)
            hold.onRelease.withLock { $0 = { _ = registry.heldRanges } }
        }
        #expect(registry.askToRelease(gpa: 0) == (1, 1))
        #expect(registry.releaseAll() == 1)
    }

    // MARK: with a converter

    private func hold(_ bench: ConverterBench, _ first: UInt64, _ count: UInt64, yields: Bool) throws {
        let range = try pages(first, count)
        bench.holds.add(FakeHold(file: bench.file, range: range), range: range, yields: yields)
    }

    @Test func aYieldingHolderIsAskedWithoutWaiting() throws {
        for inUse in RetryPolicy.InUse.allCases {
            let bench = try ConverterBench(policy: RetryPolicy(inUse: inUse))
            try hold(bench, 3, 1, yields: true)
            try hold(bench, 6, 2, yields: true)
            #expect(bench.convert(0, 16).converted == [0...15])
            #expect(bench.backend.slept == [])
            #expect(bench.holds.heldRanges == [])
        }
    }

    @Test func aHolderThatDoesNotYieldIsWaitedForAndReported() throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: 3))
        try hold(bench, 3, 1, yields: false)
        let result = bench.convert(0, 16)
        #expect(result.error?.reason == .inUse([try pages(3, 1)]))
        #expect(bench.backend.slept.count == 2)
        #expect(bench.holds.heldRanges == [try pages(3, 1)])
        // After its release the same request succeeds, with nothing lost.
        bench.holds.releaseAll()
        #expect(bench.convert(0, 16).converted == [0...15])
    }

    @Test func aYieldingHolderDoesNotHelpIfAnotherRefuses() throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: 3))
        try hold(bench, 3, 1, yields: true)
        try hold(bench, 3, 1, yields: false)
        #expect(bench.convert(0, 16).error != nil)
        // The first EAGAIN released one hold, so the second attempt followed immediately.
        #expect(bench.file.calls.count == 3)
        #expect(bench.backend.slept.count == 1)
    }
}

@Suite("Retry policy")
struct RetryPolicyTests {
    @Test func backoffDoublesUpToTheLongest() {
        let policy = RetryPolicy(firstBackoff: .nanoseconds(3), longestBackoff: .nanoseconds(50))
        #expect(
            (1...7).map { policy.backoff(after: $0) } == [3, 6, 12, 24, 48, 50, 50].map { .nanoseconds($0) })
    }

    @Test func extremeValuesDoNotTrap() {
        let durations: [Duration] = [
            .seconds(Int64.min), .nanoseconds(-1), .zero, .nanoseconds(1), .seconds(1), .seconds(1 << 40),
            .seconds(Int64.max),
        ]
        for first in durations {
            for longest in durations {
                let policy = RetryPolicy(firstBackoff: first, longestBackoff: longest)
                for attempt in [Int.min, -1, 0, 1, 2, 41, 64, 65, 1000, .max] {
                    #expect(policy.backoff(after: attempt) <= longest)
                }
            }
        }
    }

    @Test func thereIsAlwaysOneAttempt() {
        #expect(RetryPolicy(attempts: 0).attempts == 1)
        #expect(RetryPolicy(attempts: .min).attempts == 1)
    }
}
