// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Which allocations of the kernel fail in the runs of a test.
public enum AllocationFailures: Sendable, Hashable {
    /// Each allocation of each step, one in each run.
    case all
    /// One allocation of one step.
    case one(FailurePoint)
}

/// An allocation of a step, counted over the step's system calls.
public struct FailurePoint: Hashable, Sendable {
    /// The index of the step in ``LitmusTest/steps``.
    public let step: Int
    /// The line of the step in the test's text, from 1.
    public let line: Int
    /// The number of the allocation, from 1.
    public let nth: Int

    /// The `nth` allocation of the step with this index, which the source has.
    init(step: Int, nth: Int, in source: Source) {
        self.step = step
        self.nth = nth
        line = source.places[step].line
    }
}

/// A text that names no allocation of a test.
public enum FailurePointError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Not of the form `LINE:N`.
    case form
    /// No step is on this line; the nearest line with a step.
    case line(Int, nearest: Int)

    /// The error message, with the valid form or line.
    public var description: String {
        switch self {
        case .form: "give LINE:N, such as 7:2 for the second allocation of the step on line 7"
        case .line(let line, let nearest):
            "no step is on line \(line); the nearest one is on line \(nearest)"
        }
    }
}

extension FailurePoint: CustomStringConvertible {
    /// The largest number of an allocation.
    static let most = 100_000_000

    /// `7:2`, as ``init(_:in:)`` reads it.
    public var description: String { "\(line):\(nth)" }

    /// Reads `LINE:N`: the Nth allocation of the step on a line of the text.
    ///
    /// - Throws: ``FailurePointError``.
    public init(_ text: String, in source: Source) throws(FailurePointError) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.allSatisfy { ("0"..."9").contains($0) } }),
            let line = Int(parts[0]), let nth = Int(parts[1]), line >= 1, (1...Self.most).contains(nth)
        else { throw .form }
        guard let step = source.places.firstIndex(where: { $0.line == line }) else {
            let lines = source.places.map(\.line)
            let nearest = lines.min { $0.distance(to: line).magnitude < $1.distance(to: line).magnitude }
            throw .line(line, nearest: nearest ?? 1)
        }
        self.init(step: step, nth: nth, in: source)
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

    /// The failure with the line of its step in a text of the same test.
    func placed(in source: Source) -> InjectedFailure {
        guard source.places.indices.contains(point.step) else { return self }
        return InjectedFailure(
            point: FailurePoint(step: point.step, nth: point.nth, in: source), step: step, call: call,
            errno: errno, isRepeated: isRepeated)
    }
}

extension InjectedFailure: CustomStringConvertible {
    /// One line for people: which allocation failed, and what the call and the step answered.
    public var description: String {
        let answer = errno.map { "returned \(Errno(rawValue: $0).name)" } ?? "succeeded"
        return "after a failure of allocation \(grouped(point.nth)) of `\(step)` (line \(point.line)): "
            + "\(call) \(answer)" + (isRepeated ? ", and the step was repeated" : "")
    }
}
