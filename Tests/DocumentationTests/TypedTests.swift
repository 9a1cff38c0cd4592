// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import minivmm

/// The commands of the documents.
@Suite("Commands of the documents", .timeLimit(.minutes(120)))
struct TypedTests {
    /// Their transcripts come from one machine, so the output is not compared.
    private static let machineSpecific = ["README.md", "litmus/README.md", "docs/speed.md"]

    /// The command of the document, but on SoftKVM, which works on every machine.
    private func onSoft(_ words: [String]) -> [String] {
        let acceptsBackend = ["run", "demo", "tour", "litmus", "explore"].contains(words.first ?? "")
        return acceptsBackend && !words.contains("--backend") ? words + ["--backend", "soft"] : words
    }

    /// Creates the files that later commands use: a guest as my.elf, a test as my.litmus, a race as race.litmus.
    private func prepare(_ block: Document.Example, in directory: Tool.Directory) throws {
        if block.language == "asm", block.text.contains("_start:") {
            try directory.write("my.S", block.text + "\n")
            #expect(try Tool.shell(Tool.assembling, in: directory).status == 0, "\(block.place)")
        } else if block.language == "litmus" {
            try directory.write("my.litmus", block.text + "\n")
        } else if block.language == "", block.text.hasPrefix("parallel\n") {
            try directory.write(
                "race.litmus", "test \"a race\"\nmemory 1 pages shared\nhost write 0 0x41\n\(block.text)\n")
        }
    }

    /// All commands run in order, in one directory. Their statuses and outputs must match the document.
    @Test(
        .enabled(if: Tool.runsGuests, "needs a backend on which guests run"), arguments: Document.paths)
    func commandsPrintTheirDocumentedOutput(_ path: String) throws {
        let document = try Document(path)
        let directory = try Tool.Directory()
        for example in document.examples {
            try prepare(example, in: directory)
            guard example.language == "console" else { continue }
            for typed in Typed.read(example) {
                let place = "\(path):\(typed.line): \(typed.command)"
                // These take minutes; the lab's commands are parsed elsewhere.
                if ["lab/", "make ", ".ci/"].contains(where: typed.command.hasPrefix) { continue }
                guard let words = typed.words else {
                    #expect(typed.command.hasPrefix("cat "), "\(place): unknown command")
                    let result = try Tool.shell(typed.command, in: directory)
                    #expect(result.status == 0, "\(place)\n\(result.output)")
                    let missing = typed.missing(in: result.output)
                    #expect(missing == nil, "\(place): no line \(missing ?? "")")
                    continue
                }
                // Takes minutes, and the numbers differ between machines.
                if words.first == "bench" { continue }
                // Takes minutes; FaultTableTests compares its table.
                if words.starts(with: ["exercise", "--faults"]) { continue }
                let result = try Tool.minivmm(onSoft(words), in: directory)
                #expect(result.status == typed.status, "\(place)\n\(result.output)")
                if !Self.machineSpecific.contains(path) || words.first == "explain" {
                    let missing = typed.missing(in: result.output)
                    #expect(missing == nil, "\(place): no line \(missing ?? "")\n\(result.output)")
                }
                try checkPicture(of: words, in: directory, place)
            }
        }
    }

    /// The picture that a command draws must exist.
    private func checkPicture(of words: [String], in directory: Tool.Directory, _ place: String) throws {
        for (option, ending) in [("--report", "</html>\n"), ("--html", "</html>\n"), ("--svg", "</svg>\n")] {
            guard let index = words.firstIndex(of: option) else { continue }
            #expect(try directory.read(words[index + 1]).hasSuffix(ending), "\(place)")
        }
    }

    /// The lecture shows output for each command that prints, and takes an hour and a half.
    @Test func theLectureIsComplete() throws {
        let lecture = try Document("docs/lecture.md")
        let typed = lecture.examples.filter { $0.language == "console" }.flatMap(Typed.read)
        #expect(typed.count >= 25)
        for each in typed where each.words?.first != "report" {
            #expect(!each.shown.isEmpty, "docs/lecture.md:\(each.line): \(each.command)")
        }
        for subcommand in ["run", "tour", "demo", "probe", "litmus", "explore", "report", "explain"] {
            #expect(typed.contains { $0.words?.first == subcommand }, "\(subcommand)")
        }
        let tour = (1...10).map { "minivmm tour \($0) --backend soft --no-interactive" }
        for command in tour { #expect(typed.contains { $0.command == command }, "\(command)") }

        // The minutes in the headings increase and match the table.
        let headings = lecture.text.matches(of: /\n## (\d+) ([^\n]*)/).map { (Int($0.1) ?? -1, String($0.2)) }
        let rows = lecture.text.matches(of: /\n\| (\d+) \| \[([^\]]*)\]/).map {
            (Int($0.1) ?? -1, String($0.2))
        }
        #expect(headings.map(\.0) == rows.map(\.0) && headings.map(\.1) == rows.map(\.1))
        #expect(headings.map(\.0) == headings.map(\.0).sorted() && headings.last?.0 ?? 90 < 90)
        #expect(headings.first?.0 == 0)
        // Every picture that is mentioned must be drawn.
        for picture in Set(lecture.inlineCode.filter { $0.wholeMatch(of: /[a-z]+\.(html|svg)/) != nil }) {
            #expect(typed.contains { $0.command.contains(" \(picture)") }, "\(picture)")
        }
    }

    /// Commands in scripts and in sentences must be valid: every subcommand and option exists.
    @Test(arguments: Document.paths) func everyCommandIsValid(_ path: String) throws {
        let document = try Document(path)
        let scripts = document.examples.filter { $0.language == "sh" }.flatMap(\.lines)
        let typed = document.examples.filter { $0.language == "console" }.flatMap(Typed.read).map(\.command)
        let top = try HelpDump.current().command
        let mentions = Set((top.subcommands ?? []).map(\.commandName) + ["--version"])
        for text in scripts + typed + document.inlineCode {
            // A sentence may mention a subcommand without its arguments.
            for command in commands(in: text) where command.count > 1 || !mentions.contains(command[0]) {
                #expect(throws: Never.self, "\(path): \(command.joined(separator: " "))") {
                    _ = try Minivmm.parseAsRoot(command)
                }
            }
        }
    }

    /// Every option in a sentence must belong to some subcommand. The lab has its own options.
    @Test(arguments: Document.paths.filter { !$0.hasPrefix("lab/") }) func everyOptionIsValid(_ path: String)
        throws
    {
        let top = try HelpDump.current().command
        let known = Set(
            ([top] + (top.subcommands ?? [])).flatMap { $0.arguments ?? [] }.flatMap { $0.names ?? [] }.map(
                \.text))
        for code in try Document(path).inlineCode where code.hasPrefix("--") {
            let option = code.prefix { $0 != " " && $0 != "=" && $0 != "|" }
            #expect(known.contains(String(option)), "\(path): \(code)")
        }
    }

    /// The words after each `minivmm` of a line, up to the next shell operator.
    private func commands(in line: String) -> [[String]] {
        let code = line.replacing(#/\ +# .*/#, with: "").replacing("\\|", with: "/")
        return code.split(whereSeparator: { "|;&{}".contains($0) }).compactMap { part in
            var words = Typed.split(part)
            guard let start = words.firstIndex(where: { $0 == "minivmm" || $0.hasSuffix("/minivmm") })
            else { return nil }
            words = Array(words.dropFirst(start + 1))
            // Not commands: the program's name alone, and commands with parts left out.
            return words.isEmpty || words.contains("minivmm") || words.contains("…") ? nil : words
        }
    }

    /// The scripts of docs/run.md run in order.
    @Test(.enabled(if: Tool.runsGuests, "needs a backend on which guests run"))
    func theScriptsOfTheRunManualRun() throws {
        let document = try Document("docs/run.md")
        var count = 0
        for example in document.examples where example.language == "sh" {
            let directory = try Tool.Directory()
            for line in example.lines where line.hasPrefix("minivmm ") && line.contains(/\.(html|jsonl)/) {
                for words in commands(in: line) {
                    let result = try Tool.minivmm(onSoft(words), in: directory)
                    #expect(result.status == 0, "\(line)\n\(result.output)")
                    try checkPicture(of: words, in: directory, line)
                    count += 1
                }
            }
        }
        #expect(count >= 3)
    }
}
