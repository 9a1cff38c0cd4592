// SPDX-License-Identifier: MIT
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Conversion: contents and regions")
struct ConverterContentTests {
    private static let promises: [ContentPromise] = [
        .preserved, .undefined, ContentPromise(toPrivate: .preserved, toShared: .undefined),
        ContentPromise(toPrivate: .undefined, toShared: .preserved), .lost,
    ]

    /// Preserving is promised by the ABI or refused before the first call, in every combination.
    @Test(arguments: PageState.allCases) func preserveIsPromisedOrRefused(target: PageState) throws {
        for promise in Self.promises {
            let bench = try ConverterBench(initial: target.other, promise: promise)
            let result = bench.convert(2, 3, to: target, .preserve)
            let fate = target == .private ? promise.toPrivate : promise.toShared
            if fate == .preserved {
                #expect(result.value?.means == .promisedByABI)
                #expect(bench.file.calls.count == 1)
            } else {
                #expect(
                    result.error?.reason
                        == .refused(fate == .lost ? .twoPlaces(to: target) : .noPromise(to: target)))
                #expect(result.error?.errno.name == "EOPNOTSUPP")
                #expect(bench.file.calls.isEmpty && bench.file.holes.isEmpty)
                #expect(bench.memory.attributes.runCount == 1)
            }
        }
    }

    @Test func unspecifiedMakesNoRequest() throws {
        for promise in Self.promises {
            let bench = try ConverterBench(promise: promise)
            #expect(bench.convert(0, 4, .unspecified).value?.means == .notRequested)
            #expect(bench.file.holes.isEmpty)
        }
    }

    @Test func zeroToPrivateIsAHoleAfterTheConversion() throws {
        for promise in Self.promises {
            let bench = try ConverterBench(promise: promise)
            bench.file.fill(try #require(PageRange(start: 0, size: 8 * pageSize)), with: 7)
            let result = bench.convert(2, 3, .zero)
            #expect(result.value?.means == .zeroedByMonitor)
            #expect(bench.file.holes == [try #require(PageRange(start: 2 * pageSize, size: 3 * pageSize))])
            #expect((0..<8).map { bench.file.byte(UInt64($0) * pageSize) } == [7, 7, 0, 0, 0, 7, 7, 7])
        }
    }

    /// Private pages become holes; shared pages are overwritten, since they may be held.
    @Test func zeroToSharedIsAHoleOrAMemset() throws {
        let bench = try ConverterBench()
        let all = try #require(PageRange(start: 0, size: 8 * pageSize))
        #expect(bench.convert(2, 2, .unspecified).value != nil)
        bench.file.fill(all, with: 7)
        bench.file.forget()
        #expect(bench.convert(1, 5, to: .shared, .zero).converted == [1...5])
        #expect(bench.file.holes == [try #require(PageRange(start: 2 * pageSize, size: 2 * pageSize))])
        #expect((0..<8).map { bench.file.byte(UInt64($0) * pageSize + 4095) } == [7, 0, 0, 0, 0, 0, 7, 7])
        #expect(bench.file.state.withLock { $0.pages[pageSize] != nil }, "overwritten, not punched")
    }

    @Test func aFailedZeroConversionLosesNothing() throws {
        let bench = try ConverterBench(policy: RetryPolicy(attempts: 2))
        bench.file.fill(try #require(PageRange(start: 0, size: 8 * pageSize)), with: 7)
        bench.file.trouble(page: 3, times: .max)
        #expect(bench.convert(0, 8, .zero).error != nil)
        #expect(bench.file.holes.isEmpty)
        #expect((0..<8).allSatisfy { bench.file.byte(UInt64($0) * pageSize) == 7 })
    }

    @Test func failedZeroingReportsTheAddressAndTheChangedState() throws {
        let bench = try ConverterBench()
        bench.file.state.withLock { $0.holeFailure = .noSpace }
        let result = bench.convert(2, 3, .zero)
        #expect(result.error?.reason == .zeroing(ErrorNumber(Errno.noSpace), gpa: 2 * pageSize))
        #expect(result.converted == [2...4])
        #expect(bench.privatePages == [2, 3, 4])

        let other = try ConverterBench()
        other.file.state.withLock { $0.writeFailure = .ioError }
        let shared = other.convert(2, 3, to: .shared, .zero)
        #expect(shared.error?.reason == .zeroing(.ioError, gpa: 2 * pageSize))
        #expect(shared.error?.errno == .ioError)
    }

    @Test func noCallIsMadeOutsideRAM() throws {
        for (first, count) in [(15, 2), (16, 1), (0, 17), (1 << 40, 1), (1 << 50, 1)] as [(UInt64, UInt64)] {
            let bench = try ConverterBench(pages: [8, 8])
            #expect(bench.convert(first, count).error?.reason == .outsideRAM(size: 16 * pageSize))
            #expect(bench.files.allSatisfy { $0.calls.isEmpty })
        }
    }

    // MARK: chunks and regions

    @Test func largeRequestsAreSplitIntoChunks() throws {
        let bench = try ConverterBench(chunk: 5 * pageSize)
        #expect(bench.convert(1, 12).converted == [1...12])
        #expect(bench.file.calls.map(\.description) == ["1+5 private", "6+5 private", "11+2 private"])
        // At least a page, and always whole pages.
        for (chunk, calls) in [(0, 4), (1, 4), (pageSize + 1, 4), (2 * pageSize + 4095, 2)] as [(UInt64, Int)]
        {
            let small = try ConverterBench(chunk: chunk)
            #expect(small.convert(0, 4).value?.calls == calls, "\(chunk)")
        }
    }

    @Test func offsetsAreRelativeToEachFile() throws {
        let bench = try ConverterBench(pages: [4, 6, 6])
        #expect(bench.convert(2, 12).converted == [2...13])
        #expect(
            bench.files.map { $0.calls.map(\.description) } == [
                ["2+2 private"], ["0+6 private"], ["0+4 private"],
            ])
        #expect(bench.shadowMatches)
    }

    @Test func aFailureHalfWayReportsExactlyWhatChanged() throws {
        let bench = try ConverterBench(pages: [4, 6, 6], chunk: 3 * pageSize)
        // Page 3 of the second file, which is guest page 7, in that file's second chunk.
        bench.files[1].trouble(page: 3, times: 1, .noMemory)
        let result = bench.convert(1, 14)
        #expect(result.error?.reason == .backend(.noMemory, gpa: 7 * pageSize))
        #expect(result.converted == [1...6])
        #expect(bench.privatePages == Array(1...6))
        #expect(bench.files[2].calls.isEmpty)
        #expect(bench.shadowMatches)
        #expect(result.error?.description.contains("converted: [0x1000, 0x7000)") == true)
    }

    @Test func busyPagesOfSeveralRegionsAreParkedTogether() throws {
        let bench = try ConverterBench(pages: [4, 4, 4], policy: RetryPolicy(attempts: 2, inUse: .bisect))
        bench.files[0].trouble(page: 3, times: 2)
        bench.files[2].trouble(page: 0, times: .max)
        let result = bench.convert(0, 12)
        let stuck = try #require(PageRange(start: 8 * pageSize, size: pageSize))
        #expect(result.error?.reason == .inUse([stuck]))
        #expect(result.converted == [0...7, 9...11])
        #expect(bench.shadowMatches)
    }

    /// Random requests with random failures: the shadow map stays correct and the report is exact.
    @Test(arguments: [11, 12, 13, 14] as [UInt64])
    func theShadowMapStaysCorrect(seed: UInt64) throws {
        var generator = Generator(seed: seed)
        for _ in 0..<100 {
            let bench = try ConverterBench(
                pages: [5, 9, 7], initial: generator.below(2) == 0 ? .shared : .private,
                policy: RetryPolicy(
                    attempts: 1 + generator.below(3), inUse: generator.below(2) == 0 ? .fail : .bisect),
                chunk: UInt64(1 + generator.below(6)) * pageSize)
            for _ in 0..<6 {
                for file in bench.files where generator.below(2) == 0 {
                    file.trouble(
                        page: UInt64(generator.below(5)), times: 1 + generator.below(4),
                        generator.below(5) == 0 ? .noMemory : .resourceTemporarilyUnavailable)
                }
                let before = bench.memory.attributes
                let first = generator.below(20)
                let target: PageState = generator.below(2) == 0 ? .shared : .private
                let result = bench.convert(
                    UInt64(first), UInt64(1 + generator.below(21 - first)), to: target,
                    [.preserve, .zero, .unspecified][generator.below(3)])
                #expect(bench.shadowMatches)
                var expected = before
                for range in result.converted {
                    let pages = PageRange(
                        start: range.lowerBound * pageSize, size: UInt64(range.count) * pageSize)
                    expected.set(try #require(pages), to: target)
                }
                let after = bench.memory.attributes
                for page in 0..<21 as Range<UInt64> {
                    #expect(after.value(at: page * pageSize) == expected.value(at: page * pageSize))
                }
                // In order, and joined.
                #expect(
                    zip(result.converted, result.converted.dropFirst()).allSatisfy {
                        $0.upperBound + 1 < $1.lowerBound
                    })
            }
        }
    }
}
