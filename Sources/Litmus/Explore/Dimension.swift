// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// A dimension in which a random test is large. In every other one it is small, so that shrinking finds out what matters.
enum Dimension: CaseIterable {
    /// Many pages of a file are present, and some are held.
    case present
    /// The file has more than 4 GiB.
    case size
    /// The attributes of the file have many runs.
    case runs
    /// One file is in many memslots, or a request covers many files.
    case slots
    /// Many holds.
    case holds
    /// A file is mapped by many views.
    case views

    /// One in this many sequential random tests is large.
    static let share: UInt64 = 8

    /// A step, and the move that the kernel must support for it.
    typealias Part = (Move, Step)

    private static let host = Actor.host(0)

    private static func whole(_ file: Draft.File) -> Extent {
        Extent(file.name, offset: 0, size: file.pages * pageSize)
    }

    /// The file that is large.
    private func subject(of draft: Draft) -> Draft.File? { draft.files.max { $0.pages < $1.pages } }

    // MARK: the beginning

    /// Adds the memory, and makes the steps after which the test is large.
    func beginning(in draft: inout Draft, _ moves: [Move]) -> [Part] {
        switch self {
        case .present: Self.presentPages(in: &draft)
        case .size: Self.largeFile(in: &draft)
        case .runs: Self.manyRuns(in: &draft)
        case .slots: Self.manySlots(in: &draft)
        case .holds: Self.manyHolds(in: &draft, moves)
        case .views: Self.manyViews(in: &draft)
        }
    }

    private static func presentPages(in draft: inout Draft) -> [Part] {
        let pages = draft.pick([32, 33, 40, 63, 64, 65, 129, 256, 513, 600] as [UInt64]) ?? 64
        draft.add(Memory(pages: pages, initial: .shared))
        let all = Extent(offset: 0, size: pages * pageSize)
        var parts: [Part] = []
        switch draft.below(3) {
        case 0: parts.append((.allocate, Step(host, .allocate(all))))
        case 1: parts.append((.advise, Step(host, .advise(all, .populateWrite))))
        default: parts += every(1, of: all, .write(Place(page: 0), draft.freshByte()), .hostWrite)
        }
        if draft.oneIn(3) { parts += every(2 + draft.below(3), of: all, .punch(all), .punch) }
        for _ in 0..<draft.below(3) { parts += hold(1, of: pages, in: &draft) }
        return parts
    }

    private static func largeFile(in draft: inout Draft) -> [Part] {
        draft.add(Memory(pages: 1 + draft.below(2), initial: draft.state()))
        let edge: UInt64 = 1 << 20
        if draft.oneIn(3) {
            // The largest file of a kernel has 2^63 bytes without one page.
            let pages = draft.pick([edge, edge + 1, edge << 1, edge << 8, (1 << 51) - 1] as [UInt64]) ?? edge
            let file = NewFile(draft.freshName("f"), size: pages * pageSize, flags: 1 | (draft.below(2) << 1))
            return [(.create, Step(host, .create(file)))]
        }
        let pages = draft.pick([edge, edge + 1, edge << 1, (edge << 1) + 1, 1 << 24] as [UInt64]) ?? edge
        guard let name = Name("large") else { return [] }
        draft.add(Memory(name: name, pages: pages, initial: draft.state(), isUnbound: true))
        guard draft.oneIn(2) else { return [] }
        let page = draft.page(below: pages) * pageSize
        return [
            draft.oneIn(2)
                ? (.hostWrite, Step(host, .write(Place(name, offset: page), draft.freshByte())))
                : (
                    .hold,
                    Step(
                        host,
                        .hold(
                            Extent(name, offset: page, size: pageSize), by: .vmsplice,
                            hold: draft.freshName("h")))
                )
        ]
    }

    private static func manyRuns(in draft: inout Draft) -> [Part] {
        let pages = draft.pick([64, 65, 257, 1000, 4096] as [UInt64]) ?? 256
        let initial = draft.state()
        draft.add(Memory(pages: pages, initial: initial, isUnbound: draft.oneIn(2)))
        let all = Extent(offset: 0, size: pages * pageSize)
        let conversion = Conversion(all, to: initial == .shared ? .private : .shared)
        var parts = every(2 + draft.below(3), of: all, .convert(conversion), .convert)
        if draft.oneIn(4) { parts += every(1 + draft.below(4), of: all, .allocate(all), .allocate) }
        if draft.oneIn(4) { parts += hold(1, of: pages, in: &draft) }
        return parts
    }

    private static func manySlots(in draft: inout Draft) -> [Part] {
        let count = draft.pick([2, 3, 4, 8, 31, 32, 33] as [UInt64]) ?? 4
        if draft.oneIn(3) {
            // Several files, for requests of the guest's memory.
            for number in 0..<min(count, 12) {
                guard let name = Name("m\(number)") else { continue }
                draft.add(
                    Memory(name: number == 0 ? .ram : name, pages: 1 + draft.below(2), initial: draft.state())
                )
            }
            return []
        }
        guard let name = Name("parts") else { return [] }
        draft.add(Memory(pages: 1, initial: .shared))
        draft.add(Memory(name: name, pages: count, initial: draft.state(), isUnbound: true))
        var parts: [Part] = []
        for page in 0..<count {
            let part = Extent(name, offset: page * pageSize, size: pageSize)
            let binding = Binding(
                slot: 10 + UInt32(page), to: part, gpa: (16 + page) * pageSize)
            parts.append((.bind, Step(host, .bind(binding))))
        }
        let all = Extent(offset: 16 * pageSize, size: count * pageSize)
        let access = draft.oneIn(2) ? Action.read(Place(page: 0)) : .write(Place(page: 0), draft.freshByte())
        return parts + every(1, of: all, access, .guestRead, by: .vcpu(0))
    }

    private static func manyHolds(in draft: inout Draft, _ moves: [Move]) -> [Part] {
        let pages = draft.pick([1, 4, 33, 64] as [UInt64]) ?? 4
        draft.add(Memory(pages: pages, initial: .shared))
        return hold(8 + draft.below(40), of: pages, in: &draft)
    }

    private static func manyViews(in draft: inout Draft) -> [Part] {
        let pages = 1 + draft.below(4)
        draft.add(Memory(pages: pages, initial: .shared))
        var parts: [Part] = []
        for _ in 0..<4 + draft.below(28) {
            let all = Extent(offset: 0, size: pages * pageSize)
            let view = draft.freshName("v")
            parts.append((.map, Step(host, .map(all, view: view))))
            parts.append((.hostRead, Step(host, .read(Place(view, page: 0)))))
        }
        return parts
    }

    // MARK: the whole

    /// Steps that concern all of what is large, and show their effects.
    func whole(in draft: inout Draft, _ moves: [Move]) -> [Part] {
        guard let file = subject(of: draft) else { return [] }
        let all = Self.whole(file)
        let state = draft.state()
        var parts: [Part] = []
        switch self {
        case .present, .size, .runs, .views:
            parts.append(convert(draft.oneIn(2) ? all : draft.pages(of: file), to: state, in: &draft))
        case .slots where draft.test.memory.count > 2:
            var conversion = Conversion(Extent(.guest, offset: 0, size: 0), to: state)
            conversion.contents = draft.pick(ContentPolicy.allCases)
            conversion.extent.size = draft.test.memory.reduce(0) { $0 + $1.pages } * pageSize
            parts.append(
                moves.contains(.askForGuest)
                    ? (.askForGuest, Step(Self.host, .convert(conversion)))
                    : convert(all, to: state, in: &draft))
        case .slots:
            let bound = Extent(offset: 16 * pageSize, size: all.size)
            parts.append(convert(all, to: state, in: &draft))
            if moves.contains(.zapped) { parts.append((.zapped, Step(Self.host, .zapped))) }
            parts += Self.every(1, of: bound, .read(Place(page: 0)), .guestRead, by: .vcpu(1))
        case .holds:
            parts.append(convert(all, to: .private, in: &draft))
            for hold in draft.holds where !draft.oneIn(3) {
                parts.append((.release, Step(Self.host, .release(hold))))
            }
            parts.append(convert(all, to: .private, in: &draft))
        }
        if self == .runs, draft.oneIn(2) {
            let conversion = Conversion(all, to: draft.state())
            parts += Self.every(1 + draft.below(8), of: draft.pages(of: file), .convert(conversion), .convert)
        }
        if moves.contains(.hostRead), let place = draft.place(in: draft.views) {
            parts.append((.hostRead, Step(Self.host, .read(place))))
        }
        return parts
    }

    private func convert(_ extent: Extent, to state: PageState, in draft: inout Draft) -> Part {
        (.convert, Step(.host(Int(draft.below(2))), .convert(Conversion(extent, to: state))))
    }

    private static func hold(_ count: UInt64, of pages: UInt64, in draft: inout Draft) -> [Part] {
        (0..<count).map { _ in
            let page = Extent(offset: draft.page(below: pages) * pageSize, size: pageSize)
            return (.hold, Step(host, .hold(page, by: .vmsplice, hold: draft.freshName("h"))))
        }
    }

    private static func every(
        _ stride: UInt64, of extent: Extent, _ action: Action, _ move: Move, by actor: Actor = host
    ) -> [Part] {
        Action.every(stride, of: extent, action).map { [(move, Step(actor, $0))] } ?? []
    }
}
