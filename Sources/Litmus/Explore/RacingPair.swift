// SPDX-License-Identifier: MIT
import MiniVMM

/// Two steps between which a kernel can have a race of conversion: one changes the states or the contents of pages, the other one
/// changes or uses the same pages, or the ones beside them.
///
/// A sweep of one pair is hundreds of runs, so a generator goes through all pairs before it repeats one with other pages.
struct RacingPair: Hashable, Sendable {
    enum Kind: CaseIterable {
        case toPrivate, toShared, call, punch
        case hostRead, hostWrite, hostFill, hold, guestRead, guestWrite

        var move: Move {
            switch self {
            case .toPrivate, .toShared: .convert
            case .call: .hypercall
            case .punch: .punch
            case .hostRead: .hostRead
            case .hostWrite: .hostWrite
            case .hostFill: .hostFill
            case .hold: .hold
            case .guestRead: .guestRead
            case .guestWrite: .guestWrite
            }
        }
        var changesPages: Bool { [.toPrivate, .toShared, .call, .punch].contains(self) }
        fileprivate var isOfGuest: Bool { [.call, .guestRead, .guestWrite].contains(self) }
        /// Whether it is for one byte.
        fileprivate var isSingle: Bool {
            [.hostRead, .hostWrite, .guestRead, .guestWrite].contains(self)
        }
    }

    let first: Kind
    let second: Kind

    /// All pairs of steps that a backend supports.
    static func all(of moves: [Move]) -> [RacingPair] {
        let kinds = Kind.allCases.filter { moves.contains($0.move) }
        return kinds.enumerated().flatMap { index, first in
            kinds[index...].filter { first.changesPages || $0.changesPages }.map {
                RacingPair(first: first, second: $0)
            }
        }
    }

    private var isOfGuest: Bool { first.isOfGuest || second.isOfGuest }

    /// The pages of a step, and the state in which it finds them if it is to have an effect.
    private struct Part {
        let kind: Kind
        let pages: Range<UInt64>
        /// The state that it converts to; nil if it does not convert.
        let target: PageState?

        init(_ kind: Kind, _ pages: Range<UInt64>, in draft: inout Draft) {
            self.kind = kind
            self.pages = kind.isSingle ? pages.lowerBound..<pages.lowerBound + 1 : pages
            switch kind {
            case .toPrivate: target = .private
            case .toShared: target = .shared
            case .call: target = draft.state()
            default: target = nil
            }
        }

        var before: PageState? {
            switch kind {
            case .hostRead, .hostWrite, .hostFill, .hold: .shared
            default: target.map { $0 == .private ? .shared : .private }
            }
        }

        func step(_ number: Int, in draft: inout Draft) -> Step {
            let extent = Extent(
                .ram, offset: pages.lowerBound * pageSize, size: UInt64(pages.count) * pageSize)
            let place = Place(.ram, offset: extent.offset)
            let action: Action =
                switch kind {
                case .toPrivate, .toShared: .convert(Conversion(extent, to: target ?? .shared))
                case .call: .hypercall(extent, attributes: Attributes.word(target ?? .shared))
                case .punch: .punch(extent)
                case .hostRead, .guestRead: .read(place)
                case .hostWrite, .guestWrite: .write(place, draft.freshByte())
                case .hostFill: .fill(extent, draft.freshByte())
                case .hold: .hold(extent, by: .vmsplice, hold: draft.freshName("h"))
                }
            return Step(kind.isOfGuest ? .vcpu(number) : .host(number), action)
        }
    }

    /// A test of one to three pages in which two actors perform the steps, without the checks after the block.
    ///
    /// - Parameter moves: what the backend supports.
    /// - Returns: the draft, and the pages at which the guest has to look. An exit takes longer than most steps, so these are few.
    func draft(seed: UInt64, _ moves: [Move]) -> (Draft, guestPages: Range<UInt64>) {
        var chance = SplitMix64(seed: seed)
        let layout = chance.next() % 4
        // The same pages, neighbours, or a page of a range.
        let count: UInt64 = layout == 0 ? 1 : layout == 3 ? 2 + chance.next() % 2 : 2
        var draft = Draft(seed: chance.next(), pages: count, initial: .shared)
        let one = draft.below(count)
        let whole = 0..<count
        let (a, b): (Range<UInt64>, Range<UInt64>) =
            switch layout {
            case 0, 1: (whole, whole)
            case 2 where first.changesPages && second.changesPages: (one..<one + 1, 1 - one..<2 - one)
            default: draft.oneIn(2) ? (whole, one..<one + 1) : (one..<one + 1, whole)
            }
        let parts = [Part(first, a, in: &draft), Part(second, b, in: &draft)]
        let isForGuest = isOfGuest || moves.contains(.guestRead) && draft.oneIn(4)
        prepare(&draft, for: parts, moves)
        // A page that the guest has not touched is faulted in by its access.
        if isForGuest, moves.contains(.guestRead), draft.oneIn(3) {
            draft.append(Step(.vcpu(0), .read(Place(.ram, offset: one * pageSize))))
        }
        draft.append(block(of: parts, moves, in: &draft))
        let shared = a.clamped(to: b)
        return (draft, isForGuest ? shared.isEmpty ? whole : shared : 0..<0)
    }

    /// Brings the pages into the states in which the steps have an effect, most of them present.
    private func prepare(_ draft: inout Draft, for parts: [Part], _ moves: [Move]) {
        let count = draft.test.memory.first?.pages ?? 0
        if !draft.oneIn(4) {
            let all = Extent(.ram, offset: 0, size: count * pageSize)
            draft.append(Step(.host(0), .fill(all, draft.freshByte())))
        }
        for page in 0..<count where moves.contains(.convert) {
            // The state in which a conversion changes the page; if none is for it, the state in which an access succeeds.
            let here = parts.filter { $0.before != nil && $0.pages.contains(page) }
            let wanted = (here.first { $0.target != nil } ?? here.first)?.before
            if (wanted ?? draft.state()) == .private {
                let extent = Extent(.ram, offset: page * pageSize, size: pageSize)
                draft.append(Step(.host(0), .convert(Conversion(extent, to: .private))))
            }
        }
        // A conversion that fails must show nothing of what it has begun.
        guard let part = parts.first(where: { $0.target == .private }), moves.contains(.hold), draft.oneIn(4)
        else { return }
        let extent = Extent(.ram, offset: (part.pages.upperBound - 1) * pageSize, size: pageSize)
        draft.append(Step(.host(0), .hold(extent, by: .vmsplice, hold: draft.freshName("h"))))
    }

    /// One actor for each step. At times it performs a second one.
    private func block(of parts: [Part], _ moves: [Move], in draft: inout Draft) -> Parallel {
        var block = Parallel(steps: [])
        for (number, part) in parts.enumerated() {
            block.steps.append(part.step(number, in: &draft))
            if draft.oneIn(6) {
                let kind: Kind = part.kind.isOfGuest ? .guestRead : draft.oneIn(2) ? .hostRead : .toShared
                guard moves.contains(kind.move) else { continue }
                block.steps.append(Part(kind, part.pages, in: &draft).step(number, in: &draft))
            }
        }
        return block
    }
}
