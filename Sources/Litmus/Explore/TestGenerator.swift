// SPDX-License-Identifier: MIT
import MiniVMM

/// Generates random tests from the moves that a backend supports. ``Predictor`` adds the expected answers.
struct TestGenerator {
    private let supported: SupportedMoves
    private let mostSteps: Int
    private var seeds: SplitMix64
    private var number: UInt64 = 0

    /// Whether concurrent steps are few, because each test is swept.
    private let isSwept: Bool
    /// The pairs that are left of the round.
    private var pairs: [RacingPair] = []

    init(_ supported: SupportedMoves, seed: UInt64, mostSteps: Int, isSwept: Bool = false) {
        self.isSwept = isSwept
        self.supported = supported
        self.mostSteps = max(1, mostSteps)
        seeds = SplitMix64(seed: seed)
    }

    /// A sequential test. One in ``Dimension/share`` is large in one dimension.
    mutating func next() -> LitmusTest {
        let seed = seeds.next()
        number += 1
        if number % Dimension.share == 0 {
            let dimensions = Dimension.allCases
            let dimension = dimensions[Int(number / Dimension.share % UInt64(dimensions.count))]
            if let test = nextLarge(dimension, seed) { return test }
        }
        var draft = Draft(seed: seed, supported.machines)
        fill(&draft, 1 + draft.below(UInt64(mostSteps)), supported.moves(of: draft.test))
        return draft.test
    }

    /// A sequential test that is large in one dimension: the steps that make it large, a few random ones, and steps that
    /// concern all of it, each followed by random ones; nil if the kernel does not support a step that it needs.
    private func nextLarge(_ dimension: Dimension, _ seed: UInt64) -> LitmusTest? {
        var draft = Draft(largeWith: seed)
        let moves = supported.moves
        func append(_ steps: [Dimension.Part]) -> Bool {
            for (move, step) in steps {
                guard moves.contains(move) else { return false }
                draft.append(step)
            }
            return true
        }
        guard append(dimension.beginning(in: &draft, moves)) else { return nil }
        for _ in 0...draft.below(2) {
            fill(&draft, draft.below(3), moves)
            guard append(dimension.whole(in: &draft, moves)) else { return nil }
            fill(&draft, 1 + draft.below(UInt64(mostSteps) / 4 + 1), moves)
        }
        return draft.test
    }

    /// A test with some sequential steps, some concurrent ones, and checks of every page.
    mutating func nextParallel() -> LitmusTest {
        number += 1
        if isSwept, number % 8 != 0, let test = nextSwept() { return test }
        var draft = Draft(seed: seeds.next(), supported.machines.intersection([.twoAliases]))
        fill(&draft, draft.below(4), draft.test.hasTwoAliases ? supported.aliasMoves : supported.moves)
        let atomic = draft.test.hasTwoAliases ? atomicAliasMoves : atomicMoves
        var block = Parallel(steps: [])
        let count = isSwept ? draft.oneIn(8) ? 3 : 2 : 2 + draft.below(2)
        // In a swept test most actors have one step: every instruction of it is a place to be preempted.
        let most = isSwept ? draft.oneIn(4) ? 2 : 1 : count == 2 ? 3 : 2
        var actors: Set<Actor> = []
        for number in 0..<count {
            var own: Actor?
            for _ in 0...draft.below(UInt64(most)) {
                guard var step = move(of: atomic, &draft)?.step(in: &draft) else { continue }
                // All steps of an actor run on one thread, so the actor replaces the one that the move chose.
                let actor = own ?? Self.actor(step.actor, Int(number))
                guard Self.isSameKind(actor, step.actor), own != nil || !actors.contains(actor) else {
                    continue
                }
                own = actor
                actors.insert(actor)
                step.actor = actor
                block.steps.append(step)
            }
        }
        guard actors.count > 1 else { return draft.test }
        draft.append(block)
        appendLooks(to: &draft, byGuest: draft.oneIn(2) ? draft.allGuestPages : 0..<0)
        return draft.test
    }

    /// The next pair of steps of the races of conversion, in an order that differs from round to round.
    private mutating func nextSwept() -> LitmusTest? {
        if pairs.isEmpty {
            pairs = RacingPair.all(of: atomicMoves)
            // Fisher and Yates.
            for last in pairs.indices.dropFirst().reversed() {
                pairs.swapAt(last, Int(seeds.next() % UInt64(last + 1)))
            }
        }
        guard let pair = pairs.popLast() else { return nil }
        var (draft, guestPages) = pair.draft(seed: seeds.next(), atomicMoves)
        appendLooks(to: &draft, byGuest: guestPages)
        return draft.test
    }

    /// The moves that are allowed in a block.
    var atomicMoves: [Move] {
        supported.moves.filter { $0.isAtomic && (supported.knowsContents || !$0.isRead) }
    }

    /// The same for a VM with two aliases. Accesses that fault without a conversion are omitted, because the monitor of
    /// a real kernel enters again 10,000 times.
    private var atomicAliasMoves: [Move] {
        supported.aliasMoves.filter {
            $0.isAtomic && !$0.isPlainGuestAccess && (supported.knowsContents || !$0.isRead)
        }
    }

    /// Two concurrent steps on two pages, one of each kind; nil if one of them has no object.
    mutating func nextPair(_ first: Move, _ second: Move) -> LitmusTest? {
        let isDivided = [first, second].contains(.askForGuest)
        let hasTwoAliases = [first, second].contains(.convertOnFault)
        var draft = Draft(
            seed: seeds.next(), pages: isDivided ? 1 : 2, isDivided: isDivided, hasTwoAliases: hasTwoAliases)
        // The objects that the two steps use: a hold to release, a child that reads, a memslot that is not bound.
        for subject in [first.subject, second.subject].compactMap({ $0 }) {
            if let step = subject.step(in: &draft) { draft.append(step) }
        }
        fill(&draft, draft.below(3), hasTwoAliases ? supported.aliasMoves : supported.moves)
        guard var one = first.step(in: &draft), var two = second.step(in: &draft) else { return nil }
        (one.actor, two.actor) = (Self.actor(one.actor, 0), Self.actor(two.actor, 1))
        guard one.actor != two.actor else { return nil }
        draft.append(Parallel(steps: [one, two]))
        appendLooks(to: &draft, byGuest: draft.oneIn(2) ? draft.allGuestPages : 0..<0)
        return draft.test
    }

    /// Adds checks of every page after a block.
    ///
    /// - Parameter guestPages: the pages at which the guest looks, too, if it can.
    private func appendLooks(to draft: inout Draft, byGuest guestPages: Range<UInt64>) {
        guard supported.knowsContents else { return }
        let own = Set(draft.test.memory.map(\.name))
        let pages = draft.views.filter { own.contains($0.name) }.flatMap { view in
            (0..<view.size / pageSize).map { Place(view.name, offset: $0 * pageSize) }
        }
        draft.append(Parallel(steps: pages.map { Step(.host(0), .read($0)) }))
        // A guest can still see a page that the host has lost. A guest access outside of its memory ends in MMIO, after which the
        // vCPU cannot go on.
        guard supported.moves.contains(.guestRead), !draft.test.hasTwoAliases, !draft.test.changesSlots,
            !guestPages.isEmpty
        else { return }
        draft.append(
            Parallel(
                steps: guestPages.map {
                    Step(.vcpu(0), .read(Place(.ram, offset: $0 * pageSize)))
                }))
    }

    private static func actor(_ actor: Actor, _ number: Int) -> Actor {
        switch actor {
        case .host: .host(number)
        case .vcpu: .vcpu(number)
        case .child: actor
        }
    }

    private static func isSameKind(_ a: Actor, _ b: Actor) -> Bool {
        switch (a, b) {
        case (.host, .host), (.vcpu, .vcpu): true
        default: a == b
        }
    }

    private func fill(_ draft: inout Draft, _ count: UInt64, _ moves: [Move]) {
        var left = count
        // Some moves have no object in this test.
        for _ in 0..<4 * count where left > 0 {
            if let (move, step) = Move.followUp(in: &draft), moves.contains(move) {
                draft.append(step)
                left -= 1
            }
            guard left > 0, let step = move(of: moves, &draft)?.step(in: &draft) else { continue }
            draft.append(step)
            left -= 1
        }
    }

    private func move(of moves: [Move], _ draft: inout Draft) -> Move? {
        var rest = draft.below(moves.reduce(0) { $0 + $1.weight })
        for move in moves {
            if rest < move.weight { return move }
            rest -= move.weight
        }
        return moves.last
    }
}

extension Draft {
    /// The pages of the guest's memory.
    fileprivate var allGuestPages: Range<UInt64> {
        0..<test.memory.regions.reduce(0) { max($0, $1.gpa.end) } / pageSize
    }
}

extension LitmusTest {
    /// Whether a step creates, changes or deletes a memslot.
    fileprivate var changesSlots: Bool {
        steps.contains { step in
            switch step.action {
            case .bind, .unbind: true
            default: false
            }
        }
    }
}
