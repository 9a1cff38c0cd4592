// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import minivmm

/// The manual, held against what `--experimental-dump-help` says, and against the readers of manuals.
@Suite("Manual pages", .enabled(if: Command.isBuilt, Command.missing))
struct ManualTests {
    private static let sections = [
        "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO",
    ]

    private func dump() throws -> HelpDump.Command {
        let text = try Command.run(["--experimental-dump-help"]).output
        return try JSONDecoder().decode(HelpDump.self, from: Data(text.utf8)).command
    }

    /// Names without their ending, and texts.
    private func pages(_ directory: Scratch) throws -> [String: String] {
        let result = try Command.run(["generate-manual", directory.url.path, "--date", "2026-11-24"])
        #expect(result.status == 0, "\(result.diagnostics)")
        var pages: [String: String] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: directory.url.path) {
            #expect(name.hasSuffix(".1"))
            pages[String(name.dropLast(2))] = try String(
                contentsOfFile: directory.path(name), encoding: .utf8)
        }
        return pages
    }

    @Test func everySubcommandAndOptionHasItsPlace() throws {
        let top = try dump()
        let pages = try pages(Scratch())
        let shown = (top.subcommands ?? []).filter { $0.shouldDisplay && $0.commandName != "help" }
        #expect(shown.count >= 9)
        #expect(Set(pages.keys) == Set(["minivmm"] + shown.map { "minivmm-\($0.commandName)" }))
        for command in [top] + shown {
            let name = command.commandName == "minivmm" ? "minivmm" : "minivmm-\(command.commandName)"
            let page = try #require(pages[name], "\(name)")
            for section in Self.sections {
                #expect(page.contains(section.contains(" ") ? ".SH \"\(section)\"\n" : ".SH \(section)\n"))
            }
            #expect(page.contains("\n.EX\nminivmm "), "\(name) has no example")
            // Where each of them is explained, not merely named.
            let options =
                page.components(separatedBy: ".SH OPTIONS\n").last?.components(separatedBy: ".SH ").first
                ?? ""
            let terms = options.components(separatedBy: ".TP\n").dropFirst()
            for argument in (command.arguments ?? []).filter(\.shouldDisplay) {
                let spelled = (argument.names ?? []).map { ($0.kind == "long" ? "--" : "-") + $0.name }
                let wanted = spelled.isEmpty ? [argument.valueName ?? ""] : spelled
                let term = terms.first { term in
                    let first = plain(term.components(separatedBy: "\n")[0])
                    let words = first.components(separatedBy: CharacterSet(charactersIn: ", "))
                    return wanted.allSatisfy { words.contains($0) }
                }
                let text = try #require(term, "\(name): \(wanted)")
                #expect(
                    text.components(separatedBy: "\n").filter { !$0.isEmpty }.count > 1, "\(name): \(wanted)")
                for value in argument.allValues ?? [] {
                    #expect(plain(text).contains(value), "\(name): \(wanted) \(value)")
                }
            }
        }
    }

    @Test func theOverviewNamesAllOthers() throws {
        let pages = try pages(Scratch())
        let overview = plain(pages["minivmm"] ?? "")
        for name in pages.keys where name != "minivmm" { #expect(overview.contains("\(name)(1)"), "\(name)") }
        // What is for the makers of packages only.
        #expect(!overview.contains("generate-manual"))
    }

    /// Every example is run but the measurement. A command may use the files of those before it.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func examplesWork() throws {
        var count = 0
        for (name, page) in try pages(Scratch()) where name != "minivmm-bench" {
            let directory = try Scratch()
            try FileManager.default.createSymbolicLink(
                atPath: directory.path("litmus"), withDestinationPath: Self.root + "/litmus")
            for block in page.components(separatedBy: ".EX\n").dropFirst() {
                let command = plain(block.components(separatedBy: "\n.EE")[0])
                let words = command.split(separator: " ").map(String.init)
                #expect(words.first == "minivmm")
                // A search that its own time limit ends early has another status.
                let patience =
                    words.contains("explore") && !words.contains("--timeout") ? ["--timeout", "100000"] : []
                let result = try Command.run(Array(words.dropFirst()) + patience, in: directory.url)
                // A kernel that breaks a rule is no good place to run a guest, and one test catches few faults.
                let fails =
                    words.contains("--plant") || words.contains("--faults")
                    || words.contains("explore") && words.contains("--abi")
                let endsEarly = words.contains("explore") && words.contains("--timeout")
                let status: Int32 = fails ? 1 : endsEarly ? 3 : 0
                #expect(result.status == status, "\(name): \(command)\n\(result.diagnostics)")
                count += 1
            }
        }
        #expect(count >= 20)
    }

    @Test(arguments: [
        ("/usr/bin/groff", ["-ww", "-man", "-Tutf8", "-Kutf8"]),
        ("/usr/bin/mandoc", ["-Tlint", "-Wwarning"]),
    ]) func readersHaveNothingToSay(_ program: String, _ options: [String]) throws {
        guard FileManager.default.isExecutableFile(atPath: program) else { return }
        let directory = try Scratch()
        for name in try pages(directory).keys {
            let result = try Command.run(
                options + [directory.path("\(name).1")], tool: URL(fileURLWithPath: program))
            #expect(result.status == 0 && result.diagnostics == "", "\(name): \(result.diagnostics)")
            if program.hasSuffix("mandoc") { #expect(result.output == "", "\(name)") }
        }
    }

    @Test func aDirectoryThatIsNotThere() throws {
        let result = try Command.run(["generate-manual", "/no/such/directory"])
        #expect(result.status == 125)
        #expect(result.diagnostics.contains("No such file"))
        #expect(try Command.run(["generate-manual", "/tmp", "--date", "today"]).status == 64)
    }

    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path

    /// Text without roff's escapes.
    private func plain(_ roff: String) -> String {
        roff.replacing("\\-", with: "-").replacing(/\\f[BIR]/, with: "").replacing("\\&", with: "").replacing(
            "\\e", with: "\\")
    }
}
