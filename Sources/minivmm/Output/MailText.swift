// SPDX-License-Identifier: MIT
import MiniVMM

/// The layout of a report for a mail: plain text of 72 columns, which is Markdown, too.
enum MailText {
    private static let width = 72

    /// A title with its underline.
    static func title(_ text: String) -> [String] {
        let lines = wrapped(ByteText.visible(text))
        return lines + [String(repeating: "=", count: lines.map(\.count).max() ?? 0)]
    }

    static func section(_ name: String) -> [String] {
        ["", name, String(repeating: "-", count: name.count), ""]
    }

    /// A quoted text, such as a test or the kernel's log.
    static func indented(_ text: String) -> [String] {
        text.split(separator: "\n", omittingEmptySubsequences: false).map {
            $0.isEmpty ? "" : "    \(ByteText.visible(String($0)))"
        }
    }

    /// Lines of at most 72 columns. A longer word has a line of its own.
    static func wrapped(_ text: String, indent: String = "", first: String? = nil) -> [String] {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            let prefix = lines.isEmpty ? first ?? indent : indent
            if !line.isEmpty, prefix.count + line.count + 1 + word.count > width {
                lines.append(prefix + line)
                line = String(word)
            } else {
                line += (line.isEmpty ? "" : " ") + word
            }
        }
        return lines + [(lines.isEmpty ? first ?? indent : indent) + line]
    }

    /// How to build and run the program of a finding.
    static let building =
        wrapped("reproducer.c needs nothing but a C compiler. As root:")
        + ["", "    gcc -O1 -pthread -o reproducer reproducer.c && ./reproducer", ""]
}

extension KernelFacts {
    /// The facts in a report.
    var lines: [String] {
        var lines = MailText.wrapped("\(release)\(build.map { ", \($0)" } ?? "")")
        if !parameters.isEmpty {
            lines += MailText.wrapped("Parameters: \(parameters.joined(separator: ", ")).")
        }
        guard let configuration else {
            return lines
                + MailText.wrapped(
                    "The configuration is not in \(configurationPlace). This prints it, if the kernel has it: zgrep -E 'KVM|PREEMPT|NUMA' /proc/config.gz"
                )
        }
        return lines + [""] + configuration.map { "    \($0)" }
    }
}
