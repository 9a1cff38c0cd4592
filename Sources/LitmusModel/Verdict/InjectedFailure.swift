// SPDX-License-Identifier: MIT
import ConversionModel

/// An allocation of a step, counted over the step's system calls.
public struct FailurePoint: Hashable, Sendable {
    /// The index of the step in ``LitmusTest/steps``.
    public let step: Int
    /// The line of the step in the test's text, from 1.
    public let line: Int
    /// The number of the allocation, from 1.
    public let nth: Int

    /// The `nth` allocation of the step with this index, which the source has.
    package init(step: Int, nth: Int, in source: Source) {
        self.step = step
        self.nth = nth
        line = source.places[step].line
    }
}

/// The allocation that failed in a run, and the answer of its system call.
public struct InjectedFailure: Hashable, Sendable {
    /// The allocation.
    public let point: FailurePoint
    /// The step, as written.
    public let step: String
    /// The name of the system call, such as `KVM_RUN`.
    public let call: String
    /// The errno of the system call; nil if it succeeded in spite of the failed allocation.
    public let errno: Int32?
    /// Whether the step was repeated after the failure.
    public let isRepeated: Bool

    package init(point: FailurePoint, step: String, call: String, errno: Int32?, isRepeated: Bool) {
        self.point = point
        self.step = step
        self.call = call
        self.errno = errno
        self.isRepeated = isRepeated
    }

    /// The failure with the line of its step in a text of the same test.
    package func placed(in source: Source) -> InjectedFailure {
        guard source.places.indices.contains(point.step) else { return self }
        return InjectedFailure(
            point: FailurePoint(step: point.step, nth: point.nth, in: source), step: step, call: call,
            errno: errno, isRepeated: isRepeated)
    }
}

extension InjectedFailure: CustomStringConvertible {
    /// One line for people: which allocation failed, and what the call and the step answered.
    public var description: String {
        let answer = errno.map { "returned \(ErrorNumber(rawValue: $0).name)" } ?? "succeeded"
        return "after a failure of allocation \(grouped(point.nth)) of `\(step)` (line \(point.line)): "
            + "\(call) \(answer)" + (isRepeated ? ", and the step was repeated" : "")
    }
}
