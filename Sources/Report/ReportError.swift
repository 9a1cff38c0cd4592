// SPDX-License-Identifier: MIT
/// Why a trace cannot be read or a picture cannot be written.
public struct ReportError: Error, Sendable, CustomStringConvertible {
    /// The line of the trace, from 1; nil where it is not about one.
    public let line: Int?
    public let message: String

    public init(line: Int? = nil, _ message: String) {
        self.line = line
        self.message = message
    }

    public var description: String { line.map { "line \($0): \(message)" } ?? message }
}
