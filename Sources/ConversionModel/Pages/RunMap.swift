// SPDX-License-Identifier: MIT
/// A value for each page of a file or an address space, stored as sorted runs of equal values rather than one entry
/// per page.
///
/// A terabyte with one value is one run. `set` costs O(log runs), amortised over the runs that it removes. The type
/// has value semantics and no lock.
public struct RunMap<Value: Hashable & Sendable>: Sendable {
    /// Bytes covered, from 0.
    public let size: UInt64
    /// The runs in ascending order, in pieces of at most ``pieceCapacity`` runs. The first run starts at 0,
    /// adjacent runs have different values, and no piece is empty.
    @usableFromInline var pieces: ContiguousArray<Piece>
    /// The start of each piece, in one array: a search among a million runs stays in the cache.
    @usableFromInline var pieceStarts: ContiguousArray<UInt64>
    @usableFromInline var count: Int
    /// Number of runs.
    @inlinable public var runCount: Int { count }

    @usableFromInline
    struct Piece: Sendable {
        /// The first byte of each run.
        @usableFromInline var starts: ContiguousArray<UInt64>
        @usableFromInline var values: ContiguousArray<Value>

        @inlinable
        init(starts: ContiguousArray<UInt64>, values: ContiguousArray<Value>) {
            self.starts = starts
            self.values = values
        }
    }

    @usableFromInline
    struct RunIndex {
        @usableFromInline var piece: Int
        @usableFromInline var index: Int

        @inlinable
        init(piece: Int, index: Int) {
            self.piece = piece
            self.index = index
        }
    }

    @inlinable static var pieceCapacity: Int { 128 }

    /// - Parameter size: bytes, a multiple of ``pageSize``. A map of size 0 contains no values.
    @inlinable
    public init(size: UInt64, initial: Value) {
        self.size = size
        pieces = [Piece(starts: [0], values: [initial])]
        pieceStarts = [0]
        count = 1
    }

    /// The value of the page at `offset`; nil past the end.
    @inlinable
    public func value(at offset: UInt64) -> Value? {
        guard offset < size else { return nil }
        let place = lastRun(startingAtOrBefore: offset)
        return pieces[place.piece].values[place.index]
    }

    /// The value that all pages of the range have; nil if the range has several values or reaches past the end.
    @inlinable
    public func uniformValue(of range: PageRange) -> Value? {
        guard range.end <= size else { return nil }
        let place = lastRun(startingAtOrBefore: range.start)
        if let next = following(place), start(of: next) < range.end { return nil }
        return pieces[place.piece].values[place.index]
    }

    /// The runs that overlap `range`, clipped to it, in ascending order. Pages past the end are left out.
    @inlinable
    public func runs(in range: PageRange) -> Runs {
        let end = min(range.end, size)
        return Runs(
            map: self, low: range.start, end: end,
            place: range.start < end ? lastRun(startingAtOrBefore: range.start) : nil)
    }

    /// The run that contains `offset`, not clipped; nil past the end.
    @inlinable
    public func run(containing offset: UInt64) -> (range: PageRange, value: Value)? {
        guard offset < size else { return nil }
        let place = lastRun(startingAtOrBefore: offset)
        let start = start(of: place)
        let end = following(place).map { self.start(of: $0) } ?? size
        guard let range = PageRange(start: start, size: end - start) else { return nil }
        return (range, pieces[place.piece].values[place.index])
    }

    /// Number of bytes of `range` with this value.
    @inlinable
    public func bytes(_ value: Value, in range: PageRange) -> UInt64 {
        var sum: UInt64 = 0
        for run in runs(in: range) where run.value == value { sum += run.range.size }
        return sum
    }

    /// Sets the value of `range`. Pages past the end are ignored.
    @inlinable
    public mutating func set(_ range: PageRange, to value: Value) {
        let end = min(range.end, size)
        guard range.start < end else { return }
        if count == 1, range.start == 0, end == size {
            pieces[0].values[0] = value
            return
        }
        // Replaces the runs that start in [start, end] by at most one at each bound.
        var low = lastRun(startingAtOrBefore: range.start)
        let startsHere = start(of: low) == range.start
        let before = startsHere ? self.value(before: low) : pieces[low.piece].values[low.index]
        if !startsHere { low.index += 1 }
        let high = lastRun(startingAtOrBefore: end)
        let after = pieces[high.piece].values[high.index]
        let hasStart = before != value
        let hasEnd = end < size && after != value
        replaceRuns(
            from: low, through: high, hasStart ? (range.start, value) : nil, hasEnd ? (end, after) : nil)
    }

    /// Iterates runs without allocating.
    public struct Runs: Sequence, IteratorProtocol {
        @usableFromInline let map: RunMap
        @usableFromInline let low: UInt64
        @usableFromInline let end: UInt64
        @usableFromInline var place: RunIndex?

        @inlinable
        init(map: RunMap, low: UInt64, end: UInt64, place: RunIndex?) {
            self.map = map
            self.low = low
            self.end = end
            self.place = place
        }

        /// The next run, clipped to the range of the sequence; nil at the end.
        @inlinable
        public mutating func next() -> (range: PageRange, value: Value)? {
            guard let here = place else { return nil }
            let start = Swift.max(map.start(of: here), low)
            guard start < end else { return nil }
            place = map.following(here)
            let stop = place.map { Swift.min(map.start(of: $0), end) } ?? end
            guard let range = PageRange(start: start, size: stop - start) else { return nil }
            return (range, map.pieces[here.piece].values[here.index])
        }
    }

    // MARK: pieces

    @inlinable
    func start(of place: RunIndex) -> UInt64 { pieces[place.piece].starts[place.index] }

    @inlinable
    func following(_ place: RunIndex) -> RunIndex? {
        if place.index + 1 < pieces[place.piece].starts.count {
            return RunIndex(piece: place.piece, index: place.index + 1)
        }
        return place.piece + 1 < pieces.count ? RunIndex(piece: place.piece + 1, index: 0) : nil
    }

    /// The value of the run before this one; nil for the first run.
    @inlinable
    func value(before place: RunIndex) -> Value? {
        if place.index > 0 { return pieces[place.piece].values[place.index - 1] }
        return place.piece > 0 ? pieces[place.piece - 1].values.last : nil
    }

    @inlinable
    func lastRun(startingAtOrBefore offset: UInt64) -> RunIndex {
        // The first piece and the first run start at 0, so both searches succeed.
        let piece = pieceStarts.count == 1 ? 0 : partition(pieceStarts, offset) - 1
        let index = partition(pieces[piece].starts, offset) - 1
        return RunIndex(piece: piece, index: index)
    }

    @inlinable
    mutating func replaceRuns(
        from first: RunIndex, through last: RunIndex, _ start: (UInt64, Value)?, _ end: (UInt64, Value)?
    ) {
        let (low, lowIndex) = (first.piece, first.index)
        let (high, highIndex) = (last.piece, last.index + 1)
        var before = 0
        for piece in low...high { before += pieces[piece].starts.count }
        if low == high {
            splice(low, lowIndex..<highIndex, start, end)
        } else {
            pieces[high].starts.removeSubrange(..<highIndex)
            pieces[high].values.removeSubrange(..<highIndex)
            splice(low, lowIndex..<pieces[low].starts.count, start, end)
            pieces.removeSubrange(low + 1..<high)
            pieceStarts.removeSubrange(low + 1..<high)
        }
        let lastPiece = low == high ? low : low + 1
        var after = 0
        for piece in low...lastPiece { after += pieces[piece].starts.count }
        count += after - before
        tidy(low, lastPiece)
    }

    @inlinable
    mutating func splice(
        _ piece: Int, _ range: Range<Int>, _ start: (UInt64, Value)?, _ end: (UInt64, Value)?
    ) {
        var place = range.lowerBound
        var stop = range.upperBound
        for run in [start, end] {
            guard let run else { continue }
            if place < stop {
                pieces[piece].starts[place] = run.0
                pieces[piece].values[place] = run.1
            } else {
                pieces[piece].starts.insert(run.0, at: place)
                pieces[piece].values.insert(run.1, at: place)
                stop += 1
            }
            place += 1
        }
        guard place < stop else { return }
        pieces[piece].starts.removeSubrange(place..<stop)
        pieces[piece].values.removeSubrange(place..<stop)
    }

    /// Removes empty pieces, splits a full one and merges small adjacent ones.
    @inlinable
    mutating func tidy(_ first: Int, _ last: Int) {
        if last > first {
            if pieces[last].starts.isEmpty { removePiece(last) } else { noteStart(last) }
        }
        if pieces[first].starts.isEmpty && pieces.count > 1 { return removePiece(first) }
        noteStart(first)
        let runs = pieces[first].starts.count
        if runs > Self.pieceCapacity {
            let half = runs / 2
            let tail = Piece(
                starts: ContiguousArray(pieces[first].starts[half...]),
                values: ContiguousArray(pieces[first].values[half...]))
            pieces[first].starts.removeSubrange(half...)
            pieces[first].values.removeSubrange(half...)
            pieces.insert(tail, at: first + 1)
            pieceStarts.insert(tail.starts[0], at: first + 1)
        } else if first + 1 < pieces.count,
            runs + pieces[first + 1].starts.count <= Self.pieceCapacity / 2
        {
            pieces[first].starts.append(contentsOf: pieces[first + 1].starts)
            pieces[first].values.append(contentsOf: pieces[first + 1].values)
            removePiece(first + 1)
        }
    }

    @inlinable
    mutating func removePiece(_ index: Int) {
        pieces.remove(at: index)
        pieceStarts.remove(at: index)
    }

    @inlinable
    mutating func noteStart(_ index: Int) { pieceStarts[index] = pieces[index].starts[0] }
}

/// Two maps are equal if every page has the same value, however the map was built.
extension RunMap: Hashable {
    /// Costs O(runs), regardless of the number of pages.
    @inlinable
    public static func == (a: RunMap, b: RunMap) -> Bool {
        guard a.size == b.size, a.runCount == b.runCount else { return false }
        if a.pieces.count == 1, b.pieces.count == 1 {
            return a.pieces[0].starts == b.pieces[0].starts && a.pieces[0].values == b.pieces[0].values
        }
        var left: RunIndex? = RunIndex(piece: 0, index: 0)
        var right = left
        while let x = left, let y = right {
            guard a.start(of: x) == b.start(of: y),
                a.pieces[x.piece].values[x.index] == b.pieces[y.piece].values[y.index]
            else { return false }
            left = a.following(x)
            right = b.following(y)
        }
        return true
    }

    /// Costs O(runs). Hashes runs rather than pieces: equal maps can have different pieces.
    @inlinable
    public func hash(into hasher: inout Hasher) {
        for piece in pieces {
            for index in piece.starts.indices {
                hasher.combine(piece.starts[index])
                hasher.combine(piece.values[index])
            }
        }
    }
}

/// The number of leading elements of an ascending array that are at most `offset`.
@inlinable
func partition(_ starts: ContiguousArray<UInt64>, _ offset: UInt64) -> Int {
    partition(starts.count) { starts[$0] <= offset }
}

/// The number of indices below `count` for which `belongs` is true. These must be the lowest ones.
@inlinable
func partition(_ count: Int, _ belongs: (Int) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
        let middle = (low + high) / 2
        if belongs(middle) { low = middle + 1 } else { high = middle }
    }
    return low
}
