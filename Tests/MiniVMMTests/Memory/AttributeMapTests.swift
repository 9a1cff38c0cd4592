// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

/// A naive map: one entry per page.
private struct NaiveMap {
    var pages: [PageState]

    mutating func set(_ first: Int, _ count: Int, _ state: PageState) {
        for page in first..<min(pages.count, first + count) { pages[page] = state }
    }

    /// The maximal runs of [first, first + count) as (first page, pages, state).
    func runs(_ first: Int, _ count: Int) -> [Run] {
        var runs: [Run] = []
        for page in first..<max(first, min(pages.count, first + count)) {
            if let last = runs.last, last.state == pages[page] {
                runs[runs.count - 1].count += 1
            } else {
                runs.append(Run(first: page, count: 1, state: pages[page]))
            }
        }
        return runs
    }
}

private struct Run: Equatable {
    var first: Int
    var count: Int
    var state: PageState
}

private func pages(_ first: Int, _ count: Int) throws -> PageRange {
    try #require(PageRange(start: UInt64(first) * pageSize, size: UInt64(count) * pageSize))
}

extension AttributeMap {
    fileprivate func list(_ range: PageRange) -> [Run] {
        runs(in: range).map {
            Run(first: Int($0.range.start / pageSize), count: Int($0.range.pageCount), state: $0.value)
        }
    }
}

/// Compares every query about every range of a small map with the naive map.
private func agrees(_ map: AttributeMap, _ naive: NaiveMap, ranges: [PageRange]) -> Bool {
    guard map.runCount == naive.runs(0, naive.pages.count).count else { return false }
    for (page, state) in naive.pages.enumerated() {
        guard map.value(at: UInt64(page) * pageSize) == state,
            map.value(at: UInt64(page + 1) * pageSize - 1) == state
        else { return false }
    }
    for range in ranges {
        let first = Int(range.start / pageSize)
        let expected = naive.runs(first, Int(range.pageCount))
        guard map.list(range) == expected else { return false }
        let fits = range.end <= map.size
        guard map.uniformValue(of: range) == (fits && expected.count == 1 ? expected[0].state : nil) else {
            return false
        }
        for state in PageState.allCases {
            let count = expected.reduce(0) { $1.state == state ? $0 + $1.count : $0 }
            guard map.bytes(state, in: range) == UInt64(count) * pageSize else { return false }
        }
    }
    for run in naive.runs(0, naive.pages.count) {
        for page in run.first..<run.first + run.count {
            guard let found = map.run(containing: UInt64(page) * pageSize + 17),
                found.range.start == UInt64(run.first) * pageSize,
                found.range.pageCount == UInt64(run.count), found.value == run.state
            else { return false }
        }
    }
    return true
}

@Suite("The attribute map")
struct AttributeMapTests {
    /// All ranges of a map of `count` pages, and those that extend one page past its end.
    private static func allRanges(_ count: Int) throws -> [PageRange] {
        var ranges: [PageRange] = []
        for first in 0...count {
            for size in 1...(count + 1 - first) { ranges.append(try pages(first, size)) }
        }
        return ranges
    }

    /// Every possible set from every pattern of six pages, each reached in some way. Equal patterns are equal maps
    /// (their runs are compared), so this covers every sequence of sets of any length.
    @Test(arguments: PageState.allCases)
    func everySequenceOfSetsOnSixPages(initial: PageState) throws {
        let ranges = try Self.allRanges(6)
        let sets = ranges.filter { $0.end <= 6 * pageSize }
        let start = NaiveMap(pages: [PageState](repeating: initial, count: 6))
        var seen: Set<[PageState]> = [start.pages]
        var waiting = [(AttributeMap(size: 6 * pageSize, initial: initial), start)]
        while let (map, naive) = waiting.popLast() {
            for range in sets {
                for state in PageState.allCases {
                    var next = map
                    next.set(range, to: state)
                    var model = naive
                    model.set(Int(range.start / pageSize), Int(range.pageCount), state)
                    #expect(agrees(next, model, ranges: ranges), "\(naive.pages): \(range) \(state)")
                    if seen.insert(model.pages).inserted { waiting.append((next, model)) }
                }
            }
        }
        #expect(seen.count == 64)
    }

    /// Every pattern of ten pages, created page by page in shuffled order.
    @Test func everyPatternOfTenPages() throws {
        var generator = Generator(seed: 10)
        let ranges = [try pages(0, 10), try pages(3, 4), try pages(9, 1), try pages(5, 9)]
        for pattern in 0..<1024 {
            var map = AttributeMap(size: 10 * pageSize, initial: pattern % 3 == 0 ? .private : .shared)
            var naive = NaiveMap(
                pages: [PageState](repeating: pattern % 3 == 0 ? .private : .shared, count: 10))
            for page in (0..<10).shuffled(using: &generator) {
                let state: PageState = pattern >> page & 1 == 1 ? .private : .shared
                map.set(try pages(page, 1), to: state)
                naive.set(page, 1, state)
            }
            #expect(agrees(map, naive, ranges: ranges), "pattern \(pattern)")
        }
    }

    /// Long random histories with thousands of runs, so that runs split and join.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func longHistoriesWithThousandsOfRuns(seed: UInt64) throws {
        let count = 8192
        var generator = Generator(seed: seed)
        var map = AttributeMap(size: UInt64(count) * pageSize, initial: .shared)
        var naive = NaiveMap(pages: [PageState](repeating: .shared, count: count))
        // Every other page, in random order: the largest possible number of runs.
        for page in stride(from: 0, to: count, by: 2).shuffled(using: &generator) {
            map.set(try pages(page, 1), to: .private)
            naive.set(page, 1, .private)
        }
        #expect(map.runCount == count)
        let everything = try pages(0, count)
        for step in 0..<3000 {
            // Mostly small, sometimes large enough to cover several runs.
            let size = step % 40 == 0 ? 1 + generator.below(3000) : 1 + generator.below(6)
            let first = generator.below(count - size + 1)
            let state: PageState = generator.next() & 1 == 0 ? .private : .shared
            map.set(try pages(first, size), to: state)
            naive.set(first, size, state)
            let probe = generator.below(count)
            #expect(map.value(at: UInt64(probe) * pageSize) == naive.pages[probe])
            if step % 300 == 0 || step == 2999 {
                #expect(map.list(everything) == naive.runs(0, count), "seed \(seed), step \(step)")
                #expect(map.runCount == naive.runs(0, count).count, "seed \(seed), step \(step)")
            }
        }
        map.set(everything, to: .private)
        #expect(map.runCount == 1)
        #expect(map.uniformValue(of: everything) == .private)
    }

    @Test func aTerabyteIsOneRun() throws {
        var map = AttributeMap(size: 1 << 40, initial: .private)
        #expect(map.runCount == 1)
        let last = try #require(PageRange(start: 1 << 40 - pageSize, size: pageSize))
        map.set(last, to: .shared)
        #expect(map.runCount == 2)
        let all = try #require(PageRange(start: 0, size: 1 << 40))
        #expect(map.bytes(.private, in: all) == 1 << 40 - pageSize)
        #expect(map.run(containing: 1 << 40 - 1)?.range == last)
    }

    @Test func nothingExistsPastTheEnd() throws {
        var map = AttributeMap(size: 2 * pageSize, initial: .shared)
        #expect(map.value(at: 2 * pageSize) == nil)
        #expect(map.value(at: .max) == nil)
        #expect(map.run(containing: 2 * pageSize) == nil)
        #expect(map.uniformValue(of: try pages(1, 2)) == nil)
        #expect(map.list(try pages(2, 5)) == [])
        map.set(try pages(2, 5), to: .private)
        #expect(map.runCount == 1)
        map.set(try pages(1, 5), to: .private)
        #expect(map.list(try pages(0, 9)).map(\.count) == [1, 1])
        let last = try #require(PageRange(start: .max - 2 * pageSize + 1, size: pageSize))
        map.set(last, to: .private)
        #expect(map.runCount == 2)
    }

    @Test func anEmptyMapHasNoStateAnywhere() throws {
        var map = AttributeMap(size: 0, initial: .shared)
        map.set(try pages(0, 1), to: .private)
        #expect(map.value(at: 0) == nil)
        #expect(map.uniformValue(of: try pages(0, 1)) == nil)
        #expect(map.run(containing: 0) == nil)
        #expect(map.list(try pages(0, 3)) == [])
        #expect(map.bytes(.shared, in: try pages(0, 3)) == 0)
    }

    @Test func copiesAreIndependent() throws {
        var map = AttributeMap(size: 4 * pageSize, initial: .shared)
        let before = map
        map.set(try pages(1, 1), to: .private)
        #expect(before.runCount == 1)
        #expect(map.runCount == 3)
    }
}
