// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import minivmm

/// Compares the manual with the output of `--experimental-dump-help`, and checks it with groff and mandoc.
@Suite("Manual pages", .enabled(if: Command.isBuilt, Command.missing))
struct ManualTests {
    private static let sections = [
        "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO",
    ]

    private func dump() throws -> HelpDump.Command {
        let text = try Command.run(["--experimental-dump-help"]).output
        return try JSONDecoder().decode(HelpDump.self, from: Data(text.utf8)).command
    }

    /// The text of each page, by its name without extension.
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

    @Test func everySubcommandAndOptionIsDocumented() throws {
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
            // The section that describes the options; the synopsis only names them.
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

    @Test func overviewNamesAllOtherPages() throws {
        let pages = try pages(Scratch())
        let overview = plain(pages["minivmm"] ?? "")
        for name in pages.keys where name != "minivmm" { #expect(overview.contains("\(name)(1)"), "\(name)") }
        // This command is for packagers only.
        #expect(!overview.contains("generate-manual"))
    }

    /// Runs every example except those of `bench`. A command may use files that earlier ones wrote.
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
                // A search that is stopped by the default time limit would have another exit status.
                let longLimit =
                    words.contains("explore") && !words.contains("--timeout") ? ["--timeout", "100000"] : []
                let result = try Command.run(Array(words.dropFirst()) + longLimit, in: directory.url)
                // A guest on a backend with a planted fault fails, and one test does not catch every fault. The form of an
                // exercise has no answer yet.
                let fails =
                    words.contains("--plant") || words.contains("--faults")
                    || words.contains("explore") && words.contains("--abi")
                    || words.contains("exercise") && words.contains("--check")
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
    ]) func readersPrintNoWarnings(_ program: String, _ options: [String]) throws {
        guard FileManager.default.isExecutableFile(atPath: program) else { return }
        let directory = try Scratch()
        for name in try pages(directory).keys {
            let result = try Command.run(
                options + [directory.path("\(name).1")], tool: URL(fileURLWithPath: program))
            #expect(result.status == 0 && result.diagnostics == "", "\(name): \(result.diagnostics)")
            if program.hasSuffix("mandoc") { #expect(result.output == "", "\(name)") }
        }
    }

    @Test func missingDirectoryIsAnError() throws {
        let result = try Command.run(["generate-manual", "/no/such/directory"])
        #expect(result.status == 125)
        #expect(result.diagnostics.contains("No such file"))
        #expect(try Command.run(["generate-manual", "/tmp", "--date", "today"]).status == 64)
    }

    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path

    /// The text without roff escapes.
    private func plain(_ roff: String) -> String {
        roff.replacing("\\-", with: "-").replacing(/\\f[BIR]/, with: "").replacing("\\&", with: "").replacing(
            "\\e", with: "\\")
    }
}
