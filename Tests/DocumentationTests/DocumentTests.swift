// SPDX-License-Identifier: MIT
import Foundation
import Litmus
import SoftKVM
import Testing

/// The examples of all documents: Swift must be in Snippets.swift or docs/example, which are compiled; guests are
/// assembled and run; litmus tests are run. ``TypedTests`` checks the commands.
@Suite("Examples of the documents", .timeLimit(.minutes(120)))
struct DocumentTests {
    @Test func thereAreDocuments() throws {
        #expect(Document.paths.count >= 12)
        for kind in ["swift", "asm", "litmus", "console", "sh"] {
            #expect(try Document.paths.contains { try !Document.examples($0, kind).isEmpty }, "\(kind)")
        }
    }

    @Test(arguments: Document.paths) func swiftExamplesAreCompiled(_ document: String) throws {
        let source = try [
            "Tests/DocumentationTests/Snippets.swift", "docs/example/Package.swift",
            "docs/example/Sources/example/main.swift",
        ].map { try String(contentsOf: Document.root.appendingPathComponent($0), encoding: .utf8) }
            .joined().replacing("path: \"../..\"", with: "path: \"../minivmm\"")
        func flat(_ text: String) -> String {
            text.components(separatedBy: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
                .filter { !$0.hasPrefix("// SPDX-") }.joined(separator: "\n")
        }
        for example in try Document.examples(document, "swift") {
            #expect(!example.text.isEmpty && flat(source).contains(flat(example.text)), "\(example.place)")
        }
    }

    @Test(arguments: Document.paths) func litmusTestsPass(_ document: String) throws {
        for example in try Document.examples(document, "litmus") {
            let source = try Source(parsing: example.text)
            #expect(Runner(SoftKVM()).run(source) == .passed, "\(example.place)")
        }
    }

    /// A complete guest states its status, `exit status: N`. A fragment states the value of RCX, `RCX: N`, and is
    /// completed.
    @Test(.enabled(if: Tool.runsGuests, "needs a backend on which guests run"), arguments: Document.paths)
    func guestsEndWithTheirStatedStatus(_ document: String) throws {
        for example in try Document.examples(document, "asm") where !example.text.contains("#include") {
            let isWhole = example.text.contains("_start:")
            let text =
                isWhole
                ? example.text
                : ".globl _start\n_start:\n\(example.text)\nmov %cl, %al\nout %al, $0xf4"
            let status = try #require(
                (isWhole
                    ? text.firstMatch(of: /exit status:? (\d+)/) : text.firstMatch(of: /RCX: (\d+)/))
                    .flatMap { Int32($0.1) }, "\(example.place)")
            let directory = try Tool.Directory()
            try directory.write("my.S", text + "\n")
            let assembled = try Tool.shell(Tool.assembling, in: directory)
            #expect(assembled.status == 0, "\(example.place): \(assembled.output)")
            // The first line has the options to run it with.
            let options =
                text.firstMatch(of: #/^// minivmm run my.elf( [^\n]*)/#)?.1.split(separator: " ").map(
                    String.init) ?? []
            let run = try Tool.minivmm(
                ["run", "my.elf", "--backend", "soft", "--quiet"] + options, in: directory)
            #expect(run.status == status, "\(example.place): \(run.output)")
        }
    }

    /// The documented start of a payload is the one that the built-in guests have.
    @Test func theStartOfAPayload() throws {
        let guest = try Document("guest/README.md")
        let heads = guest.examples.filter { $0.language == "asm" && $0.text.contains("#include") }
        #expect(heads.count == 1)
        for name in ["hello", "explicit", "pinned"] {
            let source = try Document("guest/\(name).S").text
            for head in heads {
                #expect(source.contains(head.text.replacing("NAME", with: name)), "guest/\(name).S")
            }
        }
    }

    /// Every documented way to build a guest works.
    @Test(.enabled(if: Tool.runsGuests, "needs a backend on which guests run"), arguments: Document.paths)
    func waysToAssembleWork(_ document: String) throws {
        let text = try Document(document)
        let lines = text.examples.filter { $0.language == "sh" }.flatMap(\.lines).filter {
            $0.contains("my.S")
        }
        guard !lines.isEmpty else { return }
        #expect(lines.contains(Tool.assembling), "\(document): differs from the command of the tests")
        let guest = try #require(
            text.examples.first { $0.language == "asm" && $0.text.contains("_start:") }, "\(document)")
        let status = try #require(guest.text.firstMatch(of: /exit status:? (\d+)/).flatMap { Int32($0.1) })
        for line in lines {
            let tools = ["clang", "gcc", "as", "objcopy"].filter {
                line.split(separator: " ").contains(Substring($0))
            }
            guard
                try tools.allSatisfy({ try Tool.shell("command -v \($0)", in: Tool.Directory()).status == 0 })
            else { continue }
            let directory = try Tool.Directory()
            try directory.write("my.S", guest.text + "\n")
            let made = try Tool.shell(line, in: directory)
            #expect(made.status == 0, "\(document): \(line)\n\(made.output)")
            let image = line.contains("my.bin") ? "my.bin" : "my.elf"
            let run = try Tool.minivmm(["run", image, "--backend", "soft", "--quiet"], in: directory)
            #expect(run.status == status, "\(document): \(line)\n\(run.output)")
        }
    }

    /// The picture of the README is what `run pinned --svg` draws, but for the version of the engine.
    @Test(.enabled(if: Tool.runsGuests, "needs a backend on which guests run"))
    func pictureIsCurrent() throws {
        func anyEngine(_ text: String) -> String { text.replacing(/Unicorn [0-9.]+/, with: "Unicorn") }
        let directory = try Tool.Directory()
        let run = try Tool.minivmm(
            ["run", "pinned", "--backend", "soft", "--quiet", "--svg", "pinned.svg"], in: directory)
        #expect(run.status == 0, "\(run.output)")
        let drawn = try directory.read("pinned.svg")
        #expect(try anyEngine(drawn) == anyEngine(Document("docs/images/pinned.svg").text))
    }
}
