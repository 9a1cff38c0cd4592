/// Which bytes of a file or an address space are private: sorted runs, never a bit a page.
///
/// A terabyte of one state is one run. A conversion costs O(log runs), amortised over the runs it removes.
/// A value type with no lock: whoever owns it guards it.
public struct AttributeMap: Sendable {
    /// Bytes covered, from 0.
    public let size: UInt64
    /// The first byte of each run with its state in bit 0 (private = 1), ascending, in pieces of at most
    /// ``pieceCapacity``. The first run starts at 0; neighbours differ; no piece is empty.
    private var pieces: [ContiguousArray<UInt64>]
    /// Where each piece starts, side by side: the search among a million runs stays in the cache.
    private var pieceStarts: ContiguousArray<UInt64>
    /// Number of runs.
    public private(set) var runCount: Int

    private static let pieceCapacity = 128

    /// - Parameter size: bytes, a multiple of ``pageSize``; an empty map has no state anywhere.
    public init(size: UInt64, initial: PageState) {
        self.size = size
        pieces = [[Self.entry(0, initial)]]
        pieceStarts = [0]
        runCount = 1
    }

    /// The state of the page at `offset`, or nil past the end.
    public func state(at offset: UInt64) -> PageState? {
        guard offset < size else { return nil }
        let place = lastRun(startingAtOrBefore: offset)
        return Self.state(pieces[place.piece][place.index])
    }

    /// The state of the whole range, or nil if it is mixed or reaches past the end.
    public func uniformState(of range: PageRange) -> PageState? {
        guard range.end <= size else { return nil }
        let place = lastRun(startingAtOrBefore: range.start)
        if let next = following(place), Self.start(pieces[next.piece][next.index]) < range.end { return nil }
        return Self.state(pieces[place.piece][place.index])
    }

    /// The runs that overlap `range`, clipped to it, in order. What lies past the end is left out.
    public func runs(in range: PageRange) -> some Sequence<(range: PageRange, state: PageState)> {
        let end = min(range.end, size)
        let first: Place? = range.start < end ? lastRun(startingAtOrBefore: range.start) : nil
        return sequence(state: first) { place -> (range: PageRange, state: PageState)? in
            guard let here = place else { return nil }
            let entry = pieces[here.piece][here.index]
            let low = max(Self.start(entry), range.start)
            guard low < end else { return nil }
            place = following(here)
            let high = place.map { min(Self.start(pieces[$0.piece][$0.index]), end) } ?? end
            return PageRange(start: low, size: high - low).map { ($0, Self.state(entry)) }
        }
    }

    /// The whole run that `offset` lies in, or nil past the end.
    public func run(containing offset: UInt64) -> (range: PageRange, state: PageState)? {
        guard offset < size else { return nil }
        let place = lastRun(startingAtOrBefore: offset)
        let entry = pieces[place.piece][place.index]
        let end = following(place).map { Self.start(pieces[$0.piece][$0.index]) } ?? size
        return PageRange(start: Self.start(entry), size: end - Self.start(entry)).map {
            ($0, Self.state(entry))
        }
    }

    /// Bytes of `range` that are in `state`.
    public func bytes(_ state: PageState, in range: PageRange) -> UInt64 {
        runs(in: range).reduce(0) { $1.state == state ? $0 + $1.range.size : $0 }
    }

    /// Sets the state of `range`. What lies past the end is ignored.
    public mutating func set(_ range: PageRange, to state: PageState) {
        let end = min(range.end, size)
        guard range.start < end else { return }
        // The entries in [start, end] go; at most one comes at each bound.
        var low = lastRun(startingAtOrBefore: range.start)
        let first = pieces[low.piece][low.index]
        let startsHere = Self.start(first) == range.start
        // Neighbours differ, so what comes before a run is the other state.
        let before = startsHere ? Self.state(first).other : Self.state(first)
        if !startsHere { low.index += 1 }
        let high = lastRun(startingAtOrBefore: end)
        let after = Self.state(pieces[high.piece][high.index])
        var new = InlinePair()
        if range.start == 0 || before != state { new.append(Self.entry(range.start, state)) }
        if end < size && after != state { new.append(Self.entry(end, after)) }
        replaceRuns(from: low, through: high, with: new)
    }

    // MARK: the pieces

    private struct Place {
        var piece: Int
        var index: Int
    }

    private struct InlinePair {
        var first: UInt64 = 0
        var second: UInt64 = 0
        var count = 0
        mutating func append(_ value: UInt64) {
            if count == 0 { first = value } else { second = value }
            count += 1
        }
    }

    private static func entry(_ start: UInt64, _ state: PageState) -> UInt64 {
        start | (state == .private ? 1 : 0)
    }
    private static func start(_ entry: UInt64) -> UInt64 { entry & ~1 }
    private static func state(_ entry: UInt64) -> PageState { entry & 1 != 0 ? .private : .shared }

    private func following(_ place: Place) -> Place? {
        if place.index + 1 < pieces[place.piece].count {
            return Place(piece: place.piece, index: place.index + 1)
        }
        return place.piece + 1 < pieces.count ? Place(piece: place.piece + 1, index: 0) : nil
    }

    private func lastRun(startingAtOrBefore offset: UInt64) -> Place {
        // The first piece and the first entry start at 0, so both searches find something.
        let piece = partition(pieceStarts.count) { pieceStarts[$0] <= offset } - 1
        let index = partition(pieces[piece].count) { Self.start(pieces[piece][$0]) <= offset } - 1
        return Place(piece: piece, index: index)
    }

    private mutating func replaceRuns(from start: Place, through end: Place, with new: InlinePair) {
        let (low, lowIndex) = (start.piece, start.index)
        let (high, highIndex) = (end.piece, end.index + 1)
        let before = low == high ? pieces[low].count : pieces[low...high].reduce(0) { $0 + $1.count }
        if low == high {
            Self.splice(&pieces[low], lowIndex..<highIndex, new)
        } else {
            pieces[high].removeSubrange(..<highIndex)
            Self.splice(&pieces[low], lowIndex..<pieces[low].count, new)
            pieces.removeSubrange(low + 1..<high)
            pieceStarts.removeSubrange(low + 1..<high)
        }
        let last = low == high ? low : low + 1
        let after = pieces[low...last].reduce(0) { $0 + $1.count }
        runCount += after - before
        tidy(low, last)
    }

    private static func splice(
        _ piece: inout ContiguousArray<UInt64>, _ range: Range<Int>, _ new: InlinePair
    ) {
        switch new.count {
        case 0: piece.removeSubrange(range)
        case 1: piece.replaceSubrange(range, with: CollectionOfOne(new.first))
        default:
            piece.replaceSubrange(range, with: CollectionOfOne(new.first))
            piece.insert(new.second, at: range.lowerBound + 1)
        }
    }

    /// Drops empty pieces, splits a full one and joins small neighbours.
    private mutating func tidy(_ first: Int, _ last: Int) {
        if last > first {
            if pieces[last].isEmpty { removePiece(last) } else { noteStart(last) }
        }
        if pieces[first].isEmpty && pieces.count > 1 {
            removePiece(first)
            return
        }
        noteStart(first)
        if pieces[first].count > Self.pieceCapacity {
            let half = pieces[first].count / 2
            let tail = ContiguousArray(pieces[first][half...])
            pieces[first].removeSubrange(half...)
            pieces.insert(tail, at: first + 1)
            pieceStarts.insert(Self.start(tail[0]), at: first + 1)
        } else if first + 1 < pieces.count,
            pieces[first].count + pieces[first + 1].count <= Self.pieceCapacity / 2
        {
            pieces[first].append(contentsOf: pieces[first + 1])
            removePiece(first + 1)
        }
    }

    private mutating func removePiece(_ index: Int) {
        pieces.remove(at: index)
        pieceStarts.remove(at: index)
    }

    private mutating func noteStart(_ index: Int) {
        pieceStarts[index] = Self.start(pieces[index][0])
    }
}

/// The number of leading indices below `count` for which `belongs` holds; it must hold for a prefix.
private func partition(_ count: Int, _ belongs: (Int) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
        let middle = (low + high) / 2
        if belongs(middle) { low = middle + 1 } else { high = middle }
    }
    return low
}
