// SPDX-License-Identifier: MIT
public import ConversionModel

/// The host ran out of a resource that a test needs. It is no verdict on the kernel, and no reason to skip
/// the test.
public struct HostFailure: Error, Sendable, Hashable {
    /// The failed operation: a system call, or a step as written.
    public let call: String
    /// The errno of that call, such as `EMFILE` or `ENOMEM`.
    public let error: ErrorNumber
    /// The index of the step in ``LitmusTest/steps``; nil if a call failed outside of any step.
    public let step: Int?

    package init(_ call: String, error: ErrorNumber, step: Int? = nil) {
        self.call = call
        self.error = error
        self.step = step
    }
}
