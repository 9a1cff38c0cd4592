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
