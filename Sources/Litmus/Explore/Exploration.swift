public import MiniVMM
public import SoftKVM

/// Looks for what a kernel answers and the model does not.
///
/// Three things are tried: all that can be done to two pages in a few steps (``SmallScope``), random tests of one step after
/// the other, and random tests with steps at once. What comes to something that the model of Linux 7.4 never comes to is
/// made smaller and is a ``Finding``.
///
/// One thread; a test runs as ``Runner`` runs it.
public final class Exploration {
    public struct Options: Sendable {
        /// Steps of the small scope; 0 leaves it out.
        public var depth: Int
        /// Random tests, and how many of them have steps at once.
        public var tests: Int
        public var parallelTests: Int
        /// Most steps of a random test before something happens at once.
        public var mostSteps: Int
        /// Runs of a test with steps at once, on a kernel whose interleavings cannot be gone through.
        public var runs: Int
        public var seed: UInt64
        /// Findings of different kinds after which it ends.
        public var mostFindings: Int
        /// Nanoseconds after which no other test is begun.
        public var timeLimit: UInt64
        /// Nanoseconds for one test.
        public var testTimeLimit: UInt64

        public init(
            depth: Int = 2, tests: Int = 1000, parallelTests: Int = 100, mostSteps: Int = 12, runs: Int = 100,
            seed: UInt64 = 0, mostFindings: Int = 1, timeLimit: UInt64 = 60_000_000_000,
            testTimeLimit: UInt64 = 10_000_000_000
        ) {
            self.depth = depth
            self.tests = tests
            self.parallelTests = parallelTests
            self.mostSteps = mostSteps
            self.runs = runs
            self.seed = seed
            self.mostFindings = max(1, mostFindings)
            self.timeLimit = timeLimit
            self.testTimeLimit = testTimeLimit
        }
    }

    /// What tests are made of, one after the other.
    public enum Phase: String, Sendable, CaseIterable {
        /// All of a few steps.
        case scope
        /// Random steps, one after the other.
        case random
        /// Random steps at once.
        case parallel
    }

    /// What was tried, and what came of it.
    public struct Summary: Sendable {
        public struct Count: Sendable, Equatable {
            public var tests = 0
            public var steps = 0
        }
        public var counts: [Phase: Count] = [:]
        /// Of the small scope.
        public var states = 0
        public var transitions = 0
        /// How often each kind of step came to each kind of outcome, as the model has it.
        public var coverage: [String: [String: Int]] = [:]
        /// Kinds of steps that this kernel cannot do, with its reason.
        public var leftOut: [(move: String, reason: String)] = []
        /// Tests whose answer was another one that a kernel is free to give.
        public var lawful = 0
        /// Tests that the kernel could not say anything about, by reason.
        public var skipped: [String: Int] = [:]
        public var findings: [Finding] = []
        /// It ended by its time limit.
        public var isCutShort = false
        /// The longest random test that went as the model has it, to be shown where nothing was found.
        public var sample: Source?

        public var tests: Int { counts.values.reduce(0) { $0 + $1.tests } }
    }

    private let kernel: any KVMInterface
    private let options: Options
    private let deadline: UInt64
    private let progress: (Phase, Summary) -> Void
    private let runner: Runner
    private let model: SoftKVM.Configuration
    private var summary = Summary()
    private var kinds: Set<String> = []

    /// - Parameters:
    ///   - model: what judges; what the kernel's VMs promise about contents goes before its own.
    ///   - progress: is told after each test.
    public init(
        _ kernel: any KVMInterface, _ options: Options,
        model: SoftKVM.Configuration = SoftKVM.Configuration(),
        progress: @escaping (Phase, Summary) -> Void = { _, _ in }
    ) {
        self.model = model
        self.kernel = kernel
        self.options = options
        self.progress = progress
        let (deadline, overflow) = monotonicNanoseconds().addingReportingOverflow(options.timeLimit)
        self.deadline = overflow ? .max : deadline
        runner = Runner(
            kernel, .init(runs: options.runs, seed: options.seed, timeLimit: options.testTimeLimit))
    }

    /// - Returns: nil if the kernel can do nothing that tests are made of; then the reasons are all that is in the summary.
    public func run() -> Summary {
        let palette = palette()
        guard !palette.moves.isEmpty else { return summary }
        let predictor = predictor()
        for phase in Phase.allCases where !isOver {
            switch phase {
            case .scope:
                let scope = SmallScope(Set(palette.moves), depth: options.depth, predictor.configuration)
                let size = try? scope.explore { test in
                    self.try(test, phase, predictor)
                    return !isOver
                }
                summary.states = size?.states ?? 0
                summary.transitions = size?.transitions ?? 0
            case .random, .parallel:
                var generator = TestGenerator(
                    palette, seed: options.seed ^ (phase == .parallel ? 1 << 63 : 0),
                    mostSteps: options.mostSteps)
                for _ in 0..<(phase == .random ? options.tests : options.parallelTests) {
                    if isOver { break }
                    self.try(phase == .random ? generator.next() : generator.nextParallel(), phase, predictor)
                }
            }
        }
        return summary
    }

    private var isOver: Bool {
        if summary.findings.count >= options.mostFindings { return true }
        if monotonicNanoseconds() >= deadline { summary.isCutShort = true }
        return summary.isCutShort
    }

    // MARK: one test

    private func `try`(_ test: LitmusTest, _ phase: Phase, _ predictor: Predictor) {
        guard let prediction = predictor.predict(test) else { return }
        summary.counts[phase, default: .init()].tests += 1
        summary.counts[phase, default: .init()].steps += prediction.test.steps.count
        note(prediction.test)
        switch judge(prediction) {
        case .fine:
            if phase != .scope, prediction.test.steps.count > summary.sample?.test.steps.count ?? 0 {
                summary.sample = prediction.source
            }
        case .lawful: summary.lawful += 1
        case .skipped(let reason): summary.skipped[reason, default: 0] += 1
        case .wrong(let failure):
            if kinds.insert(failure.kind).inserted { finding(prediction, failure, predictor) }
        }
        progress(phase, summary)
    }

    private enum Judgement {
        case fine
        case lawful
        case skipped(String)
        case wrong(Failure)
    }

    private func judge(_ prediction: Predictor.Prediction) -> Judgement {
        switch runner.run(prediction.source) {
        case .passed: return .fine
        case .skipped(let reason): return .skipped(reason)
        case .failed(let failure):
            let others = failure.step.flatMap { prediction.others[$0] } ?? []
            return others.contains { $0.description == failure.seen } ? .lawful : .wrong(failure)
        }
    }

    private func note(_ test: LitmusTest) {
        for step in test.steps {
            let outcomes: [String] =
                switch step.expectation {
                case .unsaid: ["ok"]
                case .anyOf(let outcomes): outcomes.map(\.kind)
                case .named: ["at once"]
                }
            for outcome in outcomes { summary.coverage[step.kind, default: [:]][outcome, default: 0] += 1 }
        }
    }

    // MARK: a finding

    private func finding(
        _ prediction: Predictor.Prediction, _ failure: Failure, _ predictor: Predictor
    ) {
        let attempts = attempts(for: prediction)
        // The last test that showed it, with what it showed.
        var smallest = (prediction, failure)
        let shrinker = Shrinker { test in
            guard monotonicNanoseconds() < self.deadline, let candidate = predictor.predict(test) else {
                return false
            }
            for _ in 0..<attempts {
                guard case .wrong(let now) = self.judge(candidate) else { continue }
                guard now.kind == failure.kind else { return false }
                smallest = (candidate, now)
                return true
            }
            return false
        }
        _ = shrinker.shrink(prediction.test.unsaid)
        var (last, shown) = smallest
        var test = last.test
        test.name = last.source.headline(shown)
        test.needs = test.impliedNeeds
        if let source = try? Source(test) { last = Predictor.Prediction(source: source, others: last.others) }
        let runs = attempts == 1 ? 10 : 100
        var seen = 0
        for _ in 0..<runs where monotonicNanoseconds() < deadline || seen == 0 {
            guard case .wrong(let now) = judge(last) else { continue }
            seen += 1
            shown = now
        }
        summary.findings.append(
            Finding(
                source: last.source, failure: shown, seen: seen, runs: runs, found: summary.tests,
                steps: prediction.test.steps.count))
    }

    /// How often a test is to be run before it is said not to show it: once where it always did.
    private func attempts(for prediction: Predictor.Prediction) -> Int {
        for _ in 0..<5 {
            guard case .wrong = judge(prediction) else { return 20 }
        }
        return 1
    }

    // MARK: the kernel

    /// The moves that the kernel does, each tried.
    private func palette() -> TestGenerator.Palette {
        var palette = TestGenerator.Palette(moves: [])
        for machine in TestGenerator.Machine.allCases {
            guard let source = try? Source(parsing: "test \"x\"\n\(machine.header)\nhost read 0") else {
                continue
            }
            if case .skipped(let reason) = runner.run(source) {
                summary.leftOut.append((machine.name, reason))
            } else {
                palette.machines.insert(machine)
            }
        }
        let predictor = predictor()
        let promise = promise
        palette.knowsContents = promise.isKnown
        for move in Move.allCases {
            guard var test = Self.example(of: move) else { continue }
            if move == .ask, [promise.toPrivate, promise.toShared].contains(.byFlag) {
                summary.leftOut.append(
                    (move.name, "each call says what becomes of contents, and in Linux 7.4 none does"))
                continue
            }
            if let reason = absence(of: test, predictor) {
                summary.leftOut.append((move.name, reason))
                continue
            }
            palette.moves.append(move)
            guard palette.machines.contains(.twoDoors), !test.hasTwoDoors else {
                palette.doorMoves += test.hasTwoDoors ? [move] : []
                continue
            }
            test.hasTwoDoors = true
            if let reason = absence(of: test, predictor) {
                summary.leftOut.append(("\(move.name) with doors two", reason))
            } else {
                palette.doorMoves.append(move)
            }
        }
        return palette
    }

    /// Why a kernel can say nothing about a test; nil if it can.
    private func absence(of test: LitmusTest, _ predictor: Predictor) -> String? {
        var test = test
        // A hold means nothing where no references are counted.
        let holds = test.steps.contains { if case .hold = $0.action { true } else { false } }
        if holds { test.needs.append(.references) }
        let needsCPU = test.steps.contains { if case .vcpu = $0.role { true } else { false } }
        if needsCPU, case .missing(let message) = SoftKVM(model).engineStatus {
            return "the model has no CPU here: \(message)"
        }
        guard let prediction = predictor.predict(test), case .skipped(let reason) = judge(prediction) else {
            return nil
        }
        return reason
    }

    /// A short test in which there is such a step.
    private static func example(of move: Move) -> LitmusTest? {
        if move == .again { return implicit }
        for seed in 0..<64 as Range<UInt64> {
            var draft = Draft(seed: seed)
            // What it could be about.
            if let before = move.subject?.step(in: &draft) { draft.append(before) }
            guard let step = move.step(in: &draft) else { continue }
            draft.append(step)
            return draft.test
        }
        return nil
    }

    /// A vCPU stands before a page of the other kind, and makes its access once the page is converted.
    private static let implicit: LitmusTest = {
        var test = LitmusTest(name: "again", hasTwoDoors: true, memory: [Memory(pages: 1, initial: .private)])
        let conversion = Conversion(Extent(pages: 0...0), to: .shared)
        test.body = [
            .step(Step(.vcpu(0), .read(Place(.shared, page: 0)))),
            .step(Step(.host(0), .convert(conversion))),
            .step(Step(.vcpu(0), .again)),
        ]
        return test
    }()

    /// The model of Linux 7.4, with the contents that this kernel's VMs promise.
    private func predictor() -> Predictor {
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

    private var promise: ContentPromise {
        (try? kernel.createVM(.softwareProtected, sharedBit: nil).contentPromise) ?? .preserved
    }
}

extension LitmusTest {
    /// Without its answers.
    fileprivate var unsaid: LitmusTest {
        var test = self
        test.body = body.map { entry in
            switch entry {
            case .step(let step): .step(Step(step.role, step.action))
            case .parallel(let block): .parallel(Parallel(steps: block.steps))
            }
        }
        return test
    }

    /// What another kernel must have for the test to mean anything there.
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

extension Step {
    /// The actor without its number, and the word of the action.
    fileprivate var kind: String {
        let role =
            switch role {
            case .host: "host"
            case .vcpu: "vcpu"
            case .child: "child"
            }
        return role + " " + (action.description.split(separator: " ").first.map(String.init) ?? "")
    }
}

extension StepOutcome {
    /// Without numbers.
    fileprivate var kind: String {
        switch self {
        case .value: "byte"
        default: description.split(separator: " ").first.map(String.init) ?? ""
        }
    }
}
