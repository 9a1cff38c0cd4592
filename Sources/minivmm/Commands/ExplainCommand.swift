// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain

extension InterfaceVersion: ExpressibleByArgument {}

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract:
            "Explains an exit, an errno, a call, a hazard, a term, or a line of another program's output.",
        discussion: """
            WORDS are one or several names: explain A6, explain shared bit, explain EAGAIN private. A kind before a name \
            selects one meaning: explain exit 39 and explain errno 39 differ. Without words it lists all topics.

            key=value arguments make the answer specific: explain errno EINVAL offset=0 size=0x1800 looks up the conversion \
            call's validation table; explain exit 9 reason=0x80000021 decodes the code; \
            explain call=KVM_SET_USER_MEMORY_REGION2 errno EINVAL flags=6 is about another call. Numbers are decimal or 0x hex.

            A whole line of output is recognised, too: strace, QEMU, a Rust VMM's MemoryFault { ... }, the kernel's log, and \
            traces of minivmm. Quote it for the shell, or pass a log on standard input: dmesg | minivmm explain -
            """)

    @Argument(
        help: ArgumentHelp(
            "Names, each after its kind if need be, then key=value; or a line of output; or - for standard input.",
            valueName: "words"),
        completion: .explained)
    var words: [String] = []
    @Option(help: "The version of the interface that an errno came from.")
    var abi = InterfaceVersion.linux74
    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        guard !words.isEmpty else { return printTopics() }
        if words == ["-"] { return try explainInput() }
        switch Library.answer(words, version: abi) {
        case .found(let found): json ? printJSON(found.map { (nil, $0) }) : printText(found)
        case .unknown(let word, let near): throw stop(Self.unknown(word, near, of: words), .validationFailure)
        case .misused(let problem): throw stop(Self.cut(problem, to: 400), .validationFailure)
        }
    }

    // MARK: errors

    /// Shortens a text for an error message: pasted input may be very long.
    private static func cut(_ text: String, to length: Int) -> String {
        text.utf8.count <= length ? text : String(text.prefix(length)) + "…"
    }

    /// More words than this are a line and not a list of names.
    private static let namesOnALine = 4

    private static func unknown(_ word: String, _ near: [String], of words: [String]) -> String {
        let line = words.joined(separator: " ")
        if line.prefix(1000).split(separator: " ").count > namesOnALine {
            return
                "no topic and no known message in \"\(cut(line, to: 60))\". explain recognises lines of strace, QEMU, Rust VMMs, the "
                + "kernel's log and traces of minivmm. Run `minivmm explain` for the list of topics."
        }
        guard let nearest = near.first else {
            return
                "no entry for \(word.isEmpty ? "an empty word" : "\"\(cut(word, to: 60))\""). Run `minivmm explain` for the list of topics."
        }
        return
            "no entry for \"\(cut(word, to: 60))\". Did you mean \(near.joined(separator: " or "))? (minivmm explain \(nearest))"
    }

    // MARK: standard input

    /// After so many different explanations the rest of the input is not read.
    private static let maximumTopics = 1000

    /// Explains each line of standard input that is recognised. A second line with the same explanation is only counted.
    private func explainInput() throws {
        var input = LogInput()
        var seen: Set<[String]> = []
        var topics: [(line: Int?, topic: Explanation)] = []
        var (lines, repeated) = (0, 0)
        while seen.count < Self.maximumTopics, let line = input.next() {
            lines += 1
            let found = Library.explanations(ofLine: line, version: abi)
            // Two memory faults that differ in their GPA only have the same meaning.
            let new = found.filter { topic in
                let texts = topic.sections.filter { $0.label != .attempted && $0.label != .answer }.map(
                    \.text)
                return seen.insert([topic.title] + texts).inserted
            }
            if new.isEmpty {
                repeated += found.isEmpty ? 0 : 1
            } else if json {
                topics += new.map { (lines, $0) }
            } else {
                let terminal = Terminal.output
                if seen.count > new.count { terminal.print() }
                let text = Self.cut(
                    line.trimmingPrefix { $0.isWhitespace }.description, to: max(20, terminal.width - 16))
                terminal.print(terminal.styled("line \(lines): \(text)", .dim))
                printText(new)
            }
        }
        if let errno = input.failure {
            throw stop("reading standard input: \(errno)", Status.monitorFailed)
        }
        guard !seen.isEmpty else {
            throw stop(
                "standard input has no line that explain recognises (\(lines) read). Run `minivmm explain` for the list of topics.",
                .validationFailure)
        }
        if json { return printJSON(topics) }
        if repeated > 0 {
            Terminal.output.print()
            Terminal.output.paragraph(
                "\(repeated) more line\(repeated == 1 ? " has" : "s have") one of these explanations.",
                style: .dim)
        }
    }

    // MARK: output

    private func printText(_ found: [Explanation]) {
        let terminal = Terminal.output
        for (index, text) in found.enumerated() {
            if index > 0 { terminal.print() }
            terminal.paragraph(text.title, style: .bold)
            terminal.labelled(text.sections.map { ($0.label.rawValue, $0.text) }, indent: 2)
        }
    }

    /// - Parameter found: topics, each with its line of standard input.
    private func printJSON(_ found: [(line: Int?, topic: Explanation)]) {
        let topics = found.map { line, text -> JSON in
            var members: [(String, JSON)] = [
                ("kind", .string(text.kind.rawValue)), ("name", .string(text.name)),
                ("title", .string(text.title)),
                ("rows", .array(text.rows.map { .number(UInt64($0)) })),
            ]
            if let line { members.append(("line", .number(UInt64(line)))) }
            for label in Explanation.Label.allCases {
                let texts = text.sections.filter { $0.label == label }.map { JSON.string($0.text) }
                if !texts.isEmpty { members.append((label.rawValue, .array(texts))) }
            }
            return .object(members)
        }
        Terminal.output.print(
            JSON.object([("schema", .string("minivmm.explain/1")), ("topics", .array(topics))]).text)
    }

    private func printTopics() {
        let terminal = Terminal.output
        if json {
            let kinds = Kind.allCases.map { kind in
                JSON.object([
                    ("kind", .string(kind.rawValue)), ("what", .string(kind.what)),
                    ("names", .array(Library.names(kind).map { .string($0) })),
                ])
            }
            terminal.print(
                JSON.object([("schema", .string("minivmm.explain/1")), ("kinds", .array(kinds))]).text)
            return
        }
        terminal.paragraph("minivmm explain [KIND] NAME ... [KEY=VALUE ...]", style: .bold)
        for kind in Kind.allCases {
            terminal.print()
            terminal.paragraph("\(kind.rawValue): \(kind.what)", indent: 2)
            let separator = kind == .term ? ", " : " "
            terminal.paragraph(Library.names(kind).joined(separator: separator), indent: 4, style: .dim)
        }
    }
}
