// SPDX-License-Identifier: MIT
import MiniVMM

// How a difference becomes a finding: it is shrunk, written as a test, and run again.
extension Exploration {
    func add(
        _ prediction: Predictor.Prediction, _ failure: Failure, _ how: Shown, _ predictor: Predictor
    ) {
        let attempts = attempts(for: prediction)
        // The last test that showed the finding, with its failure.
        var smallest = (prediction, failure, how)
        let shrinker = Shrinker { test in
            guard !self.isOver, let candidate = predictor.predict(test) else { return false }
            for _ in 0..<attempts {
                guard case .wrong(let now, let how) = self.judge(candidate) else { continue }
                guard now.kind == failure.kind else { return false }
                smallest = (candidate, now, how)
                return true
            }
            return false
        }
        _ = shrinker.shrink(prediction.test.withoutExpectations)
        var (last, shown, how) = smallest
        guard var source = written(last, shown, how.schedule) else { return }
        last = Predictor.Prediction(test: source.test, others: last.others)
        var seen = 0
        var runs = 0
        // A run with failing allocations is one for each allocation.
        for _ in 0..<(isFailing ? 2 : attempts == 1 ? 10 : 100) where seen == 0 || !isOver {
            runs += 1
            guard case .wrong(let now, let again) = judge(last, isConfirming: true) else { continue }
            seen += 1
            shown = now
            if !again.functions.isEmpty { how.functions = again.functions }
            // The written test takes a path of its own to its first step, so its delay may be another one.
            if seen == 1, let schedule = again.schedule, schedule != how.schedule,
                let moved = written(last, now, schedule)
            {
                (source, how.schedule) = (moved, schedule)
                last = Predictor.Prediction(test: source.test, others: last.others)
            }
        }
        summary.findings.append(
            Finding(
                source: source, failure: shown, seen: seen, runs: runs, found: number,
                steps: prediction.test.steps.count, functions: how.functions))
        options.announcer?.write(.difference(text: source.test.text))
    }

    /// The finding's test, named after what it shows, with the needs of other kernels, and with the schedule that showed it.
    func written(
        _ prediction: Predictor.Prediction, _ failure: Failure, _ schedule: Schedule?
    ) -> Source? {
        guard let source = try? Source(prediction.test) else { return nil }
        var test = prediction.test
        test.name = source.headline(failure)
        test.needs = test.impliedNeeds
        if let schedule { test.take(schedule, failure) }
        return (try? Source(test)) ?? source
    }

    /// The number of runs after which a test counts as passed: one if it always failed before.
    func attempts(for prediction: Predictor.Prediction) -> Int {
        for _ in 0..<5 {
            guard case .wrong = judge(prediction) else { return 20 }
        }
        return 1
    }
}

extension LitmusTest {
    /// The test without its expectations.
    var withoutExpectations: LitmusTest {
        var test = self
        test.body = body.map { entry in
            switch entry {
            case .step(let step): .step(Step(step.actor, step.action, onFault: step.onFault))
            case .parallel(let block): .parallel(Parallel(steps: block.steps))
            }
        }
        return test
    }

    /// Writes a schedule into its block, with the outcome that it showed.
    fileprivate mutating func take(_ schedule: Schedule, _ failure: Failure) {
        var number = 0
        for index in body.indices {
            guard case .parallel(var block) = body[index] else { continue }
            if number == schedule.block {
                block.preemption = schedule.preemption
                if case .outcome(let results, _, _, _) = failure.deviation {
                    let own = Set(block.steps.compactMap(\.result))
                    block.preemption?.outcome = results.filter { own.contains($0.name) }.map {
                        Clause.Condition(result: $0.name, outcome: $0.outcome)
                    }
                }
                body[index] = .parallel(block)
            }
            number += 1
        }
    }

    /// The needs without which the test means nothing on other kernels.
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
