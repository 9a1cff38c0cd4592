// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain

extension InterfaceVersion: ExpressibleByArgument {}

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Says what an exit, an errno, a hazard or another word of this interface means.",
        discussion: """
            Names are found without their kind (explain A6, explain private); a number may be several things (explain \
            exit 39 is one of them). An errno with the call's arguments is looked up in the validation table: \
            explain errno EINVAL offset=0 size=0x1800. With no word it lists the topics.
            """)

    @Argument(
        help: "A kind and a name, or a name; then key=value for an exit or an errno.", completion: .explained)
    var words: [String] = []
    @Option(help: "The version of the interface that an errno came from.")
    var abi = InterfaceVersion.linux74
    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        guard !words.isEmpty else { return printTopics() }
        switch Library.answer(words, version: abi) {
        case .found(let found): json ? printJSON(found) : printText(found)
        case .unknown(let word, let near):
            let hint =
                near.isEmpty
                ? "minivmm explain lists the topics" : "did you mean \(near.joined(separator: " or "))?"
            throw stop("\(word): nothing is known of it; \(hint)", .validationFailure)
        case .misused(let problem): throw stop(problem, .validationFailure)
        }
    }

    private func printText(_ found: [Explanation]) {
        let terminal = Terminal.output
        for (index, text) in found.enumerated() {
            if index > 0 { terminal.print() }
            terminal.paragraph(text.title, style: .bold)
            terminal.labelled(text.sections.map { ($0.label.rawValue, $0.text) }, indent: 2)
        }
    }

    private func printJSON(_ found: [Explanation]) {
        let topics = found.map { text -> JSON in
            var members: [(String, JSON)] = [
                ("kind", .string(text.kind.rawValue)), ("name", .string(text.name)),
                ("title", .string(text.title)),
                ("rows", .array(text.rows.map { .number(UInt64($0)) })),
            ]
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
        terminal.paragraph("minivmm explain [KIND] NAME [KEY=VALUE ...]", style: .bold)
        for kind in Kind.allCases {
            terminal.print()
            terminal.paragraph("\(kind.rawValue): \(kind.what)", indent: 2)
            terminal.paragraph(Library.names(kind).joined(separator: " "), indent: 4, style: .dim)
        }
    }
}
