// SPDX-License-Identifier: MIT
import SoftKVM

/// The run of a test of an SNP or TDX VM, without parallel blocks: the model answers every step, and no instruction of a
/// guest is executed.
struct ModelRun {
    let source: Source
    let configuration: SoftKVM.Configuration
    let options: Runner.Options

    func verdict() throws(Stop) -> Verdict {
        var machine = try ModelMachine(ModelMachine.Setup(configuration, source.test))
        var outcomes: [StepOutcome] = []
        for (index, step) in source.test.steps.enumerated() {
            options.watcher?(.began(.step(index)))
            let seen = try source.attempt(index, step) { () throws(Stop) in try machine.perform(step) }
            options.watcher?(.ended(.step(index), .outcome(of: step, seen)))
            outcomes.append(seen.outcome)
            if var failure = source.judge(seen, index, step, machine.pages) {
                if options.asksModel { failure.model = source.test.modelComparison(outcomes) }
                return .failed(failure)
            }
        }
        return .passed
    }
}
