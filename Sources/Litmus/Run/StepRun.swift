// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage

extension Source {
    /// Performs a whole step.
    ///
    /// - Parameter watcher: called before and after the step.
    /// - Returns: nil if the outcome is an expected one.
    func perform(
        _ index: Int, _ step: Step, _ world: World, isRacing: Bool = false,
        watcher: (@Sendable (RunEvent) -> Void)?, _ result: (StepOutcome) -> Void = { _ in }
    ) throws(Stop) -> Failure? {
        watcher?(.began(.step(index)))
        let began = world.isRecording ? world.backend.now() : 0
        let seen = try attempt(index, step) { () throws(Stop) in try world.perform(step, isRacing: isRacing) }
        if world.isRecording {
            world.record(step, line: places[index].line, seen, began: began)
        }
        watcher?(.ended(.step(index), .outcome(of: step, seen)))
        if let failure = hostFailure(seen, index, step, world) { throw .host(failure) }
        result(seen.outcome)
        return judge(seen, index, step, world.pages)
    }

    static func verdict(_ stop: Stop) -> Verdict {
        switch stop {
        case .skip(let reason): .skipped(reason)
        case .broken(let reason): .failed(Failure(.machine(reason: reason)))
        case .brokenStep(let failure): .failed(failure)
        case .host(let failure): .hostFailed(failure)
        }
    }

    /// All endings in the model.
    ///
    /// - Parameter model: the configuration, apart from what the test's header sets. The default is the model of Linux
    ///   7.4.
    func explored(
        on model: SoftKVM.Configuration = SoftKVM.Configuration(), _ deadline: TestDeadline,
        mostPieces: Int = Interleavings.mostPieces, findsOrders: Bool = false
    ) throws(Stop) -> Interleavings.Result {
        var interleavings = Interleavings(
            self, on: model.configured(for: test), deadline, mostPieces: mostPieces)
        return try interleavings.explore(findsOrders: findsOrders)
    }
}
