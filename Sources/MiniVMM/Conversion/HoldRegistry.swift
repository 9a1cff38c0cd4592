// SPDX-License-Identifier: MIT
import Synchronization

/// The holds on guest pages that this process knows of: who asks before converting can have them released.
///
/// Its lock guards the list only; a hold is released outside it.
public final class HoldRegistry: Sendable {
    private struct Entry: Sendable {
        let range: PageRange
        let hold: any PageHold
        /// Lets go when a conversion asks.
        let yields: Bool
    }
    private let entries = Mutex<[Entry]>([])

    /// A registry without holds.
    public init() {}

    /// - Parameters:
    ///   - yields: true if the holder lets go when a conversion needs the page.
    ///   - limit: holds that there may be; with so many already the new one is not added.
    /// - Returns: whether it was added.
    @discardableResult
    public func add(_ hold: any PageHold, range: PageRange, yields: Bool, limit: Int = .max) -> Bool {
        entries.withLock { list in
            guard list.count < limit else { return false }
            list.append(Entry(range: range, hold: hold, yields: yields))
            return true
        }
    }

    /// Asks the holders of the page at `gpa` to let go.
    ///
    /// - Parameter each: called for each hold that is gone, with its range.
    /// - Returns: how many did, and how many hold on.
    public func askToRelease(
        gpa: UInt64, each: (PageRange) -> Void = { _ in }
    ) -> (released: Int, refused: Int) {
        let (asked, refused) = entries.withLock { list in
            let holding = list.filter { $0.range.contains(gpa) }
            list.removeAll { $0.yields && $0.range.contains(gpa) }
            return (holding.filter(\.yields), holding.count { !$0.yields })
        }
        for entry in asked {
            entry.hold.release()
            each(entry.range)
        }
        return (asked.count, refused)
    }

    /// Releases every hold, asked or not.
    ///
    /// - Parameter each: called for each hold that is gone, with its range.
    @discardableResult
    public func releaseAll(each: (PageRange) -> Void = { _ in }) -> Int {
        let all = entries.withLock { list in
            defer { list = [] }
            return list
        }
        for entry in all {
            entry.hold.release()
            each(entry.range)
        }
        return all.count
    }

    /// Held ranges, for a picture of the pages.
    public var heldRanges: [PageRange] { entries.withLock { $0.map(\.range) } }
}
