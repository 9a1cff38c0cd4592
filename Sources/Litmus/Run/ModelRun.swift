// SPDX-License-Identifier: MIT
import SoftKVM

/// The run of a test of an SNP or TDX VM, without parallel blocks: the model answers every step, and no instruction of a
/// guest is executed.
struct ModelRun {
    let source: Source
    let soft: SoftKVM
    let options: Runner.Options

    func verdict() throws(Stop) -> Verdict {
        var machine = try ModelMachine(ModelMachine.Setup(soft.configuration.rules, source.test))
        var outcomes: [StepOutcome] = []
        let events = options.recorder.map {
            Interleavings.EventRecorder($0.begin(backend: soft, vm: source.test.vm), soft)
        }
        var hasFailed = false
        defer { options.recorder?.end(isNotable: hasFailed) }
        events?.note(machine)
        for (index, step) in source.test.steps.enumerated() {
            options.watcher?(.began(.step(index)))
            events?.begin(step)
            let seen = try source.attempt(index, step) { () throws(Stop) in try machine.perform(step) }
            options.watcher?(.ended(.step(index), .outcome(of: step, seen)))
            events?.end(step, line: source.places[index].line, seen, machine)
            outcomes.append(seen.outcome)
            if var failure = source.judge(seen, index, step, machine.pages) {
                hasFailed = true
                if options.asksModel { failure.model = source.test.modelComparison(outcomes) }
                return .failed(failure)
            }
        }
        return .passed
    }
}
