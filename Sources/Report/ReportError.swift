// SPDX-License-Identifier: MIT
/// A trace that cannot be read, or a picture that cannot be written.
public struct ReportError: Error, Sendable, CustomStringConvertible {
    /// The line of the trace, from 1; nil if the error is not about one line.
    public let line: Int?
    /// The error message, without the line number.
    public let message: String

    /// - Parameter line: the line of the trace, from 1; nil if the error is not about one line.
    public init(line: Int? = nil, _ message: String) {
        self.line = line
        self.message = message
    }

    /// The message, after `line N: ` if there is a line.
    public var description: String { line.map { "line \($0): \(message)" } ?? message }
}
