// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

@Suite("Witness orders", .timeLimit(.minutes(120)))
struct WitnessTests {
    private func source(_ body: String) throws -> Source {
        try Source(parsing: "test \"x\"\nmemory 3 pages shared\n" + body)
    }

    private func orders(_ source: Source, _ backend: any Backend = SoftKVM()) -> [String] {
        Runner(backend, .init(runs: 3)).report(source).blocks.flatMap(\.outcomes).map { outcome in
            "\(outcome.text): \(outcome.order?.text(of: source.test) ?? "none")"
        }
        .sorted()
    }

    @Test(arguments: [
        ("parallel\nhost write 0 1 => a\nhost1 write 0 2 => b\nend", ["a = ok, b = ok: a, b"]),
        (
            "parallel\nhost convert 0 private => a\nhost1 read 0 => b\nend",
            [
                "a = EAGAIN at 0, b = 0x0: b begins, a, b ends", "a = ok, b = 0x0: b, a",
                "a = ok, b = SIGBUS: a, b",
            ]
        ),
        // A step without a result is called by its actor and action.
        (
            "parallel\nhost write 0 7\nhost1 read 0 => b\nend",
            ["b = 0x0: b, host write", "b = 0x7: host write, b"]
        ),
        // A later block is reached through the earlier ones.
        (
            "parallel\nhost convert 0 private => a\nend\nparallel\nhost1 read 0 => b\nend",
            ["a = ok: a", "b = SIGBUS: a, b"]
        ),
    ])
    func eachOutcomeHasOne(_ body: String, _ expected: [String]) throws {
        let source = try source(body)
        #expect(orders(source) == expected)
        // On an adapter, which runs tests, they are those of the model.
        let seen = Set(orders(source, MemslotTrapKVM(over: SoftKVM())))
        #expect(seen.isSuperset(of: expected))
    }

    /// An order, performed turn by turn, leads to its outcome.
    @Test func ordersLeadToTheirOutcomes() throws {
        let source = try source(
            """
            parallel
            host convert 0..1 private => a
            host1 fill 0..2 7 => b
            host2 hold 1 as h => c
            host2 release h => d
            end
            """)
        let test = source.test
        let report = Runner(SoftKVM()).report(source)
        let outcomes = try #require(report.blocks.first).outcomes
        #expect(outcomes.count > 5)
        for outcome in outcomes {
            let order = try #require(outcome.order)
            var seen: [Name: StepOutcome] = [:]
            for turn in order.turns {
                if let result = test.steps[turn.step].result, let outcome = turn.outcome {
                    seen[result] = outcome
                }
                #expect((turn.outcome != nil) == (turn.part == .whole || turn.part == .ends))
                #expect(turn.part == .whole || !turn.pieces.isEmpty)
            }
            #expect(outcome.results.allSatisfy { seen[$0.name] == $0.outcome }, "\(outcome.text)")
            // Each step begins once and ends once.
            for step in test.steps.indices {
                let parts = order.turns.filter { $0.step == step }.map(\.part)
                #expect(parts == [.whole] || parts.first == .begins && parts.last == .ends, "\(parts)")
            }
        }
    }

    @Test func theyCanBeLeftOut() throws {
        let source = try source("parallel\nhost write 0 1 => a\nend")
        let report = Runner(SoftKVM(), .init(findsOrders: false)).report(source)
        #expect(report.blocks.first?.outcomes.map(\.order) == [nil])
    }

    @Test func aPatternSelectsByItsConditions() throws {
        let source = try source("parallel\nhost convert 0 private => a\nhost1 read 0 => b\nend")
        let pattern = try OutcomePattern(parsing: "b = SIGBUS", of: source.test)
        #expect(pattern.text == "b = SIGBUS")
        let outcomes = Runner(SoftKVM()).report(source).blocks.flatMap(\.outcomes)
        #expect(outcomes.filter { pattern.matches($0.results) }.map(\.text) == ["a = ok, b = SIGBUS"])
        for text in ["", "a", "x = ok", "a = ok,", "b = ok", "a = 7 at 1", "a = ok b = 0x0"] {
            #expect(throws: SyntaxError.self, "\(text)") {
                try OutcomePattern(parsing: text, of: source.test)
            }
        }
    }

    // MARK: what the model says of a failure

    private func model(_ body: String, _ backend: any Backend = SoftKVM()) throws -> (
        ModelComparison?, String
    ) {
        guard case .failed(let failure) = Runner(backend, .init(runs: 5)).run(try source(body)) else {
            return (nil, "passed")
        }
        return (failure.model, failure.modelText ?? "")
    }

    @Test func aFailureIsComparedWithTheModel() throws {
        func planted(_ fault: PlantedFault) -> SoftKVM { SoftKVM(.init(plantedFaults: [fault])) }
        let busy = "host hold 0 as h\nhost convert 0 private"
        #expect(try model("host read 0 => 1").0 == .same)
        #expect(try model("host read 0 => 1", MemslotTrapKVM(over: SoftKVM())).0 == .same)
        let answer = StepOutcome.errno(11, at: 0)
        let fault = PlantedFault.busyCheckMissing
        #expect(try model("\(busy) => EAGAIN at 0", planted(fault)).0 == .different(answer: answer))
        #expect(
            try model("\(busy) => EINVAL", planted(fault)).1.hasSuffix(
                "neither the backend nor the test agrees with it"))
        // Any byte may be there after a conversion that promises nothing.
        let bytes =
            "host fill 0 7\nhost convert 0 private unspecified\nhost convert 0 shared unspecified\nhost read 0 => 7"
        let opinion = try model(bytes).0
        #expect(opinion == nil || opinion == .same || opinion == .allowed)
    }

    @Test func anOutcomeIsComparedWithTheModel() throws {
        let race = "parallel\nhost convert 0 private => a\nhost1 read 0 => b\n"
        let faulty = SoftKVM(.init(plantedFaults: [.busyCheckMissing]))
        #expect(try model(race + "forbidden a = ok, b = SIGBUS\nend").0 == .same)
        #expect(try model(race + "required b = 0x7\nend").0 == .same)
        #expect(try model(race + "required a = EAGAIN at 0\nend", faulty).0 == .different(answer: nil))
        let held = "host hold 0 as h\nparallel\nhost convert 0 private => a\nforbidden a = ok\nend"
        #expect(try model(held, faulty).0 == .different(answer: nil))
        #expect(try model("parallel\nhost read 0 => a\nend\nhost read 0 => 1").0 == .same)
    }
}
