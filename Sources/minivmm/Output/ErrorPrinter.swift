// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain
import MiniVMM
import SystemPackage

// How errors are printed: what went wrong in one line, and what it means below.

/// Says what went wrong, what it means where that is known, and ends with a status.
///
/// - Parameter message: one line, whatever is in the names that it repeats.
func stop(_ message: String, _ status: ExitCode, _ diagnosis: Diagnosis? = nil) -> any Error {
    let message = ByteText.visible(message)
    let terminal = Terminal.diagnostics
    let name = terminal.styled("minivmm: ", .bad)
    // One line for programs that look for it; folded for people.
    if terminal.isTerminal {
        terminal.hanging(name, message, indent: 9)
    } else {
        terminal.print(name + message)
    }
    if let diagnosis { terminal.print(diagnosis) }
    return status
}

extension Terminal {
    /// Below this a label has its text on the same line, and the rest of it at the left.
    private static let narrow = 60

    /// The lines of a diagnosis, indented.
    func print(_ diagnosis: Diagnosis, indent: Int = 2) {
        labelled(diagnosis.lines, indent: indent)
    }

    /// Texts behind labels, folded, in a column of their own where there is room for one.
    func labelled(_ lines: [(label: String, text: String)], indent: Int) {
        var terminal = self
        terminal.width = min(width, 100)
        let isNarrow = width < Self.narrow
        let margin = String(repeating: " ", count: isNarrow ? min(indent, 2) : indent)
        let column = margin.count + (isNarrow ? 2 : (lines.map(\.label.count).max() ?? 0) + 2)
        var before = ""
        for (label, text) in lines {
            // A label that comes again is said once.
            let said = label == before ? "" : label + ":"
            before = label
            let gap = max(isNarrow && !said.isEmpty ? 1 : 0, column - margin.count - said.count)
            let start = margin + styled(said, .bold) + String(repeating: " ", count: gap)
            terminal.hanging(start, text, indent: column, used: max(column, margin.count + said.count + gap))
        }
    }
}

extension Diagnosis {
    /// Something about a file that the command reads or writes.
    static func file(_ what: String, _ error: any Error, call: String = "write") -> Diagnosis? {
        guard let errno = error as? Errno else { return nil }
        let error = MachineError.backend(call: call, errno: errno, attempted: what, hint: nil)
        return error.diagnosis
    }

    /// The software kernel has no CPU.
    static func engine(_ message: String) -> Diagnosis {
        Diagnosis(
            attempted: "to open the Unicorn engine, the CPU of the software kernel",
            answer: "no library of that name: \(message)",
            means:
                "The library is not installed here; minivmm opens it when it runs, and is built without it.",
            advice: "Install it (Debian: libunicorn2), or take a machine that offers /dev/kvm.")
    }
}

extension Diagnosis? {
    /// The four lines as members of an object; null where there is nothing to explain.
    var json: [(String, JSON)] {
        let lines = self?.lines ?? ["attempted", "answer", "means", "try"].map { ($0, "") }
        return lines.map { ($0.label, self == nil ? .null : .string($0.text)) }
    }
}
