// SPDX-License-Identifier: MIT
/// Why a boot of a kernel under test is not continued.
public enum KernelCrash: Sendable, Hashable {
    /// The kernel reported a bug of its own.
    case report(KernelReport)
    /// No test began or ended for this time. `lines` are the kernel's last ones.
    case hang(limit: Duration, lines: [String])
    /// The machine was reset or ended without a report.
    case reset(lines: [String])
    /// minivmm ended with this exit status, or 128 + the signal: the kernel lost a descriptor or corrupted memory, or has no
    /// descriptor or memory left. `lines` are its messages.
    case gaveUp(status: Int32, lines: [String])

    /// Crashes with the same name count as one finding. Only letters, digits, `-`, `_` and `.`.
    public var name: String {
        switch self {
        case .report(let report): report.name
        case .hang: "hang"
        case .reset: "reset"
        case .gaveUp(let status, _): "minivmm-\(status)"
        }
    }

    /// The crash on one line.
    public var headline: String {
        switch self {
        case .report(let report): report.headline
        case .hang(let limit, _): "no test began or ended for \(limit.secondsText) s"
        case .reset: "the machine was reset without a report"
        case .gaveUp(let status, let lines):
            "minivmm ended with status \(status)" + (lines.first.map { ": \($0)" } ?? "")
        }
    }

    /// The lines of the kernel's log, or of minivmm.
    public var lines: [String] {
        switch self {
        case .report(let report): report.lines
        case .hang(_, let lines), .reset(let lines), .gaveUp(_, let lines): lines
        }
    }

    /// Whether the kernel can run further tests after it.
    public var isSurvivable: Bool {
        guard case .report(let report) = self else { return false }
        switch report.kind {
        case .warning, .bug, .kasan, .ubsan, .hungTask: return true
        // Lockdep turns itself off after its first report.
        case .lockdep, .oops, .stall, .panic: return false
        }
    }
}

/// A crash with the test that shows it.
public struct CrashFinding: Sendable {
    /// The crash.
    public let crash: KernelCrash
    /// The test; nil if its text cannot be read.
    public let test: LitmusTest?
    /// The text of the test as it was announced.
    public let announced: String
    /// How it was found, in one line, such as the command line.
    public let origin: String
    /// Whether the test by itself, in a fresh boot, made the same crash.
    public let showsAlone: Bool

    /// - Parameter test: the smallest test; nil keeps the announced text.
    public init(_ crash: KernelCrash, test: LitmusTest?, announced: String, origin: String, showsAlone: Bool)
    {
        (self.crash, self.test, self.announced) = (crash, test, announced)
        (self.origin, self.showsAlone) = (origin, showsAlone)
    }

    /// The text of a file: the test, and the kernel's lines as comments.
    public var text: String {
        var lines = ["# \(crash.headline)", "# \(origin)"]
        if !showsAlone {
            lines.append(
                "# By itself, in a fresh boot, this test did not show it: it depends on the tests before it, or on time."
            )
        }
        var text = announced
        if var test {
            test.name = Self.title(crash)
            text = test.text
        }
        lines += text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        while lines.last == "" { lines.removeLast() }
        lines += [""] + crash.lines.map { $0.isEmpty ? "#" : "# \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func title(_ crash: KernelCrash) -> String {
        let plain = crash.headline.map { $0.isASCII && $0 != "\"" && $0 != "\\" ? $0 : "?" }
        return String(plain.prefix(200))
    }
}
