// SPDX-License-Identifier: MIT
import ArgumentParser
import SystemPackage

/// Writes the manual: a page for the command and one for each subcommand. Hidden in `minivmm help`.
struct ManualCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate-manual",
        abstract: "Writes the manual pages, minivmm.1 and one for each subcommand, to a directory.",
        shouldDisplay: false)

    @Argument(help: "An existing directory.", completion: .directory)
    var directory: String
    @Option(help: ArgumentHelp("The date printed on the pages. (default: none)", valueName: "yyyy-mm-dd"))
    var date = ""

    func validate() throws {
        guard date.isEmpty || date.wholeMatch(of: /[0-9]{4}-[0-9]{2}-[0-9]{2}/) != nil else {
            throw ValidationError("--date \(date): must be like 2026-11-24.")
        }
    }

    func run() throws {
        for (name, text) in Manual(try HelpDump.current(), date: date).pages {
            try TextFile.write(
                text, to: ByteText.join(directory, "\(name).1"), what: "the page")
        }
    }
}

/// All pages, from the argument parser's description and ``ManualTexts``.
struct Manual {
    private let top: HelpDump.Command
    private let date: String

    init(_ dump: HelpDump, date: String) {
        top = dump.command
        self.date = date
    }

    var pages: [(name: String, text: String)] {
        [(top.commandName, page(nil))] + top.documented.map { (pageName($0), page($0)) }
    }

    private func pageName(_ command: HelpDump.Command) -> String {
        "\(top.commandName)-\(command.commandName)"
    }

    /// - Parameter subcommand: nil for the overview.
    private func page(_ subcommand: HelpDump.Command?) -> String {
        let command = subcommand ?? top
        let name = subcommand.map(pageName) ?? top.commandName
        let words = subcommand.map { "\(top.commandName) \($0.commandName)" } ?? top.commandName
        var page = ManualPage(name: name, date: date)

        page.section("NAME")
        page.raw("\(ManualPage.escaped(name)) \\- \(ManualPage.escaped(sentenceInside(command.abstract)))")

        let arguments = (command.arguments ?? []).filter(\.shouldDisplay)
        page.section("SYNOPSIS")
        page.raw(".nh", isRequest: true)
        page.raw(
            ([ManualPage.bold(words)]
                + (subcommand == nil ? [ManualPage.italic("subcommand"), "[\\fIoption\\fR ...]"] : [])
                + arguments.filter { !$0.isPositional }.map(synopsis)
                + arguments.filter(\.isPositional).map(synopsis)).joined(separator: "\n"))
        page.raw(".hy", isRequest: true)

        page.section("DESCRIPTION")
        page.paragraphs(command.abstract ?? "")
        if let discussion = command.discussion {
            // Exit statuses have a section of their own.
            let kept = discussion.split(separator: "\n\n").filter { !$0.hasPrefix("Exit status:") }
            if !kept.isEmpty {
                page.paragraph()
                page.paragraphs(kept.joined(separator: "\n\n"))
            }
        }

        if subcommand == nil {
            page.section("SUBCOMMANDS")
            for each in top.documented {
                page.item("\(ManualPage.bold(pageName(each)))(1)", each.abstract ?? "")
            }
        }
        page.section("OPTIONS")
        for argument in arguments.filter(\.isPositional) + arguments.filter({ !$0.isPositional }) {
            page.item(term(argument), meaning(argument))
        }

        page.section("EXIT STATUS")
        for (status, meaning) in ManualTexts.exitStatuses(subcommand?.commandName) {
            page.item(ManualPage.bold(status), meaning)
        }
        page.section("ENVIRONMENT")
        for (variable, meaning) in ManualTexts.environment {
            page.item(ManualPage.bold(variable), meaning)
        }
        page.section("EXAMPLES")
        for (index, example) in ManualTexts.examples(subcommand?.commandName).enumerated() {
            if index > 0 { page.paragraph() }
            page.paragraphs(example.what)
            page.example(example.command)
        }

        page.section("SEE ALSO")
        let others = (subcommand == nil ? [] : [top.commandName]) + top.documented.map(pageName)
        page.raw(
            others.filter { $0 != name }.map { "\(ManualPage.bold($0))(1)" }.joined(separator: ",\n"))
        return page.text
    }

    /// A sentence as a phrase after a dash: "Boots a guest." becomes "boots a guest".
    private func sentenceInside(_ text: String?) -> String {
        guard let text, let first = text.first else { return "" }
        let rest = text.dropFirst()
        return first.lowercased() + (rest.last == "." ? rest.dropLast() : rest)
    }

    private func synopsis(_ argument: HelpDump.Argument) -> String {
        let text = argument.isPositional ? placeholder(argument) : term(argument, namesAtMost: 1)
        let repeated = text + (argument.isRepeating ? " ..." : "")
        return argument.isOptional ? "[\(repeated)]" : repeated
    }

    private func term(_ argument: HelpDump.Argument, namesAtMost: Int = .max) -> String {
        guard !argument.isPositional else { return placeholder(argument) }
        // Long names first, as in the examples.
        let names = (argument.names ?? []).sorted { $0.text.count > $1.text.count }.prefix(namesAtMost)
        let value = argument.takesValue ? " " + placeholder(argument) : ""
        return names.map { ManualPage.bold($0.text) }.joined(separator: ", ") + value
    }

    private func placeholder(_ argument: HelpDump.Argument) -> String {
        ManualPage.italic(argument.valueName ?? "value")
    }

    private func meaning(_ argument: HelpDump.Argument) -> String {
        var text = argument.abstract ?? ""
        if let values = argument.allValues, !values.isEmpty {
            text += " One of " + values.map { "`\($0)`" }.joined(separator: ", ") + "."
        }
        if argument.takesValue, let value = argument.defaultValue, !value.isEmpty {
            text += " By default `\(value)`."
        }
        return text
    }
}
