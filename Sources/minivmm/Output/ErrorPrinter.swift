// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain
import MiniVMM
import SystemPackage

// How errors are printed: one line, and the diagnosis below.

/// Prints an error and its diagnosis.
///
/// - Parameters:
///   - message: what failed. Control characters in names that it repeats are escaped, so that it stays one line.
///   - status: the exit status.
///   - diagnosis: the four lines below the message.
/// - Returns: the error to throw, which ends the command with the status.
func stop(_ message: String, _ status: ExitCode, _ diagnosis: Diagnosis? = nil) -> any Error {
    let message = ByteText.visible(message)
    let terminal = Terminal.diagnostics
    let name = terminal.styled("minivmm: ", .bad)
    // Wrapped on a terminal only: programs that read the output expect one line.
    if terminal.isTerminal {
        terminal.hanging(name, message, indent: 9)
    } else {
        terminal.print(name + message)
    }
    if let diagnosis { terminal.print(diagnosis) }
    return status
}

extension Terminal {
    /// On terminals with fewer columns, text continues at the left edge and not in a column of its own.
    private static let narrow = 60

    /// Prints the four lines of a diagnosis, indented.
    func print(_ diagnosis: Diagnosis, indent: Int = 2) {
        labelled(diagnosis.lines, indent: indent)
    }

    /// Prints labels with wrapped texts, in two columns if the terminal is wide enough.
    func labelled(_ lines: [(label: String, text: String)], indent: Int) {
        var terminal = self
        terminal.width = min(width, 100)
        let isNarrow = width < Self.narrow
        let margin = String(repeating: " ", count: isNarrow ? min(indent, 2) : indent)
        let column = margin.count + (isNarrow ? 2 : (lines.map(\.label.count).max() ?? 0) + 2)
        var before = ""
        for (label, text) in lines {
            // A repeated label is printed once.
            let printed = label == before ? "" : label + ":"
            before = label
            let gap = max(isNarrow && !printed.isEmpty ? 1 : 0, column - margin.count - printed.count)
            let start = margin + styled(printed, .bold) + String(repeating: " ", count: gap)
            terminal.hanging(
                start, text, indent: column, used: max(column, margin.count + printed.count + gap))
        }
    }
}

extension Diagnosis {
    /// An error in reading or writing a file.
    static func file(_ what: String, _ error: any Error, call: String = "write") -> Diagnosis? {
        guard let errno = error as? Errno else { return nil }
        let error = MachineError.backend(call: call, errno: errno, attempted: what, hint: nil)
        return error.diagnosis
    }

    /// SoftKVM could not open its CPU, the Unicorn engine.
    static func engine(_ message: String) -> Diagnosis {
        Diagnosis(
            attempted: "to open the Unicorn engine, the CPU of SoftKVM",
            answer: "library not found: \(message)",
            means:
                "The library is not installed. minivmm loads it at run time and does not need it to be built.",
            advice: "Install it (Debian: libunicorn2), or use a machine with /dev/kvm.")
    }
}

extension Diagnosis? {
    /// The four lines as members of a JSON object; null if there is no diagnosis.
    var json: [(String, JSON)] {
        let lines = self?.lines ?? ["attempted", "answer", "means", "try"].map { ($0, "") }
        return lines.map { ($0.label, self == nil ? .null : .string($0.text)) }
    }
}
