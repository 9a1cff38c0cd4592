// SPDX-License-Identifier: MIT
import MiniVMM

/// Runs a test once for each allocation that its steps make in the kernel, with that allocation failing.
///
/// The step may then succeed, or report the failure as its system call's rule says (``ShortageRule``). A step that has
/// reported it is repeated and must succeed, and the rest of the test must be as usual. If the rule says that nothing was
/// done, another run goes on without the step, and the model judges the rest. Afterwards ``LitmusTest/closingSteps`` must
/// end as the model says.
public struct FailureSearch {
    /// Of a step with more allocations than this, some of the further ones are tried.
    public static let mostExhaustive = 256

    private let source: Source
    private let deadline: TestDeadline
    private let options: Runner.Options
    private var run: FailingRun
    private var runs = 0

    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ options: Runner.Options
    ) {
        self.source = source
        self.deadline = deadline
        self.options = options
        run = FailingRun(source, facts, deadline, options.failing)
    }

    /// - Throws: why no run was done.
    mutating func report(_ kind: AllocationFailures) throws(Stop) -> Report {
        // The kernel never uses such a page again. It also sends SIGBUS without a reason if it has no memory for one.
        let failsMemory = source.test.steps.contains { step in
            if case .advise(_, let advice) = step.action { advice.isMemoryFailure } else { false }
        }
        guard !failsMemory else {
            throw .skip("each run would take a page of this machine's memory out of use")
        }
        do throws(FailureAbsence) { try options.failing.prepare() } catch {
            throw .skip("no allocation can be made to fail: \(error)")
        }
        defer { options.failing.restore() }
        let counts: [Int]
        switch try run.measure(options.watcher) {
        case .made(let made): counts = made
        case .failed(let failure): return Report(verdict: .failed(failure))
        }
        var report = Report(verdict: .passed)
        for (index, count) in counts.enumerated() {
            var step = StepFailures(step: index, line: source.places[index].line, allocations: count)
            switch kind {
            case .all: try fail(&step, numbers: Self.numbers(count), mayContinue: count > 0)
            case .one(let point):
                guard point.step == index else { continue }
                try fail(&step, numbers: [point.nth], mayContinue: false)
                if step.answers.isEmpty {
                    throw .skip(
                        "the step on line \(point.line) makes \(grouped(count)) allocations, so there is no number \(grouped(point.nth))"
                    )
                }
            }
            report.failures.append(step)
            if case .passed = report.verdict, let failure = step.answers.compactMap(\.failure).first {
                report.verdict = .failed(failure)
            }
            if let stop = deadline.stop {
                report.cut = Cut(reason: stop, runs: runs, wanted: nil)
                break
            }
        }
        return report
    }

    /// The allocations to try of so many: all, or beyond ``mostExhaustive`` numbers that grow by an eighth, and the last one.
    static func numbers(_ count: Int) -> [Int] {
        var numbers = Array(1..<min(count, mostExhaustive) + 1)
        while let last = numbers.last, last < count { numbers.append(min(count, last + max(1, last / 8))) }
        return numbers
    }

    /// - Parameter mayContinue: whether more allocations are tried if there are more than those. Their number may vary, because
    ///   the kernel's own caches run empty.
    private mutating func fail(
        _ step: inout StepFailures, numbers: [Int], mayContinue: Bool
    ) throws(Stop) {
        var numbers = numbers[...]
        var last = 0
        var known: FailingRun.Sequel?
        while deadline.stop == nil {
            guard let nth = numbers.popFirst() ?? (mayContinue ? last + 1 : nil) else { return }
            last = nth
            let point = FailurePoint(step: step.step, nth: nth, in: source)
            options.watcher?(.began(.allocation(point)))
            var attempt = try run.attempt(point, .repeated)
            guard case .failed(let call, let result) = attempt.injection else {
                options.watcher?(.ended(.allocation(point), .unused))
                return
            }
            done()
            if attempt.canGoOnward, attempt.failure == nil {
                let sequel = known ?? run.onward(without: step.step)
                known = sequel
                let other = try run.attempt(point, sequel)
                if case .failed = other.injection { attempt.failure = other.failure }
                done()
            }
            let answer = RunEvent.Result.answer(attempt.outcome, isRight: attempt.failure == nil)
            options.watcher?(.ended(.allocation(point), answer))
            step.add(
                StepFailures.Answer(
                    numbers: nth...nth, call: call, errno: result < 0 ? Int32(clamping: -result) : nil,
                    outcome: attempt.outcome, failure: attempt.failure, isReported: attempt.isReported))
        }
    }

    private mutating func done() {
        runs += 1
        options.progress?(runs)
    }
}
