// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

@Suite("Page ranges")
struct PageRangeTests {
    private static let top = UInt64.max - pageSize + 1

    /// Numbers at which sums overflow and roundings go wrong.
    private static let corners: [UInt64] = [
        0, 1, 7, pageSize - 1, pageSize, pageSize + 1, 3 * pageSize, 1 << 32, 1 << 63, top - pageSize, top,
        top + 1, .max - 1, .max,
    ]

    @Test func onlyWholePagesThatDoNotWrap() {
        for start in Self.corners {
            for size in Self.corners {
                let range = PageRange(start: start, size: size)
                let (end, wraps) = start.addingReportingOverflow(size)
                let allowed = start % pageSize == 0 && size % pageSize == 0 && size > 0 && !wraps
                #expect((range != nil) == allowed, "\(start), \(size)")
                guard let range else { continue }
                #expect(range.start == start && range.end == end && range.size == size)
                #expect(range.pageCount * pageSize == size)
                #expect(range.contains(start) && range.contains(end - 1) && !range.contains(end))
            }
        }
    }

    @Test func coveringContainsExactlyTheTouchedPages() {
        for start in Self.corners {
            for size in Self.corners {
                let (end, wraps) = start.addingReportingOverflow(size)
                let range = PageRange.covering(start: start, size: size)
                // The end is exclusive, so the last page of the address space cannot be covered.
                guard size > 0, !wraps, end <= Self.top else {
                    #expect(range == nil, "\(start), \(size)")
                    continue
                }
                #expect(range?.start == start / pageSize * pageSize, "\(start), \(size)")
                #expect(range?.end == (end + (pageSize - 1)) / pageSize * pageSize, "\(start), \(size)")
            }
        }
    }

    @Test func chunksAreInOrderAndAddUp() throws {
        for pages in 1...9 as ClosedRange<UInt64> {
            for chunk in 1...10 as ClosedRange<UInt64> {
                let range = try #require(PageRange(start: 5 * pageSize, size: pages * pageSize))
                let pieces = Array(range.chunks(of: chunk * pageSize))
                #expect(pieces.first?.start == range.start && pieces.last?.end == range.end)
                #expect(zip(pieces, pieces.dropFirst()).allSatisfy { $0.end == $1.start })
                #expect(pieces.dropLast().allSatisfy { $0.pageCount == chunk })
                #expect(pieces.count == Int((pages + chunk - 1) / chunk))
            }
        }
    }

    @Test func chunksReachTheLastPossiblePage() throws {
        let range = try #require(PageRange(start: Self.top - 3 * pageSize, size: 3 * pageSize))
        #expect(Array(range.chunks(of: 2 * pageSize)).map(\.pageCount) == [2, 1])
        #expect(Array(range.chunks(of: 1 << 63)).map(\.pageCount) == [3])
    }

    @Test func intersections() throws {
        var ranges: [PageRange] = []
        for first in 0..<5 as Range<UInt64> {
            for count in 1...(5 - first) {
                ranges.append(try #require(PageRange(start: first * pageSize, size: count * pageSize)))
            }
        }
        for one in ranges {
            for other in ranges {
                let both = (0..<5).map { UInt64($0) * pageSize }.filter {
                    one.contains($0) && other.contains($0)
                }
                let meet = one.intersection(other)
                #expect(meet?.start == both.first)
                #expect(meet?.pageCount ?? 0 == UInt64(both.count))
                #expect(one.contains(other) == (meet == other))
            }
        }
    }

    @Test func movingIsChecked() throws {
        let range = try #require(PageRange(start: 4 * pageSize, size: 2 * pageSize))
        #expect(range.advanced(by: pageSize)?.start == 5 * pageSize)
        #expect(range.advanced(by: 1) == nil)
        #expect(range.advanced(by: Self.top - 4 * pageSize) == nil)
        #expect(range.advanced(by: Self.top - 6 * pageSize)?.end == Self.top)
        #expect(range.offset(from: pageSize)?.start == 3 * pageSize)
        #expect(range.offset(from: 5 * pageSize) == nil)
        #expect(range.offset(from: 1) == nil)
    }
}
