// SPDX-License-Identifier: MIT
import Explain
import MiniVMM

// `bench --instructions`: costs of the kernel, counted by an emulated processor.
extension Bench {
    func countInstructions() throws {
        let overhead: UInt64
        do throws(InstructionClock.Refusal) { overhead = try InstructionClock.check() } catch {
            throw stop(error.text, Status.skipped)
        }
        let line = ProgressLine(.diagnostics)
        let costs: Costs
        do throws(CostError) {
            var measurement = try CostMeasurement(repetitions: rounds ?? 3, overhead: overhead) { key in
                line.show { key }
            }
            costs = try measurement.measure()
            line.clear()
        } catch {
            line.clear()
            if case .noConversion = error { throw stop(error.text, Status.skipped) }
            throw stop(error.text, Status.monitorFailed)
        }
        let printer = CostPrinter(costs: costs)
        if json { Terminal.output.print(printer.json.text) } else { printer.print(on: .output) }
    }
}
