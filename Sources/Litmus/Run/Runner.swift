// SPDX-License-Identifier: MIT
public import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// Runs tests on a backend.
///
/// Steps outside of parallel blocks run in the order of the text, so it does not matter which host thread performs
/// them. On ``SoftKVM`` a parallel block is explored exhaustively. On other backends it runs many times with one thread
/// for each actor, and the outcomes are judged by the test's clauses and by the interleavings of the model.
///
/// The machine of a real kernel is used again for the next test if the last one left nothing behind. A verdict other
/// than ``Verdict/passed`` always comes from a machine that no other test has used.
public struct Runner: Sendable {
    /// How tests are run.
    public struct Options: Sendable {
        /// Runs of a test with parallel blocks if interleavings are not explored. Minimum 1, default 1000.
        public var runs: Int
        /// Seed of the delays with which actors of a parallel block start their steps. Default 0.
        public var seed: UInt64
        /// The time limit of a test with all its runs. A test with parallel blocks then ends with what it has seen;
        /// any other test fails. Default 60 s.
        public var timeLimit: Duration
        /// The additional time that the current run of a test with parallel blocks gets after the time limit, before it
        /// counts as hanging. Default 30 s.
        public var hangLimit: Duration
        /// Signals that end a test early; nil for none.
        public var interrupts: SignalDescriptor?
        /// Called on an unspecified thread after each run of a test with parallel blocks, with the number of completed
        /// runs. Not called if interleavings are explored.
        public var progress: (@Sendable (_ runs: Int) -> Void)?
        /// Whether failures and outcomes of parallel blocks are compared with the model, and not only judged by the
        /// test's clauses. Default true. Clauses that were written by the model need no second judgement.
        public var asksModel: Bool
        /// Whether reports have an order for each outcome of a parallel block (``BlockReport/Outcome/order``). Default true.
        public var findsOrders: Bool
        /// The outcome of a parallel block whose run is recorded; nil, the default, records any failing one.
        public var witness: OutcomePattern?
        /// Which schedules of parallel blocks are run in place of random starting times. Nil, the default, takes those that the
        /// test names. Ignored where interleavings are explored.
        public var sweep: Sweep?
        /// Which allocations of the kernel fail, one in each run. Nil, the default, is none. Sweeps, recording and
        /// ``runs`` are ignored then.
        public var failures: AllocationFailures?
        /// Makes them fail.
        var failing: any AllocationFailing = LinuxAllocationFailures()
        /// Records the runs of tests. Nil, the default, records nothing and costs nothing.
        public var recorder: (any RunRecorder)?
        /// Announces each test before it runs. Nil, the default, announces none.
        public var announcer: Announcer?
        /// The log of the running kernel: a test fails if the kernel reports a bug of its own meanwhile. Nil, the default,
        /// ignores it.
        public var kernelLog: KernelLog?
        /// Measures where tests without parallel blocks spend their time. Nil, the default, costs nothing.
        public var stopwatch: Stopwatch?

        /// Options with the defaults given at each property.
        public init(
            runs: Int = 1000, seed: UInt64 = 0, timeLimit: Duration = .seconds(60),
            hangLimit: Duration = .seconds(30), asksModel: Bool = true, findsOrders: Bool = true,
            witness: OutcomePattern? = nil, sweep: Sweep? = nil, failures: AllocationFailures? = nil,
            recorder: (any RunRecorder)? = nil, announcer: Announcer? = nil, kernelLog: KernelLog? = nil,
            stopwatch: Stopwatch? = nil,
            interrupts: SignalDescriptor? = nil, progress: (@Sendable (_ runs: Int) -> Void)? = nil
        ) {
            self.announcer = announcer
            self.kernelLog = kernelLog
            self.stopwatch = stopwatch
            self.hangLimit = hangLimit
            self.interrupts = interrupts
            self.progress = progress
            self.asksModel = asksModel
            self.findsOrders = findsOrders
            self.witness = witness
            self.sweep = sweep
            self.failures = failures
            self.recorder = recorder
            self.runs = max(1, runs)
            self.seed = seed
            self.timeLimit = timeLimit
        }
    }

    private let facts: BackendFacts
    private let options: Options
    /// Threads with the machines that tests have left; copies of this runner share them.
    private let threads = TestThreads()
    private let contradictions = Contradictions()

    /// Number of tests that failed on a used machine and passed on a new one. Either an earlier test left something
    /// unnoticed, or the failure is rare. After the first such test every test gets a new machine.
    public var contradicted: Int { contradictions.count }
    /// The first of those tests; nil if there is none.
    public var firstContradiction: Contradiction? { contradictions.first }

    /// A runner on this backend. Copies of a runner share its machines and threads.
    public init(_ backend: any Backend, _ options: Options = Options()) {
        facts = BackendFacts(backend)
        self.options = options
    }

    /// Runs the test as ``report(_:)`` does, and returns the verdict alone.
    public func run(_ source: Source) -> Verdict { report(source).verdict }

    /// Runs the test, for at most the time that the options allow.
    ///
    /// At the time limit a test with parallel blocks finishes the run in progress and reports what it has
    /// seen. A run that does not end is a failure: its vCPUs are kicked, and a thread that is still inside a
    /// system call one second later is abandoned.
    ///
    /// A report of the kernel about a bug of its own is a failure, whatever the steps have answered.
    public func report(_ source: Source) -> Report {
        options.announcer?.begin(source.test)
        var report = reportOfSteps(source)
        if let seen = options.kernelLog?.newReports().first {
            report.verdict = .failed(Failure(.kernel(seen)))
        }
        return report
    }

    private func reportOfSteps(_ source: Source) -> Report {
        let result = Mutex<Report?>(nil)
        let thread: TestThread
        do throws(HostFailure) { thread = try threads.take() } catch {
            return Report(verdict: .hostFailed(error))
        }
        let deadline = thread.deadline
        let (facts, options, contradictions) = (facts, options, contradictions)
        let box = Shared(result)
        let program = Program(source.test)
        let tally = Tally(program)
        thread.begin { pool in
            let report = Self.report(
                source, program, facts, options, deadline, tally, pool, contradictions)
            box.value.withLock { $0 = report }
        }
        var waited = options.timeLimit
        var wakeup = thread.wait(timeout: waited, interrupts: options.interrupts)
        if case .signalled = wakeup {
        } else if !program.blocks.isEmpty || options.failures != nil {
            deadline.stop(Self.reason(wakeup, options))
            if case .interrupted = wakeup {
                waited = Self.interruptedLimit
            } else {
                waited = options.hangLimit
            }
            wakeup = thread.wait(timeout: waited, interrupts: options.interrupts)
        }
        if case .signalled = wakeup {
            if deadline.stop == nil { threads.returnToPool(thread) } else { thread.end() }
            return box.value.withLock { $0 }
                ?? Report(verdict: .failed(Failure(.machine(reason: "the run ended without a report"))))
        }
        let steps = deadline.steps
        let stop = deadline.stop ?? Self.reason(wakeup, options)
        thread.abandon(after: .seconds(1))
        let report = tally.report(Judge(source), wanted: options.runs, failure: nil, stop)
        if case .interrupted(let signal) = stop {
            guard tally.runs > 0 else {
                return Report(verdict: .skipped("interrupted by signal \(signal) before it ended"))
            }
            return report
        }
        let runs =
            program.blocks.isEmpty ? nil : Failure.Runs(done: tally.runs, wanted: options.runs)
        var late = program.blocks.isEmpty ? Report(verdict: .passed) : report
        let limit = program.blocks.isEmpty ? waited : options.timeLimit + waited
        late.verdict = .failed(Failure(.hang(steps: steps, limit: limit, runs: runs)))
        return late
    }

    /// The time that a current run gets after a signal.
    private static let interruptedLimit = Duration.seconds(2)

    private static func reason(_ wakeup: EventDescriptor.Wakeup, _ options: Options) -> Cut.Reason {
        if case .interrupted(let signal) = wakeup { return .interrupted(signal: signal) }
        return .timeLimit(options.timeLimit)
    }

    private static func report(
        _ source: Source, _ program: Program, _ facts: BackendFacts, _ options: Options,
        _ deadline: TestDeadline, _ tally: Tally, _ pool: MachinePool, _ contradictions: Contradictions
    ) -> Report {
        do throws(Stop) {
            let isModel = facts.soft?.configuration.isModelOfLinux74 == true
            let facts = try facts.configured(for: source.test)
            for need in source.test.needs {
                if let reason = try Needs(facts.sound.backend, source.test.vm).absence(of: need) {
                    throw .skip(reason)
                }
            }
            if let failures = options.failures {
                guard facts.soft == nil else {
                    throw .skip("no allocation can be made to fail: SoftKVM makes none in a kernel")
                }
                var search = FailureSearch(source, facts, deadline, options)
                return try search.report(failures)
            }
            guard !program.blocks.isEmpty else {
                let run = SequentialRun(
                    source: source, facts: facts, deadline: deadline, options: options,
                    contradictions: contradictions)
                return Report(verdict: try run.verdict(pool))
            }
            if let soft = facts.soft {
                var interleavings = Interleavings(
                    source, on: soft.configuration, deadline, keepsPart: true)
                let result = try interleavings.explore(findsOrders: options.findsOrders)
                if let recorder = options.recorder {
                    try interleavings.recordOne(recorder, on: soft, with: options.witness)
                }
                var report = Judge(source).report(exact: result)
                if options.sweep != nil { report.sweepAbsence = "SoftKVM explores every interleaving" }
                if options.asksModel {
                    report.compare(program) { isModel ? result : try? source.explored(deadline) }
                }
                return report
            }
            let model =
                options.asksModel ? try? source.explored(deadline, findsOrders: options.findsOrders) : nil
            tally.judge(by: model)
            let written = source.test.schedules
            var report: Report
            if let sweep = options.sweep ?? (written.isEmpty ? nil : .these(written)) {
                if let reason = Sweeper.absence() {
                    report = try Sampler(source, facts, deadline, options, tally).report()
                    report.sweepAbsence = "\(reason). Actors start at random times instead"
                } else {
                    var sweeper = try Sweeper(source, facts, deadline, options, tally, model)
                    report = try sweeper.report(sweep)
                }
            } else {
                report = try Sampler(source, facts, deadline, options, tally).report()
            }
            report.compare(program) { model }
            return report
        } catch {
            return Report(verdict: Source.verdict(error))
        }
    }
}

/// A mutex that an abandoned thread may keep.
private final class Shared<Value: ~Copyable & Sendable>: Sendable {
    let value: Value
    init(_ value: consuming Value) { self.value = value }
}

/// Why a test ends without a verdict from its steps.
enum Stop: Error {
    /// The backend lacks what the test needs.
    case skip(String)
    /// The test cannot be performed, or not after the outcome of an earlier step.
    case broken(String)
    /// A particular step cannot be performed.
    case brokenStep(Failure)
    /// The host ran out of a resource.
    case host(HostFailure)
}

/// The answer of a step.
struct Observation: Hashable, CustomStringConvertible {
    var outcome: StepOutcome
    /// In the model: the contents are undefined, and a kernel may show any other byte.
    var isAnyByte = false
    /// An effect that is never permitted and that no outcome expresses.
    var oddity: String?
    /// The conversions by the monitor's converter for this step, in order.
    var conversions: [FileConversion] = []

    init(_ outcome: StepOutcome, oddity: String? = nil) {
        self.outcome = outcome
        self.oddity = oddity
    }

    var description: String { "\(outcome)" + (oddity.map { ", and \($0)" } ?? "") }
}

extension Source {
    /// Calls `body`, and adds the place of the step to an error.
    func attempt<R>(_ index: Int, _ step: Step, _ body: () throws(Stop) -> R) throws(Stop) -> R {
        do throws(Stop) {
            return try body()
        } catch {
            guard case .broken(let reason) = error else { throw error }
            throw .brokenStep(
                Failure(.impossible(step, reason: reason), step: index, line: places[index].line))
        }
    }

    /// Performs a whole step.
    ///
    /// - Returns: nil if the outcome is an expected one.
    func perform(
        _ index: Int, _ step: Step, _ world: World, isRacing: Bool = false,
        _ result: (StepOutcome) -> Void = { _ in }
    ) throws(Stop) -> Failure? {
        let began = world.isRecording ? world.backend.now() : 0
        let seen = try attempt(index, step) { () throws(Stop) in try world.perform(step, isRacing: isRacing) }
        if world.isRecording {
            world.record(step, line: places[index].line, seen, began: began)
        }
        if let failure = hostFailure(seen, index, step, world) { throw .host(failure) }
        result(seen.outcome)
        return judge(seen, index, step, world.pages)
    }

    /// The failure of a step; nil if the outcome is an expected one.
    func judge(
        _ seen: Observation, _ index: Int, _ step: Step, _ pages: (Step) -> [String]
    ) -> Failure? {
        guard !step.accepts(seen) else { return nil }
        return Failure(
            .step(step, seen: seen.outcome, oddity: seen.oddity), step: index,
            line: places[index].line, pages: pages(step.call(endingWith: seen.outcome)))
    }

    static func verdict(_ stop: Stop) -> Verdict {
        switch stop {
        case .skip(let reason): .skipped(reason)
        case .broken(let reason): .failed(Failure(.machine(reason: reason)))
        case .brokenStep(let failure): .failed(failure)
        case .host(let failure): .hostFailed(failure)
        }
    }

    /// All endings in the model.
    ///
    /// - Parameter model: the configuration, apart from what the test's header sets. The default is the model of Linux
    ///   7.4.
    func explored(
        on model: SoftKVM.Configuration = SoftKVM.Configuration(), _ deadline: TestDeadline,
        mostPieces: Int = Interleavings.mostPieces, findsOrders: Bool = false
    ) throws(Stop) -> Interleavings.Result {
        var interleavings = Interleavings(
            self, on: model.configured(for: test), deadline, mostPieces: mostPieces)
        return try interleavings.explore(findsOrders: findsOrders)
    }
}

extension BackendFacts {
    /// The backend configured as the test's header demands.
    func configured(for test: LitmusTest) throws(Stop) -> BackendFacts {
        let settings = test.settings
        if test.hasTwoAliases, settings.isEmpty, backend is LinuxKVM || backend is PerVMAttributesKVM {
            return withAliases
        }
        guard !settings.isEmpty else { return self }
        guard let soft else {
            let rest =
                settings.attributeRuns != nil || settings.design != nil || settings.keptDirection != nil
            if rest { throw .skip("only SoftKVM can be configured by `kernel`") }
            guard try isInPlaceOff() else { throw .skip("this kernel converts in place") }
            return self
        }
        return BackendFacts(SoftKVM(soft.configuration.configured(for: test)))
    }
}

extension SoftKVM.Configuration {
    /// The configuration with the settings of the test's header.
    func configured(for test: LitmusTest) -> SoftKVM.Configuration {
        let settings = test.settings
        var configuration = self
        if settings.isInPlaceOff { configuration.inPlaceConversion = false }
        if let runs = settings.attributeRuns { configuration.maximumAttributeRuns = runs }
        // A design that was chosen on the command line has precedence.
        if let design = settings.design, configuration.contentDesign == nil {
            configuration.contentDesign = design
        }
        if let kept = settings.keptDirection {
            configuration.contentPromise = ContentPromise(
                toPrivate: kept == .private ? .preserved : .undefined,
                toShared: kept == .shared ? .preserved : .undefined)
        }
        return configuration
    }
}

extension Step {
    func accepts(_ seen: Observation) -> Bool {
        guard seen.oddity == nil else { return false }
        switch (expectation, seen.outcome) {
        case (.unspecified, .value), (.unspecified, .ok), (.named, _): return true
        // The page is poisoned whether the kernel could release its contents (0) or not (EBUSY).
        case (.unspecified, .errno(Errno.resourceBusy.rawValue, nil)) where action.isPoison: return true
        case (.unspecified, _): return false
        case (.anyOf(let outcomes), let seen): return outcomes.contains { $0.covers(seen) }
        }
    }
}

extension Action {
    /// Whether it makes the memory of a page fail.
    fileprivate var isPoison: Bool { if case .advise(_, .hwPoison) = self { true } else { false } }
}

extension StepOutcome {
    /// `SIGBUS` and `fault` without a place match any place. Everything else must be equal.
    func covers(_ seen: StepOutcome) -> Bool {
        switch (self, seen) {
        case (.sigbus(nil), .sigbus): return true
        case (.fault(let wanted, nil), .fault(let state, _)): return wanted == state
        // EHWPOISON comes with a memory fault, too. Only shared pages can be poisoned.
        case (.fault(.shared, let place), .errno(Errno.hardwarePoisoned.rawValue, let seen)):
            return place == nil || place == seen
        case (.errno(Errno.hardwarePoisoned.rawValue, nil), .errno(Errno.hardwarePoisoned.rawValue, _)):
            return true
        default: break
        }
        return self == seen
    }
}
