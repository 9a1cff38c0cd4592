// SPDX-License-Identifier: MIT
import MiniVMM

/// The events of a long trace that are left out, and the page states that they led to.
struct LeftOut: Sendable {
    /// The end of the guest-physical addresses whose states are tracked.
    private static let most: UInt64 = 1 << 52
    /// The limit for ranges of pages that are reported.
    private static let mostRanges = 20_000

    private(set) var count = 0
    private(set) var firstTime: UInt64 = 0
    private(set) var lastTime: UInt64 = 0
    private var states = AttributeMap(size: most, initial: .shared)
    /// The pages whose state an event set. `private` marks such a page.
    private var changed = AttributeMap(size: most, initial: .shared)

    mutating func add(_ event: Int, of columns: EventColumns, _ shape: RecordedTrace.Shape) {
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

    /// The states of the pages that events changed, in ascending order, and the first range beyond the limit, if any.
    func changes() -> (reported: [(PageRange, PageState)], omitted: PageRange?) {
        var reported: [(PageRange, PageState)] = []
        guard let all = PageRange(start: 0, size: Self.most) else { return (reported, nil) }
        for (range, isChanged) in changed.runs(in: all) where isChanged == .private {
            for (part, state) in states.runs(in: range) {
                guard reported.count < Self.mostRanges else { return (reported, part) }
                reported.append((part, state))
            }
        }
        return (reported, nil)
    }
}
