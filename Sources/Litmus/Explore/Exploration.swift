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
    /// The kinds of steps and machines that tests are made of.
    public static let stepNames = SupportedMoves.Machine.allCases.map(\.name) + Move.allCases.map(\.name)

    private let backend: any Backend
    let options: Options
    private let deadline: UInt64
    private let progress: (Phase, Summary) -> Void
    private let isStopped: () -> Bool
    private let runner: Runner
    /// Runs the written test of a finding, with its schedule.
    private let confirming: Runner
    /// Runs tests with each allocation failing once.
    private let failingRunner: Runner
    /// Whether tests run on ``failingRunner``.
    var isFailing = false
    /// Runs tests on the rules of SoftKVM alone; nil on other backends.
    private let rules: ModelRunner?
    private let model: SoftKVM.Configuration
    var summary = Summary()
    private var kinds: Set<Failure.Kind> = []
    /// The number of the last test that was generated.
    private(set) var number = 0

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

    var isOver: Bool {
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
    struct Shown {
        var schedule: Schedule?
        /// The kernel functions in which the victim was preempted.
        var functions: [String] = []
    }

    enum Judgement {
        case fine
        case lawful
        case skipped(String)
        case wrong(Failure, Shown)
    }

    /// - Parameter isConfirming: whether the test runs on the whole backend, not only on its rules.
    func judge(_ prediction: Predictor.Prediction, isConfirming: Bool = false) -> Judgement {
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
    /// Whether the order of concurrent steps can matter: a block has several outcomes, or one actor changes the states or the
    /// pages of files, and another one changes or accesses pages.
    fileprivate var canDependOnOrder: Bool {
        body.contains { entry in
            guard case .parallel(let block) = entry else { return false }
            if block.clauses.count > 1 { return true }
            let changing = Set(block.steps.filter(\.action.changesPages).map(\.actor))
            let using = Set(block.steps.filter(\.action.usesPages).map(\.actor))
            return !changing.isEmpty && changing.union(using).count > 1
        }
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

    /// Whether it accesses pages, or takes references on them.
    fileprivate var usesPages: Bool {
        if case .hold = self { true } else { isAccess }
    }
}
