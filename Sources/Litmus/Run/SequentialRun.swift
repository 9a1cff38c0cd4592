// SPDX-License-Identifier: MIT
import Synchronization

/// The run of a test without parallel blocks, on one machine or two. Used by the thread that runs the test.
struct SequentialRun {
    let source: Source
    let facts: BackendFacts
    let deadline: TestDeadline
    let options: Runner.Options
    let contradictions: Contradictions

    /// Runs the test on the machine that an earlier test has left, if there is one. Only `passed` counts there: every
    /// other verdict is checked on a new machine.
    func verdict(_ pool: MachinePool) throws(Stop) -> Verdict {
        let lap = options.stopwatch.map(Lap.init)
        guard isShared else {
            var none: TestMachine?
            return try run(&none, lap, leavesMachine: false).verdict
        }
        let kind = TestMachine.Kind(source.test)
        var seen: [String]?
        var before: Source?
        var used = pool.take(kind, source.test.endsItsFiles ? nil : source.test.memory)
        if source.test.countsPagesOfTheGuest, used?.unmapGuest() == false { used = nil }
        if let last = used?.last {
            options.stopwatch?.noteMachine(isUsedAgain: true)
            before = last
            do throws(Stop) {
                let (verdict, machine) = try run(&used, lap, leavesMachine: true)
                if verdict == .passed {
                    if let machine { pool.put(machine, kind) }
                    return verdict
                }
                if case .failed(let failure) = verdict { seen = failure.lines }
            } catch {
                seen = error.lines
            }
            options.watcher?(.beganAgain)
        }
        var none: TestMachine?
        let (verdict, machine) = try run(&none, lap, leavesMachine: contradictions.count == 0)
        if let machine { pool.put(machine, kind) }
        if let seen, verdict == .passed {
            contradictions.note(Contradiction(source: source, seen: seen, before: before))
        }
        return verdict
    }

    /// The model is deterministic only from its start, and a recorded run needs a machine of its own. After the first
    /// failure that a new machine did not confirm, machines are no longer used again.
    private var isShared: Bool {
        options.recorder == nil && facts.soft == nil && contradictions.count == 0
    }

    /// - Parameter machine: the machine to use; nil creates one. It is consumed, because it is closed here.
    /// - Returns: the verdict, and the machine for the next test if the test passed.
    private func run(
        _ machine: inout TestMachine?, _ lap: Lap?, leavesMachine: Bool
    ) throws(Stop) -> (verdict: Verdict, TestMachine?) {
        var hasFailed = true
        defer { options.recorder?.end(isNotable: hasFailed) }
        if machine == nil { options.stopwatch?.noteMachine(isUsedAgain: false) }
        let world = try World(
            facts, source.test, deadline,
            trace: options.recorder?.begin(backend: facts.backend, vm: source.test.vm), lap: lap,
            on: machine.take())
        defer { world.close() }
        var outcomes: [StepOutcome] = []
        for (index, step) in source.test.steps.enumerated() {
            let failure = try lap.measure(.steps) { () throws(Stop) in
                try source.perform(index, step, world, watcher: options.watcher) { outcomes.append($0) }
            }
            if var failure {
                if options.asksModel { failure.model = source.test.modelComparison(outcomes) }
                return (.failed(failure), nil)
            }
        }
        hasFailed = false
        var left = leavesMachine ? world.cleared() : nil
        left?.last = source
        return (.passed, left)
    }
}

/// The tests whose failure was not confirmed on a new machine.
final class Contradictions: Sendable {
    private let state = Mutex<(count: Int, first: Contradiction?)>((0, nil))

    var count: Int { state.withLock { $0.count } }
    var first: Contradiction? { state.withLock { $0.first } }

    func note(_ contradiction: Contradiction) {
        state.withLock { state in
            state.count += 1
            state.first = state.first ?? contradiction
        }
    }
}

/// A test that failed on a machine that another test had used, and passed on a new one.
public struct Contradiction: Sendable {
    /// The test.
    public let source: Source
    /// The outcome on the used machine, as lines of text.
    public let seen: [String]
    /// The test that had used the machine last; nil if it is unknown.
    public let before: Source?
}

extension Stop {
    fileprivate var lines: [String] {
        switch self {
        case .skip(let reason), .broken(let reason): [reason]
        case .brokenStep(let failure): failure.lines
        case .host(let failure): [failure.description]
        }
    }
}
