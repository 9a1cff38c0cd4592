// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

/// The pairs of steps from which swept tests are made.
@Suite("Pairs that race")
struct RacingPairTests {
    private static let moves: [Move] = [
        .convert, .hypercall, .punch, .hostRead, .hostWrite, .hostFill, .hold, .guestRead, .guestWrite,
    ]

    /// 10 pairs of steps that change pages, also with themselves, and 4 times 6 with one that uses them.
    @Test func onePageIsChangedAtLeast() {
        let pairs = RacingPair.all(of: Self.moves)
        #expect(pairs.count == 34 && Set(pairs).count == 34)
        #expect(pairs.allSatisfy { $0.first.changesPages || $0.second.changesPages })
        #expect(RacingPair.all(of: [.hostRead, .punch]).count == 2)
        #expect(RacingPair.all(of: [.hostRead, .hold]).isEmpty && RacingPair.all(of: []).isEmpty)
    }

    /// Every pair is a valid test with two actors, whatever the seed, and in most the model has an answer for each step.
    @Test func pairsAreTests() throws {
        let predictor = Predictor(configuration: SoftKVM.Configuration())
        var predicted = 0
        for pair in RacingPair.all(of: Self.moves) {
            for seed in 0..<8 as Range<UInt64> {
                let (draft, guestPages) = pair.draft(seed: seed, Self.moves)
                let test = draft.test
                #expect(test.firstProblem() == nil, "\(test.text)")
                guard case .parallel(let block)? = test.body.last else {
                    Issue.record("no block: \(test.text)")
                    return
                }
                #expect(block.actors.count == 2 && (2...4).contains(block.steps.count))
                let hasGuest = block.actors.contains { if case .vcpu = $0 { true } else { false } }
                let pages = try #require(test.memory.first?.pages)
                #expect((1...3).contains(pages) && guestPages.upperBound <= pages)
                #expect(!hasGuest || !guestPages.isEmpty, "a guest that takes part looks afterwards")
                if predictor.predict(test) != nil { predicted += 1 }
            }
        }
        #expect(predicted > 34 * 6)
    }

    /// A conversion finds its pages in the other state. Otherwise it would do nothing, and race with nothing.
    @Test func conversionsHaveAnEffect() throws {
        for (kind, state) in [
            (RacingPair.Kind.toPrivate, PageState.shared), (.toShared, .private),
        ] {
            for seed in 0..<16 as Range<UInt64> {
                let (draft, _) = RacingPair(first: kind, second: .punch).draft(seed: seed, Self.moves)
                var states = [PageState](repeating: .shared, count: Int(draft.test.memory[0].pages))
                for entry in draft.test.body.dropLast() {
                    guard case .step(let step) = entry, case .convert(let conversion) = step.action,
                        let pages = conversion.extent.pages
                    else { continue }
                    for page in pages.first...pages.last { states[Int(page)] = .private }
                }
                guard case .parallel(let block)? = draft.test.body.last,
                    case .convert(let conversion)? = block.steps.first?.action,
                    let pages = conversion.extent.pages
                else {
                    Issue.record("\(draft.test.text)")
                    continue
                }
                #expect(
                    (pages.first...pages.last).allSatisfy { states[Int($0)] == state }, "\(draft.test.text)")
            }
        }
    }
}
