// SPDX-License-Identifier: MIT
import MiniVMM

/// The events of a long trace that are not kept, and what became of the pages meanwhile.
struct LeftOut: Sendable {
    /// Bytes that guest-physical memory may have: what is above is not followed.
    private static let most: UInt64 = 1 << 52
    /// Ranges of pages that are told of at most.
    private static let mostRanges = 20_000

    private(set) var count = 0
    private(set) var firstTime: UInt64 = 0
    private(set) var lastTime: UInt64 = 0
    private var states = AttributeMap(size: most, initial: .shared)
    /// Pages that something happened to (`private` stands for yes).
    private var changed = AttributeMap(size: most, initial: .shared)

    mutating func take(_ event: Int, of columns: EventColumns, _ shape: RecordedTrace.Shape) {
        func number(_ key: EventKey) -> UInt64? { columns.number(event, key, shape) }
        func state(_ key: EventKey) -> PageState {
            columns.text(event, key, shape) == PageState.private.rawValue ? .private : .shared
        }
        let time = columns.times[event]
        if count == 0 { firstTime = time }
        lastTime = time
        count += 1
        switch shape.event {
        case .boot: set(0, number(.ramBytes), .shared)
        case .file: set(number(.gpa), number(.size), state(.state))
        case .setMemoryAttributes2 where number(.errno) == 0:
            set(number(.gpa) ?? number(.offset), number(.size), state(.target))
        default: break
        }
    }

    private mutating func set(_ start: UInt64?, _ size: UInt64?, _ state: PageState) {
        guard let start, let size, let range = PageRange.covering(start: start, size: size),
            range.end <= Self.most
        else { return }
        states.set(range, to: state)
        changed.set(range, to: .private)
    }

    /// What the pages are that something happened to, in order, and where the rest begins if there are too many ranges.
    func changes() -> (told: [(PageRange, PageState)], untold: PageRange?) {
        var told: [(PageRange, PageState)] = []
        guard let all = PageRange(start: 0, size: Self.most) else { return (told, nil) }
        for (range, isChanged) in changed.runs(in: all) where isChanged == .private {
            for (part, state) in states.runs(in: range) {
                guard told.count < Self.mostRanges else { return (told, part) }
                told.append((part, state))
            }
        }
        return (told, nil)
    }
}
