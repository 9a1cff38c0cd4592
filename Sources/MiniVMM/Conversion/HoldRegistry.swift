// SPDX-License-Identifier: MIT
import Synchronization

/// The holds on guest pages that this process has registered, so that a conversion can ask for their release.
///
/// Its lock guards the list only; a hold is released outside it.
public final class HoldRegistry: Sendable {
    private struct Entry: Sendable {
        let range: PageRange
        let hold: any PageHold
        /// Whether the holder releases its pages when a conversion asks.
        let yields: Bool
    }
    private let entries = Mutex<[Entry]>([])

    /// A registry without holds.
    public init() {}

    /// - Parameters:
    ///   - yields: true if the holder releases the pages when a conversion needs them.
    ///   - limit: the most holds that may be registered; beyond it the new one is not added.
    /// - Returns: whether the hold was added.
    @discardableResult
    public func add(_ hold: any PageHold, range: PageRange, yields: Bool, limit: Int = .max) -> Bool {
        entries.withLock { list in
            guard list.count < limit else { return false }
            list.append(Entry(range: range, hold: hold, yields: yields))
            return true
        }
    }

    /// Asks the holders of the page at `gpa` to release it.
    ///
    /// - Parameter each: called with the range of each hold that was released.
    /// - Returns: how many holders released the page, and how many refused.
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

    /// Releases every hold, whether it yields or not.
    ///
    /// - Parameter each: called with the range of each hold that was released.
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

    /// The held ranges, for drawing the pages.
    public var heldRanges: [PageRange] { entries.withLock { $0.map(\.range) } }
}
