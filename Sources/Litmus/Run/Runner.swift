// SPDX-License-Identifier: MIT
@_exported public import LitmusModel
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
        let tally = Tally()
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
            guard !source.test.vm.isConfidential || facts.soft != nil else {
                throw .skip("vm \(source.test.vm.word): only the model has such a VM (--backend soft)")
            }
            let isModel = facts.soft?.configuration.isModelOfLinux74 == true
            let facts = try facts.configured(for: source.test)
            for need in source.test.needs {
                if let reason = try facts.absence(of: need, on: source.test.vm) { throw .skip(reason) }
            }
            if let failures = options.failures {
                guard facts.soft == nil else {
                    throw .skip("no allocation can be made to fail: SoftKVM makes none in a kernel")
                }
                var search = FailureSearch(source, facts, deadline, options)
                return try search.report(failures)
            }
            if source.test.vm.isConfidential, program.blocks.isEmpty, let soft = facts.soft {
                let run = ModelRun(source: source, soft: soft, options: options)
                return Report(verdict: try run.verdict())
            }
            guard !program.blocks.isEmpty else {
                let run = SequentialRun(
                    source: source, facts: facts, deadline: deadline, options: options,
                    contradictions: contradictions)
                return Report(verdict: try run.verdict(pool))
            }
            if let soft = facts.soft {
                var interleavings = Interleavings(
                    source, on: soft.configuration, deadline, keepsPart: true, watcher: options.watcher)
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
                    var sweeper = try Sweeper(source, facts, deadline, options, tally, model, pool)
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
