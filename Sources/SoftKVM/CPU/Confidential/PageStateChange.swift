// SPDX-License-Identifier: MIT
import MiniVMM

/// A page state change of an SNP guest by its GHCB, while it goes on. KVM merges neighbouring entries of the same operation and
/// size into one exit.
///
/// The buffer is the guest's: the header is read once, and each entry once more when it is its turn.
struct PageStateChange {
    /// A request to the monitor.
    struct Call {
        let gpa: UInt64
        /// Pages of 4 KiB.
        let pages: UInt64
        let isPrivate: Bool
        /// Whether the guest says that the pages are 2 MiB.
        let isLarge: Bool
    }

    private struct Entry {
        let word: UInt64

        /// Pages done.
        var done: UInt64 { word & 0xfff }
        var gpa: UInt64 { (word >> 12 & (1 << 40 - 1)) << 12 }
        var operation: UInt64 { word >> 52 & 0xf }
        var isLarge: Bool { word >> 56 & 1 != 0 }
        var pages: UInt64 { isLarge ? 512 : 1 }
        /// Smash and unsmash change no state.
        var isHint: Bool { operation == 3 || operation == 4 }
        var isValid: Bool {
            (1...4).contains(operation) && done <= pages && (gpa >> 12) % pages == 0 && word >> 57 == 0
        }
        var withAllDone: UInt64 { word & ~0xfff | pages }

        func continues(_ first: Entry, after pages: UInt64) -> Bool {
            isValid && operation == first.operation && isLarge == first.isLarge && done == 0
                && gpa == first.gpa &+ pages * pageSize
        }
    }

    /// The most entries that fit into the buffer.
    static let mostEntries = 253

    /// SW_EXITINFO2 of the answer.
    private(set) var status: UInt64 = 0
    private let header: Int
    private var last: Int
    private var current: Int
    /// Entries in the exit that the monitor is answering.
    private var inFlight = 0
    private var isBroken = false

    private static let badHeader: UInt64 = 1 << 32 | 1
    private static let badEntry: UInt64 = 1 << 32 | 2
    private static let refused: UInt64 = 0x100 << 32

    /// - Parameter shrinks: whether a hostile host makes the list end after its first entry.
    /// - Throws: ``GHCB/Malformed/scratchArea`` if the buffer does not lie in the page's own.
    init(_ page: GHCB, shrinks: Bool) throws(GHCB.Malformed) {
        header = try SoftVCPU.bufferOffset(page, page[.scratch], 8)
        let word = page.bufferWord(at: header)
        current = Int(word & 0xffff)
        last = Int(word >> 16 & 0xffff)
        let room = (GHCB.buffer.upperBound - header - 8) / 8
        // KVM refuses a list that does not fit as a bad header.
        if last >= min(Self.mostEntries, room) || current > last {
            isBroken = true
            status = Self.badHeader
        } else if shrinks {
            last = current
            page.setBufferHalf(at: header + 2, UInt16(truncatingIfNeeded: current))
        }
    }

    private func entry(_ number: Int, _ page: GHCB) -> Entry {
        Entry(word: page.bufferWord(at: header + 8 + number * 8))
    }

    /// The next request to the monitor; nil if there is none.
    mutating func next(_ page: GHCB) -> Call? {
        while !isBroken, current <= last {
            let first = entry(current, page)
            guard first.isValid else {
                stop(Self.badEntry)
                return nil
            }
            if first.isHint || first.done == first.pages {
                markDone(first, page)
                continue
            }
            var pages = first.pages - first.done
            inFlight = 1
            while current + inFlight <= last, first.done == 0,
                entry(current + inFlight, page).continues(first, after: pages)
            {
                pages += first.pages
                inFlight += 1
            }
            return Call(
                gpa: first.gpa + first.done * pageSize, pages: pages, isPrivate: first.operation == 1,
                isLarge: first.isLarge)
        }
        return nil
    }

    /// The monitor has answered the last request.
    mutating func completed(_ page: GHCB, _ isDone: Bool) {
        guard isDone else { return stop(Self.refused) }
        for _ in 0..<inFlight { markDone(entry(current, page), page) }
        inFlight = 0
    }

    private mutating func markDone(_ entry: Entry, _ page: GHCB) {
        page.setBufferWord(at: header + 8 + current * 8, entry.withAllDone)
        current += 1
        page.setBufferHalf(at: header, UInt16(truncatingIfNeeded: current))
    }

    private mutating func stop(_ status: UInt64) {
        isBroken = true
        self.status = status
    }
}
