// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Conversion: pages in use")
struct ConverterRetryTests {
    private func calls(_ bench: ConverterBench) -> [String] { bench.file.calls.map(\.description) }

    @Test func aFreeRangeIsOneCall() throws {
        let bench = try ConverterBench()
        let result = bench.convert(3, 5)
        #expect(result.converted == [3...7])
        #expect(result.value?.calls == 1 && result.value?.busyAnswers == 0 && result.value?.waited == .zero)
        #expect(calls(bench) == ["3+5 private"])
        #expect(bench.privatePages == [3, 4, 5, 6, 7])
        #expect(bench.shadowMatches)
    }

    @Test func aTransientEAGAINIsRetried() throws {
        let bench = try ConverterBench(
            policy: RetryPolicy(firstBackoff: .nanoseconds(100), longestBackoff: .nanoseconds(350)))
        bench.file.trouble(page: 5, times: 4)
        let result = bench.convert(0, 16)
        #expect(result.converted == [0...15])
        #expect(result.value?.calls == 5 && result.value?.busyAnswers == 4)
        // Doubled each time, up to the longest pause.
        #expect(bench.backend.slept == [100, 200, 350, 350])
        #expect(result.value?.waited == .nanoseconds(1000))
        #expect(bench.shadowMatches)
    }

    @Test(arguments: 1...6)
    func attemptsAreHonouredExactly(attempts: Int) throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: attempts))
        bench.file.trouble(page: 5, times: .max)
        let result = bench.convert(0, 16)
        let page = try #require(PageRange(start: 5 * pageSize, size: pageSize))
        #expect(result.error?.reason == .inUse([page]))
        #expect(result.error?.errno == .resourceTemporarilyUnavailable)
        #expect(bench.file.calls.count == attempts)
        #expect(bench.backend.slept.count == attempts - 1)
        #expect(result.converted == [])
        #expect(bench.privatePages == [])
    }

    @Test func theLastAttemptStillCounts() throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: 4))
        bench.file.trouble(page: 5, times: 3)
        #expect(bench.convert(0, 16).converted == [0...15])
    }

    @Test func noWaitExceedsTheDeadline() throws {
        let bench = try ConverterBench(
            policy: RetryPolicy(
                attempts: 1000, firstBackoff: .nanoseconds(100), longestBackoff: .nanoseconds(100),
                deadline: .nanoseconds(450)))
        bench.file.trouble(page: 0, times: .max)
        let result = bench.convert(0, 1)
        // The fifth wait would end at 500.
        #expect(bench.backend.slept == [100, 100, 100, 100])
        #expect(result.error?.result.waited == .nanoseconds(400))
        #expect(result.error?.result.calls == 5)
    }

    @Test func aWaitMayEndExactlyAtTheDeadline() throws {
        let bench = try ConverterBench(
            policy: RetryPolicy(
                attempts: 1000, firstBackoff: .nanoseconds(100), longestBackoff: .nanoseconds(100),
                deadline: .nanoseconds(300)))
        bench.file.trouble(page: 0, times: 3)
        #expect(bench.convert(0, 1).converted == [0...0])
    }

    @Test func aDeadlineOfZeroIsOneCall() throws {
        for inUse in RetryPolicy.InUse.allCases {
            let bench = try ConverterBench(policy: RetryPolicy(deadline: .zero, inUse: inUse))
            bench.file.trouble(page: 0, times: .max)
            #expect(bench.convert(0, 1).error != nil)
            #expect(bench.file.calls.count == 1)
            #expect(bench.backend.slept == [])
        }
    }

    // MARK: bisecting

    @Test func busyPagesAreConvertedLast() throws {
        let bench = try ConverterBench(policy: RetryPolicy(inUse: .bisect))
        for page in [2, 3, 9, 15] as [UInt64] { bench.file.trouble(page: page, times: 1) }
        let result = bench.convert(0, 16)
        #expect(result.converted == [0...15])
        #expect(
            calls(bench) == [
                "0+16 private", "0+2 private", "3+13 private", "4+12 private", "4+5 private", "10+6 private",
                "10+5 private", "2+1 private", "3+1 private", "9+1 private", "15+1 private",
            ])
        #expect(result.value?.busyAnswers == 4)
        #expect(bench.shadowMatches)
    }

    @Test func theFirstPageMayBeBusy() throws {
        let bench = try ConverterBench(policy: RetryPolicy(inUse: .bisect))
        bench.file.trouble(page: 4, times: 2)
        let result = bench.convert(4, 3)
        #expect(result.converted == [4...6])
        #expect(
            calls(bench) == ["4+3 private", "5+2 private", "4+1 private", "4+1 private"])
    }

    @Test func busyPagesAreReportedAndTheRestIsConverted() throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: 3, inUse: .bisect))
        for page in [2, 9] as [UInt64] { bench.file.trouble(page: page, times: .max) }
        // This page is released in the second round.
        bench.file.trouble(page: 5, times: 2)
        let result = bench.convert(0, 12)
        let stuck = try [2, 9].map { try #require(PageRange(start: $0 * pageSize, size: pageSize)) }
        #expect(result.error?.reason == .inUse(stuck))
        #expect(result.converted == [0...1, 3...8, 10...11], "in order and joined, also on failure")
        #expect(bench.privatePages == [0, 1, 3, 4, 5, 6, 7, 8, 10, 11])
        #expect(bench.shadowMatches)
        // Each parked page was tried three times by itself, with a wait between the rounds.
        #expect(calls(bench).count { $0 == "2+1 private" } == 3)
        #expect(calls(bench).count { $0 == "9+1 private" } == 3)
        #expect(bench.backend.slept.count == 2)
    }

    @Test func theDeadlineEndsABisectionOfManyBusyPages() throws {
        let bench = try ConverterBench(
            pages: [4096], policy: RetryPolicy(deadline: .nanoseconds(1000), inUse: .bisect))
        for page in 0..<4096 as Range<UInt64> { bench.file.trouble(page: page, times: .max) }
        let backend = bench.backend
        bench.file.state.withLock { $0.onCall = { _ in backend.advance(100) } }
        let result = bench.convert(0, 4096)
        guard case .inUse(let pages)? = result.error?.reason else {
            Issue.record("\(result)")
            return
        }
        #expect(pages.first?.start == 0)
        #expect(bench.file.calls.count <= 11, "a call takes 100 ns and there are 1000")
    }

    /// A backend that reports the last page of each call: as many pieces as pages, which recursion could not handle.
    @Test func aBisectionFromTheEndIsNotDeep() throws {
        let count: UInt64 = 20_000
        let bench = try ConverterBench(
            pages: [count], policy: RetryPolicy(deadline: .seconds(Int64.max), inUse: .bisect))
        let file = bench.file
        let stubborn = LastPageBusy(file)
        let range = try #require(PageRange(start: 0, size: count * pageSize))
        let memory = GuestMemory(
            regions: [MemoryRegion(gpa: range, file: stubborn, mapping: FakeMapping(file: file))],
            initial: .shared)
        let converter = Converter(
            backend: bench.backend, vm: bench.backend.vm, memory: memory, holds: HoldRegistry(),
            policy: RetryPolicy(deadline: .seconds(Int64.max), inUse: .bisect), trace: nil)
        let result = try converter.convert(
            ConversionRequest(range: range, to: .private, contents: .preserve), by: .monitor)
        #expect(result.converted == [range])
        #expect(result.busyAnswers == Int(count) - 1)
    }

    // MARK: invalid answers of a backend

    @Test func anErrorOffsetOutsideTheRangeIsIgnored() throws {
        for inUse in RetryPolicy.InUse.allCases {
            for claim in [0, 3 * pageSize, 8 * pageSize, 1 << 40, .max] as [UInt64] {
                let bench = try ConverterBench(policy: RetryPolicy(inUse: inUse))
                bench.file.trouble(page: 5, times: 1, claims: claim)
                let result = bench.convert(4, 4)
                #expect(result.error?.reason == .backend(.resourceTemporarilyUnavailable, gpa: nil))
                #expect(bench.file.calls.count == 1 && bench.privatePages == [])
            }
        }
    }

    @Test func anErrorOffsetWithinAPageMeansThatPage() throws {
        for inUse in RetryPolicy.InUse.allCases {
            let bench = try ConverterBench(policy: RetryPolicy(attempts: 3, inUse: inUse))
            bench.file.trouble(page: 5, times: .max, claims: 5 * pageSize + 123)
            let result = bench.convert(4, 4)
            let page = try #require(PageRange(start: 5 * pageSize, size: pageSize))
            #expect(result.error?.reason == .inUse([page]))
        }
    }

    @Test(arguments: [Errno.invalidArgument, .badAddress, Errno(rawValue: 25), .noMemory])
    func otherErrorsAreNotRetried(errno: Errno) throws {
        for inUse in RetryPolicy.InUse.allCases {
            let bench = try ConverterBench(policy: RetryPolicy(inUse: inUse))
            bench.file.trouble(page: 5, times: 1, errno)
            let result = bench.convert(4, 4)
            let page: UInt64? = errno == .noMemory ? 5 * pageSize : nil
            #expect(result.error?.reason == .backend(ErrorNumber(errno), gpa: page))
            #expect(result.error?.errno == errno)
            #expect(bench.file.calls.count == 1)
            #expect(bench.privatePages == [])
        }
    }

    @Test func aWrongErrorOffsetOfENOMEMIsIgnored() throws {
        let bench = try ConverterBench()
        bench.file.trouble(page: 5, times: 1, .noMemory, claims: 1 << 50)
        #expect(bench.convert(4, 4).error?.reason == .backend(.noMemory, gpa: nil))
    }

    // MARK: locks

    @Test func noLockIsHeldWhileItWaits() throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: 4))
        bench.file.trouble(page: 5, times: 2)
        let seen = Collected<PageState?>()
        let memory = bench.memory
        let holds = bench.holds
        bench.backend.onSleep.withLock {
            $0 = {
                seen.add(memory.state(at: 5 * pageSize))
                _ = holds.askToRelease(gpa: 0)
            }
        }
        #expect(bench.convert(5, 1).converted == [5...5])
        #expect(seen.all == [.shared, .shared])
    }
}

/// Reports for every range of several pages that its last page is in use.
private final class LastPageBusy: KVMGuestMemfd {
    private let file: FakeFile
    init(_ file: FakeFile) { self.file = file }
    var descriptor: Int32 { 3 }
    var size: UInt64 { file.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        guard request.size > pageSize else { return }
        request.error_offset = request.offset + request.size - pageSize
        throw .resourceTemporarilyUnavailable
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping { FakeMapping(file: file) }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {}
}
