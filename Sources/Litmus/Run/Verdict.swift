/// What a run of a test came to.
public enum Verdict: Sendable, Equatable {
    /// Every step ended as it must.
    case passed
    /// A step did not; nothing was done after it.
    case failed(Failure)
    /// This kernel, or this runner, cannot say anything about it.
    case skipped(String)
}

/// The first step that did not end as it must.
public struct Failure: Sendable, Equatable {
    /// The index in ``LitmusTest/steps``, and its line in the text; nil where it was the machine that could not be made.
    public let step: Int?
    public let line: Int?
    /// The step as it is written, without its expectation.
    public let text: String
    public let expected: String
    public let seen: String
    /// The pages around, one a line: what the answers so far made them, and what the host reads there.
    public let pages: [String]
}

extension Failure: CustomStringConvertible {
    public var description: String { lines.joined(separator: "\n") }

    /// For people, line by line.
    public var lines: [String] {
        ["\(line.map { "line \($0): " } ?? "")\(text)", "expected: \(expected)", "seen: \(seen)"] + pages
    }
}
