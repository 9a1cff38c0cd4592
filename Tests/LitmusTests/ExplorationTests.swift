// SPDX-License-Identifier: MIT
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

@Suite("Exploration", .timeLimit(.minutes(120)))
struct ExplorationTests {
    private static let quick = Exploration.Options(
        depth: 1, tests: 150, parallelTests: 15, runs: 20, timeLimit: .seconds(300))

    private func explore(
        _ backend: any Backend, _ options: Exploration.Options = quick
    ) -> Exploration.Summary {
        Exploration(backend, options).run()
    }

    // MARK: findings

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: [0, 1] as [UInt64], [true, false])
    func theModelHasNoFinding(_ seed: UInt64, rulesAlone: Bool) throws {
        var options = Self.quick
        options.seed = seed
        options.usesRulesAlone = rulesAlone
        let summary = explore(SoftKVM(), options)
        #expect(summary.findings.map(\.failure.description) == [])
        #expect(summary.leftOut.map(\.move) == [] && summary.skipped == [:], "\(summary.skipped)")
        #expect(summary.end == .complete && summary.lawful == 0)
        #expect((summary.counts[.random]?.tests ?? 0) > 140 && (summary.counts[.parallel]?.tests ?? 0) > 10)
        #expect(summary.sample != nil)
        // Every kind of step occurred.
        #expect(summary.coverage.count >= 24 && summary.coverage["host convert"]?.count ?? 0 >= 5)
    }

    /// Faults that need more than two pages.
    private static let ofSize: Set<PlantedFault> = [
        .laterPagesUnchecked, .sizeLosesHighBits, .laterRunsLeftOut, .laterSlotsKept,
    ]

    /// Random tests that are large in one dimension find these with the default number of tests, whatever the seed.
    @Test(
        .enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: Array(ofSize),
        [1, 2, 3] as [UInt64])
    func aFaultOfSizeIsFoundAndShrunk(_ fault: PlantedFault, _ seed: UInt64) throws {
        let faulty = SoftKVM(SoftKVM.Configuration(plantedFaults: [fault]))
        let options = Exploration.Options(
            depth: 0, parallelTests: 0, seed: seed, timeLimit: .seconds(1_000_000))
        let finding = try #require(explore(faulty, options).findings.first)
        let test = finding.source.test
        #expect(test.steps.count <= 6 && test.memory.allSatisfy { $0.pages <= 1 << 21 }, "\(test.text)")
        #expect(finding.seen == finding.runs)
        #expect(Runner(SoftKVM()).run(finding.source) == .passed)
    }

    /// One sequential test in eight is large, in each dimension.
    @Test func aShareOfTheTestsIsLarge() {
        let runner = Runner(SoftKVM())
        let supported = SupportedMoves(.preserved, Predictor(configuration: .init()), runner)
        var generator = TestGenerator(supported, seed: 5, mostSteps: 12)
        let tests = (0..<480).map { _ in generator.next() }
        let large = tests.enumerated().filter { $0.offset % 8 == 7 }.map(\.element)
        // None of these is in a small test.
        func isLarge(_ test: LitmusTest) -> Bool {
            let pages = test.memory.map(\.pages).max() ?? 0
            return pages >= 32 || test.memory.count > 2 || test.steps.count > 16
                || test.steps.contains { step in
                    switch step.action {
                    case .create(let file): file.size >= 1 << 32
                    case .bind(let binding): binding.slot >= 10
                    default: false
                    }
                }
        }
        #expect(large.count == 60 && large.count(where: isLarge) >= 45, "\(large.count(where: isLarge))")
        #expect(!tests.enumerated().contains { $0.offset % 8 != 7 && $0.element.memory.count > 2 })
        #expect(large.contains { $0.memory.contains { $0.pages > 1 << 20 } })
        #expect(large.contains { $0.memory.count >= 8 })
        #expect(large.contains { $0.steps.count { if case .hold = $0.action { true } else { false } } >= 20 })
        #expect(large.contains { $0.steps.count { if case .map = $0.action { true } else { false } } >= 16 })
        #expect(large.contains { $0.steps.count { if case .bind = $0.action { true } else { false } } >= 31 })
        #expect(
            large.contains { test in
                test.steps.contains { step in
                    guard case .every(let pattern, .convert) = step.action else { return false }
                    return pattern.count ?? 0 >= 1000
                }
            })
    }

    /// Faults of many kinds, each found by different steps. All of them if MINIVMM_EXPLORE is set.
    private static let faults: [PlantedFault] =
        ProcessInfo.processInfo.environment["MINIVMM_EXPLORE"] != nil
        ? PlantedFault.allCases
        : [
            .flagsIgnored, .busyCheckMissing, .busyConvertsBefore, .contentsLostToShared, .hostReadsPrivate,
            .punchKeepsContents, .faultNamesNextPage, .attributesLostWithSlot, .guestMappingsKept,
            .copyOutUnchecked, .toSharedDropsHostMappings, .mixedRangeUnchecked, .punchKeepsHolders,
        ]

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: faults)
    func aPlantedFaultIsFoundAndShrunk(_ fault: PlantedFault) throws {
        let faulty = SoftKVM(SoftKVM.Configuration(plantedFaults: [fault]))
        let options = Exploration.Options(
            depth: 2, tests: 20_000, parallelTests: 0, timeLimit: .seconds(400))
        let finding = try #require(explore(faulty, options).findings.first)
        #expect(
            finding.seen == finding.runs && finding.source.test.steps.count <= 6,
            "\(finding.source.test.text)")
        // The finding is a valid test that passes without the fault and fails with it.
        let again = try Source(parsing: finding.source.test.text)
        #expect(again.test == finding.source.test)
        #expect(Runner(SoftKVM()).run(again) == .passed)
        if case .failed(let failure) = Runner(faulty).run(again) {
            #expect(failure.kind == finding.failure.kind && failure.step == finding.failure.step)
        } else {
            Issue.record("it is not shown again: \(again.test.text)")
        }
        // Every step is necessary.
        for index in again.test.steps.indices {
            guard let less = Predictor(configuration: .init()).predict(again.test.without([index])) else {
                continue
            }
            if case .failed(let failure) = Runner(faulty).run(try Source(less.test)) {
                #expect(failure.kind != finding.failure.kind, "\(less.test.text)")
            }
        }
    }

    /// Faults that random tests have missed with some seeds. All of them if MINIVMM_EXPLORE is set.
    private static let missedBefore: [PlantedFault] =
        ProcessInfo.processInfo.environment["MINIVMM_EXPLORE"] != nil
        ? PlantedFault.allCases.filter { !ofSize.contains($0) }
        : [.toSharedDropsHostMappings, .mixedRangeUnchecked]

    /// The exhaustive part alone finds every fault that two pages can show, so it does not depend on the seed.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: missedBefore)
    func noSeedMissesAPlantedFault(_ fault: PlantedFault) throws {
        let seeds: [UInt64] =
            ProcessInfo.processInfo.environment["MINIVMM_EXPLORE"] != nil ? Array(1...20) : [3]
        for seed in seeds {
            let faulty = SoftKVM(SoftKVM.Configuration(seed: seed, plantedFaults: [fault]))
            let options = Exploration.Options(seed: seed, timeLimit: .seconds(400))
            let summary = explore(faulty, options)
            #expect(summary.findings.count == 1, "seed \(seed)")
            #expect(summary.counts[.random] == nil, "seed \(seed): not by the small scope")
        }
    }

    /// Every kind of step allowed in a block runs concurrently with each; all of them if MINIVMM_EXPLORE is set.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func noPairOfMovesHasAFindingOnTheModel() {
        let isWhole = ProcessInfo.processInfo.environment["MINIVMM_EXPLORE"] != nil
        let options = Exploration.Options(
            depth: 0, tests: 0, parallelTests: 0, pairTests: 1, seed: 1, timeLimit: .seconds(800))
        var tests = 0
        let exploration = Exploration(
            SoftKVM(), options, isStopped: { !isWhole && tests >= 60 },
            progress: { tests = max(tests, $1.tests) })
        let summary = exploration.run()
        #expect(summary.findings.map(\.failure.description) == [] && summary.tests >= 60)
        guard isWhole else { return }
        let kinds = Move.allCases.filter(\.isAtomic).count
        #expect(
            summary.end == .complete && summary.pairs + summary.emptyPairs.count == kinds * (kinds + 1) / 2)
        // One step removes an object that the other names.
        #expect(summary.emptyPairs.count < 5, "\(summary.emptyPairs)")
    }

    /// A difference that shows only with concurrent steps.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func versionsDifferWithConcurrentSteps() throws
    {
        let old = SoftKVM(SoftKVM.Configuration(abi: .rfcV5))
        let options = Exploration.Options(depth: 0, tests: 0, parallelTests: 3000, timeLimit: .seconds(300))
        let finding = try #require(explore(old, options).findings.first)
        #expect(Runner(SoftKVM()).run(finding.source) == .passed)
        #expect(finding.source.test.body.contains { if case .parallel = $0 { true } else { false } })
    }

    /// The adapter on SoftKVM keeps the rules of the interface, apart from the moves that it does not support.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func theAdapterKeepsTheRules() throws {
        let summary = explore(MemslotTrapKVM(over: SoftKVM()))
        #expect(summary.findings.map(\.failure.description) == [])
        #expect(summary.leftOut.contains { $0.move == "fork" && !$0.reason.isEmpty })
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func differentKindsAreDifferentFindings() {
        let faulty = SoftKVM(
            SoftKVM.Configuration(plantedFaults: [.flagsIgnored, .hostReadsPrivate, .punchKeepsContents]))
        var options = Self.quick
        options.mostFindings = 3
        let kinds = explore(faulty, options).findings.map(\.failure.kind)
        #expect(kinds.count == 3 && Set(kinds).count == 3, "\(kinds)")
    }

    /// A kernel that fails only sometimes is caught, and the rate is reported.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func intermittentFindingsAreCounted() throws {
        var options = Self.quick
        options.depth = 1
        let finding = try #require(explore(CarelessBackend(SoftKVM()), options).findings.first)
        #expect((1..<finding.runs).contains(finding.seen), "\(finding.seen) of \(finding.runs)")
        #expect(finding.source.test.steps.count <= 3, "\(finding.source.test.text)")
        #expect(finding.failure.seen.hasPrefix("EBUSY"))
    }

    /// The number of runs needed is reported, and a finding that does not show by itself is distinguished.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func runsNeededToRepeatAFinding() throws {
        let careless = try #require(explore(CarelessBackend(SoftKVM())).findings.first)
        let alone = careless.repeated(on: CarelessBackend(SoftKVM()), .init(runs: 20))
        #expect(alone.seen > 0 && alone.seen < alone.runs && alone.needed ?? 0 > 1, "\(alone)")
        #expect(careless.repeated(on: SoftKVM(), .init(runs: 20)).needed == nil)
        let faulty = SoftKVM(SoftKVM.Configuration(plantedFaults: [.hostReadsPrivate]))
        let always = try #require(explore(faulty).findings.first)
        #expect(always.repeated(on: faulty, .init(runs: 20)) == Repetition(seen: 1, runs: 1))
        // 1 - 0.5^7 is the first value above 99 %.
        #expect(Repetition(seen: 10, runs: 20).needed == 7 && Repetition(seen: 0, runs: 9).needed == nil)
    }

    // MARK: limits

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func aSeedIsReproducible() throws {
        let faulty = SoftKVM(SoftKVM.Configuration(plantedFaults: [.busyNamesHighest]))
        let options = Exploration.Options(depth: 0, tests: 2000, parallelTests: 0, seed: 7)
        let (first, second) = (explore(faulty, options), explore(faulty, options))
        #expect(first.counts == second.counts && first.coverage == second.coverage)
        let texts = [first, second].map { $0.findings.map(\.source.test.text) }
        #expect(texts[0] == texts[1] && texts[0].count == 1)
        var other = options
        other.seed = 8
        other.tests = 20
        #expect(explore(SoftKVM(), other).coverage != first.coverage)
    }

    @Test func theTimeLimitEndsIt() {
        var options = Self.quick
        options.timeLimit = .zero
        let summary = explore(SoftKVM(), options)
        #expect(summary.end == .time && summary.tests <= 1)
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func isStoppedEndsIt() {
        var options = Self.quick
        options.tests = 1_000_000_000
        var tests = 0
        let exploration = Exploration(
            SoftKVM(), options, isStopped: { tests >= 100 }, progress: { tests = max(tests, $1.tests) })
        let summary = exploration.run()
        #expect(summary.end == .stopped && summary.tests == 100)
    }

    @Test func withoutACPUGuestMovesAreSkipped() {
        let none = SoftKVM.Configuration(engineLibraries: [])
        var options = Self.quick
        // The model alone answers for their vCPUs, without a CPU.
        options.excluded = ["vm snp", "vm tdx"]
        let summary = Exploration(SoftKVM(none), options, model: none).run()
        #expect(summary.findings.isEmpty && (summary.counts[.random]?.tests ?? 0) > 100)
        let reasons = summary.leftOut.filter { $0.move.hasPrefix("vcpu") }.map(\.reason)
        #expect(reasons.count >= 4 && reasons.allSatisfy { $0.contains("libunicorn2") })
        #expect(!summary.coverage.keys.contains { $0.hasPrefix("vcpu") })
    }

    @Test func anUnsupportingKernelHasNoFinding() {
        let summary = explore(NoKernel())
        #expect(summary.tests == 0 && summary.findings.isEmpty)
        #expect(summary.leftOut.count >= Move.allCases.count - 1)
    }

    /// The exhaustive part tries the whole alphabet from every state that one step can reach.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func theExhaustivePartIsComplete() throws {
        func run(_ depth: Int, _ moves: Set<Move>) throws -> (SmallScope.Size, [LitmusTest]) {
            var tests: [LitmusTest] = []
            let size = try SmallScope(moves, depth: depth, .init()).explore { test in
                tests.append(test)
                return true
            }
            return (size, tests)
        }
        // Six conversions from four initial states, and two of the second file. Of a uniform file three change
        // something, of a mixed one four.
        let (one, tests) = try run(1, [.convert])
        #expect(one == SmallScope.Size(states: 4, transitions: 24 + 32))
        // For each initial state: one test with the steps without an effect, one for each change, and the checks at the
        // end.
        #expect(tests.count == 4 + 3 + 4 + 3 + 4 + 16)
        // Two pages have four states, whatever the initial one.
        #expect(try run(9, [.convert]).0 == SmallScope.Size(states: 8, transitions: 48 + 32))
        // A hold can be taken and released; a private page cannot be held.
        let (held, _) = try run(1, [.hold, .release])
        #expect(held == SmallScope.Size(states: 2, transitions: 6))
        #expect(try run(0, [.convert]).0 == SmallScope.Size())
        #expect(try run(2, []).0 == SmallScope.Size())
    }

    // MARK: expectations

    /// Undefined bytes are not judged.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func undefinedBytesAreNotJudged() throws {
        var configuration = SoftKVM.Configuration()
        configuration.contentPromise = ContentPromise(toPrivate: .undefined, toShared: .undefined)
        let blank = try Source(
            parsing: """
                test "x"
                memory 2 pages shared
                host write 0 0x41
                host write 1 0x42
                host convert 0 private
                host convert 0 shared
                host read 0
                host check 0..1 0
                host read 1
                """
        ).test
        let said = try #require(Predictor(configuration: configuration).predict(blank))
        #expect(said.test.steps.map(\.expectation).suffix(2) == [.unspecified, .anyOf([.value(0x42)])])
        #expect(said.test.steps.count == 6)
    }

    /// One fault in four, which takes half a minute of a debug build. All of them if MINIVMM_EXPLORE is set.
    private static let foundByRules: [PlantedFault] =
        ProcessInfo.processInfo.environment["MINIVMM_EXPLORE"] != nil
        ? PlantedFault.allCases
        : PlantedFault.allCases.enumerated().filter { $0.offset % 4 == 0 }.map(\.element)

    /// The rules alone show every planted fault, including those of a CPU with stale tables, and those in steps that
    /// first create a VM.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: foundByRules)
    func everyPlantedFaultIsFound(_ fault: PlantedFault) throws {
        let faulty = SoftKVM(SoftKVM.Configuration(plantedFaults: [fault]))
        let tests = Self.ofSize.contains(fault) ? 1000 : 0
        var options = Exploration.Options(tests: tests, parallelTests: 0, timeLimit: .seconds(1_000_000))
        options.usesRulesAlone = true
        let summary = Exploration(faulty, options).run()
        let finding = try #require(summary.findings.first, "\(fault.name)")
        // The whole backend, with its memory and CPU, shows it every time.
        #expect(finding.seen == finding.runs, "\(fault.name): \(finding.source.test.text)")
    }

    @Test func kindsOfFindings() {
        func kind(
            _ actor: Actor, _ action: Action, _ expected: StepOutcome, _ seen: StepOutcome
        ) -> Failure.Kind {
            Failure(.step(Step(actor, action, .anyOf([expected])), seen: seen, oddity: nil)).kind
        }
        func convert(_ pages: ClosedRange<UInt32>) -> Action {
            .convert(Conversion(Extent(pages: pages), to: .private))
        }
        let (first, third) = (Action.read(Place(page: 0)), Action.read(Place(page: 3)))
        let busy = Errno.resourceTemporarilyUnavailable.rawValue
        #expect(
            kind(.host(0), convert(2...3), .errno(busy, at: 8192), .ok)
                == kind(.host(3), convert(0...0), .errno(busy, at: 0), .ok))
        #expect(
            kind(.host(0), first, .value(0x41), .value(0))
                == kind(.host(1), third, .value(0x55), .value(1)))
        #expect(
            kind(.host(0), first, .sigbus(), .value(0)) != kind(.host(0), first, .value(0), .sigbus()))
        #expect(
            Failure(.outcome([], against: .model, count: 3, runs: 100)).kind
                != Failure(.outcome([], against: .test, count: 3, runs: 100)).kind)
    }
}
