// SPDX-License-Identifier: MIT
import ConversionModel

/// The results of a step whose allocations fail one at a time.
public struct StepFailures: Sendable, Equatable {
    /// The index of the step in ``LitmusTest/steps``.
    public let step: Int
    /// The line of the step in the test's text.
    public let line: Int
    /// The allocations that the step's system calls make if none fails.
    public let allocations: Int
    /// The answers, in ascending order of their allocations.
    public package(set) var answers: [Answer] = []

    package init(step: Int, line: Int, allocations: Int, answers: [Answer] = []) {
        self.step = step
        self.line = line
        self.allocations = allocations
        self.answers = answers
    }

    /// The result of some consecutive allocations of a step.
    public struct Answer: Sendable, Equatable {
        /// The first and the last allocation. Of more than ``FailureSearch/mostExhaustive`` allocations some between them
        /// were not tried.
        public package(set) var numbers: ClosedRange<Int>
        /// The number of allocations that were tried.
        public package(set) var tried = 1
        /// The name of the system call in which the allocation failed.
        public let call: String
        /// The errno of that call; nil if it succeeded.
        public let errno: Int32?
        /// How the step ended; nil if it could not be performed, because a call that prepares it failed.
        public let outcome: StepOutcome?
        /// The first deviation in such a run; nil if everything was as it must be.
        public let failure: Failure?

        /// Whether the call returned an errno that reports the failed allocation.
        public var isReportedByCall: Bool {
            guard let errno, let rule = AllocatingCall(rawValue: call)?.shortageRule else { return false }
            return rule.errnos.contains { $0.rawValue == errno }
        }
        /// Whether the step's outcome says that it has failed. It was then repeated.
        public let isReported: Bool

        package init(
            numbers: ClosedRange<Int>, tried: Int = 1, call: String, errno: Int32?, outcome: StepOutcome?,
            failure: Failure?, isReported: Bool
        ) {
            self.numbers = numbers
            self.tried = tried
            self.call = call
            self.errno = errno
            self.outcome = outcome
            self.failure = failure
            self.isReported = isReported
        }
    }

    /// The number of allocations that were made to fail.
    public var tried: Int { answers.reduce(0) { $0 + $1.tried } }

    package mutating func add(_ answer: Answer) {
        if let last = answers.last, last.isLike(answer) {
            answers[answers.count - 1].numbers = last.numbers.lowerBound...answer.numbers.upperBound
            answers[answers.count - 1].tried += 1
        } else {
            answers.append(answer)
        }
    }
}

extension StepFailures.Answer {
    fileprivate func isLike(_ other: Self) -> Bool {
        failure == nil && other.failure == nil && call == other.call && errno == other.errno
            && outcome == other.outcome && isReported == other.isReported
    }

    /// `KVM_RUN ENOMEM, then 0x41`, or `ENOMEM at 0`.
    public var text: String {
        let reported = errno.map { "\(call) \(ErrorNumber(rawValue: $0).name)" }
        guard let outcome else { return reported ?? call }
        switch (outcome, reported) {
        case (.errno(let number, nil), let reported?) where number == errno: return reported
        case (.errno(let number, let place?), _?) where number == errno:
            return "\(call) \(StepOutcome.errno(number, at: place))"
        case (_, let reported?): return "\(reported), then \(outcome)"
        case (_, nil): return "\(outcome)"
        }
    }
}
