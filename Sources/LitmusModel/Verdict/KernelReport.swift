// SPDX-License-Identifier: MIT
import ConversionModel

/// A kernel's report of a bug of its own: a warning, an oops, a report of KASAN or lockdep.
public struct KernelReport: Sendable, Hashable {
    /// The check that made the report.
    public enum Kind: String, Sendable, CaseIterable {
        /// `WARN_ON` and its like.
        case warning
        /// An exception in the kernel: `BUG_ON`, a page fault, a general protection fault.
        case oops
        /// Another line that begins with `BUG:`, such as a bad page state or sleep in an atomic section.
        case bug
        /// A memory error that KASAN detected.
        case kasan
        /// Undefined behaviour that UBSAN detected.
        case ubsan
        /// Wrong use of a lock or of RCU that lockdep detected.
        case lockdep
        /// A task that was blocked for a long time.
        case hungTask = "hung-task"
        /// A processor that did not schedule: a soft lockup or an RCU stall.
        case stall
        /// A panic without an earlier report.
        case panic
    }

    /// The check that made the report.
    public let kind: Kind
    /// The first function that the report names, apart from functions that only check, lock or print. Nil if it names none.
    public let function: String?
    /// The lines of the kernel's log, without time stamps; at least one, at most ``mostLines``.
    public let lines: [String]

    /// The largest number of lines that are kept of a report.
    public static let mostLines = 80

    /// The line that gave the kind.
    public let headline: String

    package init(kind: Kind, function: String?, lines: [String], headline: String) {
        self.kind = kind
        self.function = function
        self.lines = lines
        self.headline = headline
    }

    /// Kind and function: reports with the same name count as one finding. Only letters, digits, `-`, `_` and `.`.
    public var name: String {
        guard let function else { return kind.rawValue }
        return "\(kind.rawValue)-"
            + String(function.map { $0.isLetter || $0.isNumber || $0 == "." ? $0 : "_" })
    }
}
