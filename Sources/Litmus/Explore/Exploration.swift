// SPDX-License-Identifier: MIT
public import MiniVMM
public import SoftKVM

/// Searches for behaviour in which a kernel differs from the model of Linux 7.4.
///
/// It tries all tests of a few steps on two pages (``SmallScope``), random sequential tests, pairs of concurrent steps,
/// and random tests with concurrent steps. A difference is shrunk to a ``Finding``.
///
/// It is used by one thread. Tests run as ``Runner`` runs them.
public final class Exploration {
    /// The extent and the time limit of an exploration.
    public struct Options: Sendable {
        /// Steps of the exhaustive part; 0 omits it. Default 2.
        public var depth: Int
        /// Number of random sequential tests. Default 1000.
        public var tests: Int
        /// Number of random tests with concurrent steps. Default 100.
        public var parallelTests: Int
        /// Number of tests for each pair of kinds of steps run concurrently. 0, the default, omits them.
        public var pairTests: Int
        /// The largest number of steps of a random sequential test. At least 1; default 12.
        public var mostSteps: Int
        /// Runs of a test with concurrent steps, if interleavings cannot be explored. Default 100.
        public var runs: Int
        /// Seed of the random tests and of the delays of actors. Default 0.
        public var seed: UInt64
        /// The number of the first test that runs, from 1. Those before it are only generated. Default 1.
        public var firstTest: Int
        /// Kinds of steps and machines that no test has, by the names of ``Summary/leftOut``. Default none.
        public var excluded: Set<String>
        /// Announces each test before it runs, with its number. Nil, the default, announces none.
        public var announcer: Announcer?
        /// The log of the running kernel: a report about a bug of its own is a finding. Nil, the default, ignores it.
        public var kernelLog: KernelLog?
        /// The number of findings of different kinds after which the exploration ends. At least 1; default 1.
        public var mostFindings: Int
        /// The time after which no further test begins. Default 60 s.
        public var timeLimit: Duration
        /// The time limit of one test. Default 60 s.
        public var testTimeLimit: Duration
        /// Signals that end the current test; nil for none.
        public var interrupts: SignalDescriptor?
        /// Whether on ``SoftKVM`` its rules alone answer, without its memory and CPU, and only findings run on both.
        /// Default true.
        public var usesRulesAlone: Bool
        /// Whether each random sequential test that shows no difference is also run with each allocation of each step failing
        /// once. Default false.
        public var failsAllocations: Bool
        /// Measures where sequential tests spend their time. Nil, the default, costs nothing.
        public var stopwatch: Stopwatch?

        /// Options with the defaults given at each property.
        public init(
            depth: Int = 2, tests: Int = 1000, parallelTests: Int = 100, pairTests: Int = 0,
            mostSteps: Int = 12, runs: Int = 100, seed: UInt64 = 0, mostFindings: Int = 1,
            timeLimit: Duration = .seconds(60), testTimeLimit: Duration = .seconds(60),
            firstTest: Int = 1, excluded: Set<String> = [], announcer: Announcer? = nil,
            kernelLog: KernelLog? = nil,
            interrupts: SignalDescriptor? = nil, usesRulesAlone: Bool = true, failsAllocations: Bool = false,
            stopwatch: Stopwatch? = nil
        ) {
            self.failsAllocations = failsAllocations
            self.firstTest = firstTest
            self.excluded = excluded
            self.announcer = announcer
            self.kernelLog = kernelLog
            self.stopwatch = stopwatch
            self.interrupts = interrupts
            self.usesRulesAlone = usesRulesAlone
            self.depth = depth
            self.tests = tests
            self.parallelTests = parallelTests
            self.pairTests = pairTests
            self.mostSteps = mostSteps
            self.runs = runs
            self.seed = seed
            self.mostFindings = max(1, mostFindings)
            self.timeLimit = timeLimit
            self.testTimeLimit = testTimeLimit
        }
    }

    /// The kinds of steps and machines that tests are made of.
    public static let stepNames = SupportedMoves.Machine.allCases.map(\.name) + Move.allCases.map(\.name)

    private let backend: any Backend
    private let options: Options
    private let deadline: UInt64
    private let progress: (Phase, Summary) -> Void
    private let isStopped: () -> Bool
    private let runner: Runner
    /// Runs the written test of a finding, with its schedule.
    private let confirming: Runner
    /// Runs tests with each allocation failing once.
    private let failingRunner: Runner
    /// Whether tests run on ``failingRunner``.
    private var isFailing = false
    /// Runs tests on the rules of SoftKVM alone; nil on other backends.
    private let rules: ModelRunner?
    private let model: SoftKVM.Configuration
    private var summary = Summary()
    private var kinds: Set<Failure.Kind> = []
    /// The number of the last test that was generated.
    private var number = 0

    /// An exploration of a backend.
    ///
    /// - Parameters:
    ///   - model: the version of the interface that judges. If the backend's VMs do not promise to preserve contents,
    ///     their promise replaces the model's.
    ///   - isStopped: asked before each test whether the exploration is to end.
    ///   - progress: called after each test and each finding.
    public init(
        _ backend: any Backend, _ options: Options,
        model: SoftKVM.Configuration = SoftKVM.Configuration(),
        isStopped: @escaping () -> Bool = { false },
        progress: @escaping (Phase, Summary) -> Void = { _, _ in }
    ) {
        self.isStopped = isStopped
        self.model = model
        self.backend = backend
        self.options = options
        self.progress = progress
        let (deadline, overflow) = monotonicNanoseconds().addingReportingOverflow(
            options.timeLimit.wholeNanoseconds)
        self.deadline = overflow ? .max : deadline
        rules =
            options.usesRulesAlone
            ? (backend as? SoftKVM).map { ModelRunner(configuration: $0.configuration) } : nil
        var runs = Runner.Options(
            runs: options.runs, seed: options.seed, timeLimit: options.testTimeLimit, asksModel: false,
            findsOrders: false, announcer: options.announcer, kernelLog: options.kernelLog,
            stopwatch: options.stopwatch, interrupts: options.interrupts)
        confirming = Runner(backend, runs)
        let wantsSweep = options.parallelTests > 0 || options.pairTests > 0
        summary.sweepAbsence = wantsSweep ? Sweep.absence(on: backend) : nil
        if wantsSweep, summary.sweepAbsence == nil { runs.sweep = .search }
        runner = Runner(backend, runs)
        runs.sweep = nil
        runs.failures = .all
        failingRunner = Runner(backend, runs)
    }

    /// Tries everything. It can be called once.
    ///
    /// - Returns: what was tried and found. If the kernel supports none of the steps, no test is run, and
    ///   ``Summary/leftOut`` has the reasons.
    public func run() -> Summary {
        let promise = (try? backend.createVM(.softwareProtected, sharedBit: nil).contentPromise) ?? .preserved
        let predictor = predictor(promise)
        let supported = SupportedMoves(
            promise, predictor, runner, excluded: options.excluded, announcer: options.announcer)
        summary.leftOut = supported.leftOut
        summary.hostFailure = supported.hostFailure
        guard !supported.moves.isEmpty else {
            if summary.hostFailure != nil { summary.end = .stopped }
            return summary
        }
        for phase in Phase.allCases {
            let wanted = phase == .random ? options.tests : options.parallelTests
            switch phase {
            case .scope:
                guard options.depth > 0 else { continue }
                if !isOver { goThroughScope(supported, predictor) }
                if isOver { summary.untried.append((phase, nil)) }
            case .pairs:
                guard options.pairTests > 0 else { continue }
                if !isOver { goThroughPairs(supported, predictor) }
                if isOver { summary.untried.append((phase, nil)) }
            case .random, .parallel:
                var generator = TestGenerator(
                    supported, seed: options.seed ^ (phase == .parallel ? 1 << 63 : 0),
                    mostSteps: options.mostSteps, isSwept: summary.sweepAbsence == nil)
                for number in 0..<wanted {
                    if isOver {
                        summary.untried.append((phase, wanted - number))
                        break
                    }
                    let test = phase == .random ? generator.next() : generator.nextParallel()
                    guard isNextDue() else { continue }
                    attempt(test, phase, predictor)
                    guard phase == .random, options.failsAllocations, !isOver else { continue }
                    isFailing = true
                    attempt(test, phase, predictor)
                    isFailing = false
                }
            }
        }
        return summary
    }

    /// Runs each kind of step concurrently with each kind, including itself.
    private func goThroughPairs(_ supported: SupportedMoves, _ predictor: Predictor) {
        var generator = TestGenerator(supported, seed: options.seed ^ 1 << 62, mostSteps: options.mostSteps)
        let moves = generator.atomicMoves
        for (index, first) in moves.enumerated() {
            for second in moves[index...] {
                var judged = 0
                // Some drafts cannot be judged, because one step removes an object that the other needs.
                for _ in 0..<8 * options.pairTests where !isOver && judged < options.pairTests {
                    guard let test = generator.nextPair(first, second),
                        let prediction = predictor.predict(test)
                    else { continue }
                    judged += 1
                    if isNextDue() { attempt(prediction, .pairs, predictor) }
                }
                if isOver { return }
                if judged > 0 {
                    summary.pairs += 1
                } else {
                    summary.emptyPairs.append("\(first.name) with \(second.name)")
                }
            }
        }
    }

    private func goThroughScope(_ supported: SupportedMoves, _ predictor: Predictor) {
        do throws(Stop) {
            let scope = SmallScope(
                Set(supported.moves), aliases: Set(supported.aliasMoves), on: supported.machines,
                depth: options.depth,
                predictor.configuration)
            let size = try scope.explore { test in
                if isNextDue() { attempt(test, .scope, predictor) }
                return !isOver
            }
            (summary.states, summary.transitions) = (size.states, size.transitions)
        } catch {
            summary.leftOut.append(("the small scope", Oracle.Problem(error).description))
        }
    }

    /// The model of Linux 7.4 with the content promise of this backend's VMs.
    private func predictor(_ promise: ContentPromise) -> Predictor {
        var configuration = model
        if promise != .preserved {
            func fate(_ fate: ContentPromise.Fate) -> ContentPromise.Fate {
                fate == .byFlag ? .undefined : fate
            }
            configuration.contentPromise = ContentPromise(
                toPrivate: fate(promise.toPrivate), toShared: fate(promise.toShared))
        }
        return Predictor(configuration: configuration)
    }

    private var isOver: Bool {
        guard summary.end == .complete else { return true }
        if summary.findings.count >= options.mostFindings {
            summary.end = .findings
        } else if isStopped() || summary.hostFailure != nil {
            summary.end = .stopped
        } else if monotonicNanoseconds() >= deadline {
            summary.end = .time
        }
        return summary.end != .complete
    }

    // MARK: one test

    /// Counts a test that has been generated.
    ///
    /// - Returns: whether it is to run. The number of a test depends on the options and on the kernel's support only, so
    ///   that a later exploration can begin with it.
    private func isNextDue() -> Bool {
        number += 1
        options.announcer?.announces(.test(number: number))
        return number >= options.firstTest
    }

    private func attempt(_ test: LitmusTest, _ phase: Phase, _ predictor: Predictor) {
        guard let prediction = predictor.predict(test) else { return }
        // A sweep is many runs, so it is kept for tests in which the order can matter.
        if phase == .parallel, summary.sweepAbsence == nil, !prediction.test.canDependOnOrder { return }
        attempt(prediction, phase, predictor)
    }

    private func attempt(_ prediction: Predictor.Prediction, _ phase: Phase, _ predictor: Predictor) {
        var prediction = prediction
        if !isFailing { summary.note(prediction.test, in: phase) }
        defer {
            summary.contradicted = runner.contradicted
            summary.firstContradiction = runner.firstContradiction
            progress(phase, summary)
        }
        // A failing step hides later ones, so the test is retried without it.
        while case .wrong(let failure, let how) = judge(prediction, phase) {
            if kinds.insert(failure.kind).inserted {
                add(prediction, failure, how, predictor)
                progress(phase, summary)
            }
            guard !isOver, let step = failure.step, !failure.isOfBlock,
                let rest = predictor.predict(prediction.test.withoutExpectations.without([step])),
                rest.test.steps.count < prediction.test.steps.count
            else { return }
            prediction = rest
        }
    }

    /// How a test with concurrent steps showed a difference, if it was swept.
    private struct Shown {
        var schedule: Schedule?
        /// The kernel functions in which the victim was preempted.
        var functions: [String] = []
    }

    private enum Judgement {
        case fine
        case lawful
        case skipped(String)
        case wrong(Failure, Shown)
    }

    /// - Parameter isConfirming: whether the test runs on the whole backend, not only on its rules.
    private func judge(_ prediction: Predictor.Prediction, isConfirming: Bool = false) -> Judgement {
        let report: Report
        if let rules, !isConfirming, !isFailing {
            options.announcer?.begin(prediction.test)
            report = Report(verdict: rules.run(prediction.test))
        } else {
            report = run(prediction.test, isFailing ? failingRunner : isConfirming ? confirming : runner)
        }
        summary.schedules += report.maps.reduce(0) { $0 + $1.schedules }
        switch report.verdict {
        case .passed: return .fine
        case .skipped(let reason): return .skipped(reason)
        case .hostFailed(let failure):
            let others = failure.step.flatMap { prediction.others[$0] } ?? []
            let isLawful = others.contains {
                if case .errno(failure.errno.rawValue, _) = $0 { true } else { false }
            }
            if !isLawful { summary.hostFailure = summary.hostFailure ?? failure }
            return isLawful ? .lawful : .skipped(failure.description)
        case .failed(let failure):
            let others = failure.step.flatMap { prediction.others[$0] } ?? []
            guard case .step(_, let seen, nil) = failure.deviation, others.contains(seen) else {
                return .wrong(failure, Shown(schedule: report.schedule, functions: report.functions))
            }
            return .lawful
        }
    }

    /// Only a failure needs line numbers, so only then is the test written as text.
    private func run(_ test: LitmusTest, _ runner: Runner) -> Report {
        var report = runner.report(Source(unwritten: test))
        guard case .failed(let failure) = report.verdict else { return report }
        if let source = try? Source(test) {
            report.verdict = .failed(failure.placed(in: source))
        } else {
            report.verdict = .skipped("it has no written form")
        }
        return report
    }

    /// Runs a test, and counts it.
    private func judge(_ prediction: Predictor.Prediction, _ phase: Phase) -> Judgement {
        let judgement = judge(prediction)
        switch judgement {
        case .fine:
            if phase != .scope, prediction.test.steps.count > summary.sample?.test.steps.count ?? 0 {
                summary.sample = try? Source(prediction.test)
            }
        case .lawful: summary.lawful += 1
        case .skipped(let reason): summary.skipped[reason, default: 0] += 1
        case .wrong: break
        }
        return judgement
    }

    // MARK: a finding

    private func add(
        _ prediction: Predictor.Prediction, _ failure: Failure, _ how: Shown, _ predictor: Predictor
    ) {
        let attempts = attempts(for: prediction)
        // The last test that showed the finding, with its failure.
        var smallest = (prediction, failure, how)
        let shrinker = Shrinker { test in
            guard !self.isOver, let candidate = predictor.predict(test) else { return false }
            for _ in 0..<attempts {
                guard case .wrong(let now, let how) = self.judge(candidate) else { continue }
                guard now.kind == failure.kind else { return false }
                smallest = (candidate, now, how)
                return true
            }
            return false
        }
        _ = shrinker.shrink(prediction.test.withoutExpectations)
        var (last, shown, how) = smallest
        guard let source = written(last, shown, how.schedule) else { return }
        last = Predictor.Prediction(test: source.test, others: last.others)
        var seen = 0
        var runs = 0
        // A run with failing allocations is one for each allocation.
        for _ in 0..<(isFailing ? 2 : attempts == 1 ? 10 : 100) where seen == 0 || !isOver {
            runs += 1
            guard case .wrong(let now, let again) = judge(last, isConfirming: true) else { continue }
            seen += 1
            shown = now
            if !again.functions.isEmpty { how.functions = again.functions }
        }
        summary.findings.append(
            Finding(
                source: source, failure: shown, seen: seen, runs: runs, found: number,
                steps: prediction.test.steps.count, functions: how.functions))
        options.announcer?.write(.difference(text: source.test.text))
    }

    /// The finding's test, named after what it shows, with the needs of other kernels, and with the schedule that showed it.
    private func written(
        _ prediction: Predictor.Prediction, _ failure: Failure, _ schedule: Schedule?
    ) -> Source? {
        guard let source = try? Source(prediction.test) else { return nil }
        var test = prediction.test
        test.name = source.headline(failure)
        test.needs = test.impliedNeeds
        if let schedule { test.take(schedule, failure) }
        return (try? Source(test)) ?? source
    }

    /// The number of runs after which a test counts as passed: one if it always failed before.
    private func attempts(for prediction: Predictor.Prediction) -> Int {
        for _ in 0..<5 {
            guard case .wrong = judge(prediction) else { return 20 }
        }
        return 1
    }
}

extension Failure {
    /// The failure with its line in the text.
    fileprivate func placed(in source: Source) -> Failure {
        guard let step, source.places.indices.contains(step) else {
            var failure = self
            failure.injected = injected.map { $0.placed(in: source) }
            return failure
        }
        var failure = Failure(deviation, step: step, line: source.places[step].line, pages: pages)
        failure.injected = injected.map { $0.placed(in: source) }
        return failure
    }
}

extension LitmusTest {
    /// The test without its expectations.
    var withoutExpectations: LitmusTest {
        var test = self
        test.body = body.map { entry in
            switch entry {
            case .step(let step): .step(Step(step.actor, step.action, onFault: step.onFault))
            case .parallel(let block): .parallel(Parallel(steps: block.steps))
            }
        }
        return test
    }

    /// Whether the order of concurrent steps can matter: a block has several outcomes, or two actors change the states or the
    /// pages of one file.
    fileprivate var canDependOnOrder: Bool {
        body.contains { entry in
            guard case .parallel(let block) = entry, block.actors.count > 1 else {
                if case .parallel(let block) = entry { return block.clauses.count > 1 }
                return false
            }
            let changing = block.steps.filter(\.action.changesPages)
            return block.clauses.count > 1 || Set(changing.map(\.actor)).count > 1
        }
    }

    /// Writes a schedule into its block, with the outcome that it showed.
    fileprivate mutating func take(_ schedule: Schedule, _ failure: Failure) {
        var number = 0
        for index in body.indices {
            guard case .parallel(var block) = body[index] else { continue }
            if number == schedule.block {
                block.preemption = schedule.preemption
                if case .outcome(let results, _, _, _) = failure.deviation {
                    let own = Set(block.steps.compactMap(\.result))
                    block.preemption?.outcome = results.filter { own.contains($0.name) }.map {
                        Clause.Condition(result: $0.name, outcome: $0.outcome)
                    }
                }
                body[index] = .parallel(block)
            }
            number += 1
        }
    }

    /// The needs without which the test means nothing on other kernels.
    fileprivate var impliedNeeds: [Need] {
        var needs: [Need] = []
        func add(_ need: Need) { if !needs.contains(need) { needs.append(need) } }
        for step in steps {
            guard case .hold(_, let kind, _) = step.action else { continue }
            add(.references)
            if kind != .vmsplice { add(.holder(kind)) }
        }
        return needs
    }
}

extension Action {
    /// Whether it changes the states of pages, or frees pages.
    fileprivate var changesPages: Bool {
        switch self {
        case .convert, .hypercall, .punch, .setAttributes: true
        default: false
        }
    }
}
