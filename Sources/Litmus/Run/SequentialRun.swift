import Synchronization

/// A test without parallel blocks, on its way through one machine or two. Used by the thread that runs it.
struct SequentialRun {
    let source: Source
    let facts: KernelFacts
    let patience: Patience
    let options: Runner.Options
    let contradictions: Contradictions

    /// Runs the test on a machine that an earlier one has left, if there is one. Only that it passed is believed there:
    /// everything else is seen again on a new machine, or was never so.
    func verdict(_ pool: MachinePool) throws(Stop) -> Verdict {
        let lap = options.stopwatch.map(Lap.init)
        guard isShared else { return try run(nil, lap).verdict }
        let kind = TestMachine.Kind(source.test)
        var hasFailed = false
        if let machine = pool.take(kind) {
            options.stopwatch?.noteMachine(isUsedAgain: true)
            do throws(Stop) {
                let (verdict, machine) = try run(machine, lap)
                if verdict == .passed {
                    if let machine { pool.put(machine, kind) }
                    return verdict
                }
            } catch {}
            hasFailed = true
        }
        let (verdict, machine) = try run(nil, lap)
        if let machine { pool.put(machine, kind) }
        if hasFailed, verdict == .passed { contradictions.note() }
        return verdict
    }

    /// A model is deterministic only from its beginning, and a run that is written down has a machine of its own. Once a
    /// failure was not seen again, none is missed for the sake of speed.
    private var isShared: Bool {
        options.recorder == nil && facts.soft == nil && contradictions.count == 0
            && source.test.canShareMachine
    }

    /// - Parameter machine: nil makes one.
    /// - Returns: what the test has left for the next one, if it passed.
    private func run(_ machine: TestMachine?, _ lap: Lap?) throws(Stop) -> (verdict: Verdict, TestMachine?) {
        var isTelling = true
        defer { options.recorder?.end(isTelling: isTelling) }
        if machine == nil { options.stopwatch?.noteMachine(isUsedAgain: false) }
        let world = try World(
            facts, source.test, patience, trace: options.recorder?.begin(kernel: facts.kernel), lap: lap,
            on: machine)
        defer { world.close() }
        for (index, step) in source.test.steps.enumerated() {
            let failure = try lap.measure(.steps) { () throws(Stop) in
                try source.perform(index, step, world)
            }
            if let failure { return (.failed(failure), nil) }
        }
        isTelling = false
        return (.passed, isShared ? world.cleared() : nil)
    }
}

/// Counts the tests whose failure was not seen again on a new machine.
final class Contradictions: Sendable {
    private let number = Atomic<Int>(0)

    var count: Int { number.load(ordering: .relaxed) }
    func note() { number.add(1, ordering: .relaxed) }
}
