// SPDX-License-Identifier: MIT
import Litmus
public import MiniVMM

/// Why a test cannot become a program of its own.
public enum ExportProblem: Error, Sendable, Equatable {
    /// The `kernel` line configures SoftKVM. No real kernel can be configured so.
    case softwareKernelOnly(setting: String)
    /// The VM's type needs hardware and firmware that a program cannot bring: only the model has it.
    case modelOnly(VMType)
    /// The step with this text names an object in a way that a program cannot.
    case step(String, reason: String)
}

extension ExportProblem: CustomStringConvertible {
    /// One sentence without a full stop.
    public var description: String {
        switch self {
        case .softwareKernelOnly(let setting):
            "`kernel \(setting)` configures the software kernel, and no other kernel can be configured so"
        case .modelOnly(let type): "`vm \(type.word)`: only the model has such a VM"
        case .step(let step, let reason): "`\(step)`: \(reason)"
        }
    }
}
