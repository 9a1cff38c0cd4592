// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage

/// Runs tests on the rules of SoftKVM alone, without its memory and CPU. It gives the same answers, a hundred times as
/// fast.
struct ModelRunner {
    let configuration: SoftKVM.Configuration

    func run(_ test: LitmusTest) -> Verdict {
        do throws(Stop) {
            let configuration = configuration.configured(for: test)
            for need in test.needs {
                var sound = configuration
                sound.plantedFaults = []
                if let reason = sound.rules.absence(of: need, on: test.vm) { throw .skip(reason) }
            }
            if test.body.contains(where: \.isBlock) { return try interleave(test, configuration) }
            var machine = try ModelMachine(ModelMachine.Setup(configuration.rules, test))
            var index = 0
            for case .step(let step) in test.body {
                if let failure = try perform(step, index, &machine) { return .failed(failure) }
                index += 1
            }
            return .passed
        } catch {
            return Source.verdict(error)
        }
    }

    private func perform(
        _ step: Step, _ index: Int, _ machine: inout ModelMachine
    ) throws(Stop) -> Failure? {
        do throws(Stop) {
            let seen = try machine.perform(step)
            guard !step.accepts(seen) else { return nil }
            return Failure(
                .step(step, seen: seen.outcome, oddity: seen.oddity), step: index,
                pages: machine.pages(around: step.call(endingWith: seen.outcome)))
        } catch {
            guard case .broken(let reason) = error else { throw error }
            return Failure(.impossible(step, reason: reason), step: index)
        }
    }

    private func interleave(
        _ test: LitmusTest, _ configuration: SoftKVM.Configuration
    ) throws(Stop) -> Verdict {
        guard let source = try? Source(test) else { throw .broken("the test cannot be written") }
        var interleavings = Interleavings(source, on: configuration, TestDeadline(), keepsPart: true)
        return Judge(source).report(exact: try interleavings.explore()).verdict
    }
}
