// SPDX-License-Identifier: MIT

/// The results of one actor's steps in one run of a parallel block.
struct ActorResults {
    private(set) var results: [(name: Name, outcome: StepOutcome)] = []
    /// The failure that ended the steps early.
    private(set) var failure: Failure?
    private(set) var stop: Stop?

    /// No result yet.
    init() {}

    /// Performs the steps in their order, up to the first that fails, on the calling thread.
    ///
    /// - Parameter wait: called before each step.
    init(
        performing steps: [(index: Int, step: Step)], _ source: Source, _ world: World,
        after wait: () -> Void = {}
    ) {
        do throws(Stop) {
            for (index, step) in steps where failure == nil {
                wait()
                var seen: StepOutcome?
                failure = try source.perform(index, step, world, isRacing: true, watcher: nil) { seen = $0 }
                if let name = step.result, let seen { results.append((name, seen)) }
            }
        } catch {
            stop = error
        }
    }
}

extension Program.Block {
    /// Creates what the actors need, so that they only perform their steps during the race.
    func prepare(_ world: World) throws(Stop) {
        for actor in actors {
            if case .vcpu(let number)? = actor.first?.step.actor { try world.guest().prepare(number) }
        }
    }

    /// Adds the results of all actors to the ending of the run.
    ///
    /// - Returns: the first failure of an actor.
    func add(_ all: [ActorResults], to ending: inout Ending) throws(Stop) -> Failure? {
        for actor in all {
            if let stop = actor.stop { throw stop }
            if let failure = actor.failure { return failure }
            for (name, outcome) in actor.results {
                if let place = place(of: name) { ending[place] = outcome }
            }
        }
        return nil
    }
}
