// SPDX-License-Identifier: MIT
extension Exploration {
    /// What tests are made of, one after the other.
    public enum Phase: String, Sendable, CaseIterable {
        /// All of a few steps.
        case scope
        /// Random steps, one after the other.
        case random
        /// Each kind of step at once with each kind.
        case pairs
        /// Random steps at once.
        case parallel
    }

    /// Why nothing more was tried.
    public enum End: String, Sendable {
        /// All was.
        case complete
        /// As much was found as was asked for.
        case findings
        /// The time limit.
        case time
        /// Somebody wanted it.
        case stopped
    }

    /// What was tried, and what came of it.
    public struct Summary: Sendable {
        public struct Count: Sendable, Equatable {
            public var tests = 0
            public var steps = 0
        }
        public var counts: [Phase: Count] = [:]
        /// Pairs of kinds of steps that were tried at once, and those of which no test could be made.
        public var pairs = 0
        public var emptyPairs: [String] = []
        /// Of the small scope.
        public var states = 0
        public var transitions = 0
        fileprivate var kinds: [StepKind: Int] = [:]
        /// How often each kind of step came to each kind of outcome, as the model has it.
        public var coverage: [String: [String: Int]] {
            kinds.reduce(into: [:]) { coverage, entry in
                let (kind, count) = entry
                coverage["\(kind.actor) \(kind.action)", default: [:]][kind.outcome, default: 0] += count
            }
        }
        /// Kinds of steps that this kernel cannot do, with its reason.
        public var leftOut: [(move: String, reason: String)] = []
        /// Tests whose answer was another one that a kernel is free to give.
        public var lawful = 0
        /// Tests that the kernel could not say anything about, by reason.
        public var skipped: [String: Int] = [:]
        public var findings: [Finding] = []
        /// Tests that failed on a machine that another test had used, and passed on a new one: ``Runner/contradicted``.
        public var contradicted = 0
        public var firstContradiction: Contradiction?
        public var end = End.complete
        /// The resource that the host ran out of, which ends the exploration.
        public var hostFailure: HostFailure?
        /// Tests that were not run because the exploration ended early, by phase. Nil for the small scope,
        /// whose number of tests is not known in advance.
        public var untried: [(phase: Phase, tests: Int?)] = []
        /// The longest random test that went as the model has it, to be shown where nothing was found.
        public var sample: Source?

        public var tests: Int { counts.values.reduce(0) { $0 + $1.tests } }
    }
}

extension Exploration.Summary {
    /// A test is about to be run.
    mutating func note(_ test: LitmusTest, in phase: Exploration.Phase) {
        counts[phase, default: .init()].tests += 1
        counts[phase, default: .init()].steps += test.steps.count
        for step in test.steps {
            func note(_ outcome: String) {
                kinds[
                    StepKind(actor: step.role.word, action: step.action.word, outcome: outcome), default: 0] +=
                    1
            }
            switch step.expectation {
            case .unspecified: note("ok")
            case .anyOf(let outcomes): for outcome in outcomes { note(outcome.word) }
            case .named: note("at once")
            }
        }
    }
}

/// Words only, no numbers.
private struct StepKind: Hashable {
    let actor: String
    let action: String
    let outcome: String
}

extension Role {
    /// Without its number.
    var word: String {
        switch self {
        case .host: "host"
        case .vcpu: "vcpu"
        case .child: "child"
        }
    }
}
