// SPDX-License-Identifier: MIT
public import MiniVMM

extension Exploration {
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
}
