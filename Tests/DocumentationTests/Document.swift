// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// A document with examples.
struct Document: CustomTestStringConvertible {
    /// Relative to the root of the repository.
    let path: String
    let text: String

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    init(_ path: String) throws {
        self.path = path
        text = try String(contentsOf: Self.root.appendingPathComponent(path), encoding: .utf8)
    }

    /// Every document whose examples are checked.
    static let paths: [String] = {
        let articles =
            (try? FileManager.default.contentsOfDirectory(
                atPath: root.appendingPathComponent("Sources/MiniVMM/MiniVMM.docc").path)) ?? []
        let documents =
            (try? FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent("docs").path))
            ?? []
        return ["README.md", "guest/README.md", "litmus/README.md", "lab/README.md", "CONTRIBUTING.md"]
            + documents.filter { $0.hasSuffix(".md") }.sorted().map { "docs/\($0)" }
            + articles.filter { $0.hasSuffix(".md") }.sorted().map { "Sources/MiniVMM/MiniVMM.docc/\($0)" }
    }()

    var testDescription: String { path }

    struct Example {
        let document: String
        let language: String
        let lines: [String]
        /// The line number of its first line.
        let line: Int
        var text: String { lines.joined(separator: "\n") }
        var place: String { "\(document):\(line)" }
    }

    /// The fenced blocks.
    var examples: [Example] {
        var examples: [Example] = []
        var open: (language: String, lines: [String], line: Int)?
        for (index, line) in text.components(separatedBy: "\n").enumerated() {
            guard line.hasPrefix("```") else {
                open?.lines.append(line)
                continue
            }
            if let (language, lines, start) = open {
                examples.append(Example(document: path, language: language, lines: lines, line: start))
                open = nil
            } else {
                open = (String(line.dropFirst(3)), [], index + 2)
            }
        }
        return examples
    }

    static func examples(_ path: String, _ language: String) throws -> [Example] {
        try Document(path).examples.filter { $0.language == language }
    }

    /// The text in backquotes, outside of blocks.
    var inlineCode: [String] {
        var inside = false
        var found: [String] = []
        var paragraph = ""
        func take() {
            let parts = paragraph.components(separatedBy: "`")
            found += parts.enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
            paragraph = ""
        }
        for line in text.components(separatedBy: "\n") {
            if line.hasPrefix("```") { inside.toggle() }
            if inside || line.isEmpty || line.hasPrefix("|") || line.hasPrefix("```") { take() }
            if !inside, !line.hasPrefix("```") { paragraph += " " + line }
        }
        take()
        return found.map { $0.trimmingCharacters(in: .whitespaces) }
    }
}

/// A command of a transcript and the output shown for it.
struct Typed {
    let command: String
    let line: Int
    /// Lines that must appear in this order; `...` and `…` are removed.
    var shown: [String] = []
    var status: Int32 = 0

    /// The arguments of `minivmm`, if that is the command.
    var words: [String]? {
        let words = Self.split(command)
        return words.first == "minivmm" ? Array(words.dropFirst()) : nil
    }

    /// The words of a command line. Double quotes keep words together.
    static func split(_ line: some StringProtocol) -> [String] {
        let quote: Character = "\""
        let parts = String(line).split(separator: quote, omittingEmptySubsequences: false)
        return parts.enumerated().flatMap { index, part in
            index % 2 == 1 ? [String(part)] : part.split(whereSeparator: { $0 == " " }).map(String.init)
        }
    }

    /// `$ command`, then its output. `$ echo $?` and a number give the exit status of the previous command.
    static func read(_ example: Document.Example) -> [Typed] {
        var typed: [Typed] = []
        var asksForStatus = false
        for (index, line) in example.lines.enumerated() {
            let text = line.trimmingCharacters(in: .whitespaces)
            if line == "$ echo $?" {
                asksForStatus = true
            } else if line.hasPrefix("$ ") {
                asksForStatus = false
                typed.append(Typed(command: String(line.dropFirst(2)), line: example.line + index))
            } else if let last = typed.indices.last {
                if asksForStatus, let status = Int32(text) {
                    typed[last].status = status
                } else if !text.isEmpty, !text.hasPrefix("..."), !text.hasPrefix("…") {
                    typed[last].shown.append(text)
                }
            }
        }
        return typed
    }

    /// The first line that is missing or out of order.
    func missing(in output: String) -> String? {
        var rest = output.components(separatedBy: "\n")[...]
        for line in shown {
            guard let place = rest.firstIndex(where: { Self.flat($0).contains(Self.flat(line)) }) else {
                return line
            }
            rest = rest[rest.index(after: place)...]
        }
        return nil
    }

    /// Examples are compared without regard to columns.
    private static func flat(_ line: String) -> String {
        line.split(separator: " ").joined(separator: " ")
    }
}
