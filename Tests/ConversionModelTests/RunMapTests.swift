// SPDX-License-Identifier: MIT
import Testing

@testable import ConversionModel

struct RunMapTests {
    @Test func runMapHoldsMoreThanTwoValues() throws {
        var map = RunMap<UInt32>(size: 16 * pageSize, initial: 0)
        map.set(try pages(2, 6), to: 3)
        map.set(try pages(4, 1), to: 7)
        map.set(try pages(8, 2), to: 3)
        let all = try pages(0, 16)
        #expect(map.runs(in: all).map(\.value) == [0, 3, 7, 3, 0])
        #expect(map.bytes(3, in: all) == 7 * pageSize && map.runCount == 5)
        map.set(try pages(4, 1), to: 3)
        #expect(map.runs(in: all).map(\.value) == [0, 3, 0])
        #expect(map.uniformValue(of: try pages(2, 8)) == 3)
    }

    /// Compares the map with an array with one element per page, over many runs, so that pieces are split and
    /// merged.
    @Test func runMapMatchesAnArray() throws {
        var generator = Generator(state: 1)
        let count = 3000
        var map = RunMap<UInt8>(size: UInt64(count) * pageSize, initial: 0)
        var array = [UInt8](repeating: 0, count: count)
        for _ in 0..<4000 {
            let first = Int(generator.next() % UInt64(count))
            let length = 1 + Int(generator.next() % (generator.next() % 8 == 0 ? 600 : 4))
            let value = UInt8(generator.next() % 4)
            map.set(try pages(first, length), to: value)
            for page in first..<min(count, first + length) { array[page] = value }
        }
        for page in 0..<count { #expect(map.value(at: UInt64(page) * pageSize + 1) == array[page]) }
        var runs = 1
        for page in 1..<count where array[page] != array[page - 1] { runs += 1 }
        #expect(map.runCount == runs)
        // A map with the same values, built in another order, is equal and has the same hash.
        var other = RunMap<UInt8>(size: map.size, initial: 3)
        for page in array.indices.reversed() { other.set(try pages(page, 1), to: array[page]) }
        #expect(other == map && other.hashValue == map.hashValue)
        other.set(try pages(count / 2, 1), to: array[count / 2] ^ 1)
        #expect(other != map)
    }

    @Test func pageSetOperations() throws {
        var set = PageSet(size: 10 * pageSize)
        #expect(set.isEmpty && set.count == 0)
        set.insert(try pages(2, 3))
        set.insert(try pages(7, 9))
        #expect(set.count == 6 && set.contains(4 * pageSize) && !set.contains(5 * pageSize))
        #expect(set.ranges(in: try pages(4, 5)) == [try pages(4, 1), try pages(7, 2)])
        #expect(set.gaps(in: try pages(0, 10)) == [try pages(0, 2), try pages(5, 2)])
        #expect(try set.first(in: pages(5, 5)) == 7 * pageSize)
        #expect(try set.last(in: pages(0, 10)) == 9 * pageSize)
        #expect(try set.isDisjoint(with: pages(5, 2)) && !set.contains(pages(4, 2)))
        set.remove(try pages(0, 10))
        #expect(set == PageSet(size: 10 * pageSize))
    }

    private func pages(_ first: Int, _ count: Int) throws -> PageRange {
        try #require(PageRange(start: UInt64(first) * pageSize, size: UInt64(count) * pageSize))
    }
}

/// A pseudorandom generator with the same sequence in every run.
struct Generator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state >> 33
    }
}
