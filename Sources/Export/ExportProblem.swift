// SPDX-License-Identifier: MIT

/// Why a test cannot become a program of its own.
public enum ExportProblem: Error, Sendable, Equatable {
    /// The `kernel` line configures SoftKVM. No real kernel can be configured so.
    case softwareKernelOnly(setting: String)
    /// The step with this text names an object in a way that a program cannot.
    case step(String, reason: String)
}

extension ExportProblem: CustomStringConvertible {
    /// One sentence without a full stop.
    public var description: String {
        switch self {
        case .softwareKernelOnly(let setting):
            "`kernel \(setting)` configures the software kernel, and no other kernel can be configured so"
        case .step(let step, let reason): "`\(step)`: \(reason)"
        }
    }
}
