import Foundation
import Litmus
import SoftKVM
import Testing

/// The examples of all documents: Swift is what Snippets.swift compiles, guests are assembled and run, litmus tests and
/// commands are run.
@Suite("Examples of the documents", .timeLimit(.minutes(15)))
struct DocumentTests {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Every document with examples that are to be true.
    static let documents: [String] = {
        let articles =
            (try? FileManager.default.contentsOfDirectory(
                atPath: root.appendingPathComponent("Sources/MiniVMM/MiniVMM.docc").path)) ?? []
        return ["README.md", "guest/README.md", "litmus/README.md", "docs/lecture.md"]
            + articles.filter { $0.hasSuffix(".md") }.sorted().map { "Sources/MiniVMM/MiniVMM.docc/\($0)" }
    }()

    struct Example {
        let language: String
        let lines: [String]
        /// Line of its first line.
        let line: Int
        var text: String { lines.joined(separator: "\n") }
    }

    static func examples(_ document: String, _ language: String) throws -> [Example] {
        let text = try String(contentsOf: root.appendingPathComponent(document), encoding: .utf8)
        var examples: [Example] = []
        var open: (language: String, lines: [String], line: Int)?
        for (index, line) in text.components(separatedBy: "\n").enumerated() {
            guard line.hasPrefix("```") else {
                open?.lines.append(line)
                continue
            }
            if let (language, lines, start) = open {
                examples.append(Example(language: language, lines: lines, line: start))
                open = nil
            } else {
                open = (String(line.dropFirst(3)), [], index + 2)
            }
        }
        return examples.filter { $0.language == language }
    }

    @Test func thereAreDocuments() throws {
        #expect(Self.documents.count >= 10)
        let kinds = ["swift", "asm", "litmus", "console"]
        for kind in kinds {
            #expect(try Self.documents.contains { try !Self.examples($0, kind).isEmpty }, "\(kind)")
        }
    }

    @Test(arguments: documents) func swiftIsWhatIsCompiled(_ document: String) throws {
        let source = try String(
            contentsOf: Self.root.appendingPathComponent("Tests/DocumentationTests/Snippets.swift"),
            encoding: .utf8)
        func flat(_ text: String) -> String {
            text.components(separatedBy: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.joined(
                separator: "\n")
        }
        for example in try Self.examples(document, "swift") {
            #expect(flat(source).contains(flat(example.text)), "\(document):\(example.line)")
        }
    }

    @Test(arguments: documents) func litmusTestsPass(_ document: String) throws {
        for example in try Self.examples(document, "litmus") {
            let source = try Source(parsing: example.text)
            #expect(Runner(SoftKVM()).run(source) == .passed, "\(document):\(example.line)")
        }
    }

    /// A guest says how it ends: `exit status: N`.
    @Test(.enabled(if: Tool.runsGuests, "needs a kernel on which guests run"), arguments: documents)
    func guestsEndAsTheySay(_ document: String) throws {
        for example in try Self.examples(document, "asm") where example.text.contains("_start:") {
            let place = "\(document):\(example.line)"
            let status = try #require(
                example.text.firstMatch(of: /exit status:? (\d+)/).flatMap { Int32($0.1) }, "\(place)")
            let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: directory) }
            let (source, image) = (
                directory.appendingPathComponent("my.S"), directory.appendingPathComponent("my.elf")
            )
            try (example.text + "\n").write(to: source, atomically: true, encoding: .utf8)
            let assembled = try Tool.run(
                "/usr/bin/env",
                ["clang"] + [
                    "-nostdlib", "-static", "-fuse-ld=lld", "-Wl,-N,--image-base=0x100000,-Ttext=0x100000",
                    "-o",
                    image.path, source.path,
                ])
            #expect(assembled.status == 0, "\(place): \(assembled.output)")
            let run = try Tool.minivmm(["run", image.path, "--kernel", "soft", "--quiet"])
            #expect(run.status == status, "\(place): \(run.output)")
        }
    }

    /// The commands of the lecture and of the articles: each ends well.
    @Test(
        .enabled(if: Tool.runsGuests, "needs a kernel on which guests run"),
        arguments: documents.filter { $0.hasPrefix("docs") || $0.hasSuffix("History.md") })
    func commandsEndWell(_ document: String) throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try FileManager.default.createSymbolicLink(
            at: directory.appendingPathComponent("litmus"),
            withDestinationURL: Self.root.appendingPathComponent("litmus"))
        var count = 0
        for example in try Self.examples(document, "console") {
            for line in example.lines where line.hasPrefix("$ minivmm ") {
                let words = line.dropFirst("$ minivmm ".count).split(separator: " ").map(String.init)
                let result = try Tool.minivmm(words, in: directory)
                #expect(result.status == 0, "\(document): \(line)\n\(result.output)")
                #expect(!result.output.isEmpty, "\(document): \(line)")
                count += 1
                guard let place = words.firstIndex(of: "--report") else { continue }
                let page = try String(
                    contentsOf: directory.appendingPathComponent(words[place + 1]), encoding: .utf8)
                #expect(page.hasSuffix("</html>\n"), "\(line)")
            }
        }
        #expect(count >= 3)
    }
}
