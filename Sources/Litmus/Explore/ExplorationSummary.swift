// SPDX-License-Identifier: MIT
import MiniVMM

extension Exploration {
    /// The kinds of tests, in the order in which they are tried.
    public enum Phase: String, Sendable, CaseIterable {
        /// All tests of a few steps on two pages.
        case scope
        /// Random sequential steps.
        case random
        /// Each kind of step concurrently with each kind.
        case pairs
        /// Random concurrent steps.
        case parallel
    }

    /// Why the exploration ended.
    public enum End: String, Sendable {
        /// Everything was tried.
        case complete
        /// ``Options/mostFindings`` were found.
        case findings
        /// The time limit was reached.
        case time
        /// The caller stopped it, or the host ran out of a resource.
        case stopped
    }

    /// The tests that were run, and the findings.
    public struct Summary: Sendable {
        /// The tests of a phase.
        public struct Count: Sendable, Equatable {
            /// Tests that ran, each counted once however often it ran.
            public var tests = 0
            /// Steps of those tests.
            public var steps = 0
        }
        /// The tests of each phase; a phase without tests may be absent.
        public var counts: [Phase: Count] = [:]
        /// Schedules that were run of tests with concurrent steps. 0 if they were not swept.
        public var schedules = 0
        /// Why tests with concurrent steps are not swept but started at random times, as a sentence without its period. Nil if they
        /// are swept, or there are none.
        public var sweepAbsence: String?
        /// Pairs of kinds of steps that ran concurrently.
        public var pairs = 0
        /// Pairs for which no test could be generated: `NAME with NAME`.
        public var emptyPairs: [String] = []
        /// Different machine states of the exhaustive part in which steps were tried.
        public var states = 0
        /// Steps that were tried in those states.
        public var transitions = 0
        fileprivate var kinds: [StepKind: Int] = [:]
        /// How often the model's answer to each kind of step (`host read`) was each kind of outcome (`ok`, `EAGAIN`).
        /// Steps of parallel blocks count as `at once`.
        public var coverage: [String: [String: Int]] {
            kinds.reduce(into: [:]) { coverage, entry in
                let (kind, count) = entry
                let words = "\(kind.actor) \(kind.action)" + (kind.isConverting ? " converting" : "")
                coverage[words, default: [:]][kind.outcome, default: 0] += count
            }
        }
        /// Kinds of steps and machines that this kernel does not support, with the reason.
        public var leftOut: [(move: String, reason: String)] = []
        /// Tests in which the kernel's answer was not the model's, but is allowed.
        public var lawful = 0
        /// Number of tests that the kernel could not run, by reason.
        public var skipped: [String: Int] = [:]
        /// The differences in the order in which they were found.
        public var findings: [Finding] = []
        /// Number of tests that failed on a used machine and passed on a new one: ``Runner/contradicted``.
        public var contradicted = 0
        /// The first of those tests; nil if there is none.
        public var firstContradiction: Contradiction?
        /// Why the exploration ended.
        public var end = End.complete
        /// The resource that the host ran out of, which ends the exploration. Nil if there is none.
        public var hostFailure: HostFailure?
        /// Tests that did not run because the exploration ended early, by phase. Nil if their number is unknown, as in
        /// the exhaustive part and for pairs.
        public var untried: [(phase: Phase, tests: Int?)] = []
        /// The longest random test in which the kernel agreed with the model, as an example if there is no finding. Nil
        /// if there is none.
        public var sample: Source?

        /// Tests that ran in all phases.
        public var tests: Int { counts.values.reduce(0) { $0 + $1.tests } }
    }
}

extension Exploration.Summary {
    /// Counts a test before it runs.
    mutating func note(_ test: LitmusTest, in phase: Exploration.Phase) {
        let steps = test.steps
        counts[phase, default: .init()].tests += 1
        counts[phase, default: .init()].steps += steps.count
        for step in steps {
            func note(_ outcome: String) {
                let kind = StepKind(
                    actor: step.actor.word, action: step.action.word, isConverting: step.onFault != nil,
                    outcome: outcome)
                kinds[kind, default: 0] += 1
            }
            switch step.expectation {
            case .unspecified: note("ok")
            case .anyOf(let outcomes): for outcome in outcomes { note(outcome.word) }
            case .named: note("at once")
            }
        }
    }
}

/// A kind of step, without numbers.
private struct StepKind: Hashable {
    let actor: String
    let action: String
    let isConverting: Bool
    let outcome: String
}
