// SPDX-License-Identifier: MIT
public import MiniVMM

extension Runner {
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
        /// Called before and after each step outside of parallel blocks. If a test runs several times, only the steps of the
        /// first run are reported. Nil, the default, reports nothing and costs nothing.
        ///
        /// It is called on the thread that performs the steps, so a step is not made before it returns. A thread that was
        /// abandoned at the time limit may call it after the test's report.
        public var watcher: (@Sendable (RunEvent) -> Void)?
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
            recorder: (any RunRecorder)? = nil, watcher: (@Sendable (RunEvent) -> Void)? = nil,
            announcer: Announcer? = nil, kernelLog: KernelLog? = nil,
            stopwatch: Stopwatch? = nil,
            interrupts: SignalDescriptor? = nil, progress: (@Sendable (_ runs: Int) -> Void)? = nil
        ) {
            self.watcher = watcher
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
}
