// SPDX-License-Identifier: MIT
import ArgumentParser
import MiniVMM
import Report
import SystemPackage

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Makes pictures of a recorded trace.",
        discussion: """
            The trace is a file in JSON lines, as written by `minivmm run GUEST --trace FILE.jsonl` or by any other \
            VMM: docs/trace.md documents the format. Without options, the page timeline of TRACE.jsonl is written \
            to TRACE.html. The file name - is standard output.
            """)

    @Argument(
        help: ArgumentHelp("The trace file, or - for standard input.", valueName: "trace.jsonl"),
        completion: .file(extensions: ["jsonl", "json"]))
    var trace: String
    @OptionGroup var pictures: PictureOptions
    @Flag(help: "Print all events as text. --events does not limit the text.")
    var text = false
    @Option(
        help:
            "The limit for events in a picture, from 2 to 1000000000; 0 for all. Of a longer trace, a picture shows the first and the last events, half of the limit each. Browsers cannot open pages with many millions of events."
    )
    var events = TraceReader.defaultEvents
    @Option(help: "The heading of the pictures. The default is the name of the trace without its extension.")
    var title: String?

    func validate() throws {
        if events != 0, !(2...1_000_000_000).contains(events) {
            throw ValidationError("--events \(events) is out of range: use 0 for all, or 2 to 1000000000.")
        }
    }

    func run() throws {
        let recorded = try read()
        for note in recorded.notes { Terminal.diagnostics.print("minivmm: \(trace): \(note)") }
        if text { try Picture.write("-") { TextListing(recorded).write(to: &$0) } }
        var pictures = pictures
        if !pictures.isWanted, !text {
            guard trace != "-" else {
                throw ValidationError(
                    "a trace from standard input needs --html FILE, --svg FILE, --chrome FILE or --text.")
            }
            pictures.html = stem + ".html"
        }
        try pictures.draw(recorded, title: title ?? ByteText.lastComponent(stem))
        if self.pictures.html == nil, let html = pictures.html { Terminal.output.print(html) }
    }

    /// The path of the trace without its extension.
    private var stem: String {
        for ending in [".jsonl", ".json"] where trace.hasSuffix(ending) {
            return String(trace.dropLast(ending.count))
        }
        return trace == "-" ? "trace" : trace
    }

    private func read() throws -> RecordedTrace {
        let isInput = trace == "-"
        do {
            let file =
                isInput
                ? .standardInput
                : try FileDescriptor.open(FilePath(argument: trace), .readOnly, options: .closeOnExec)
            defer { if !isInput { try? file.close() } }
            // Only pictures are limited.
            return try TraceReader.read(file, mostEvents: text || events == 0 ? .max : events)
        } catch let error as ReportError {
            let place = error.line.map { ":\($0)" } ?? ""
            throw stop("\(isInput ? "standard input" : trace)\(place): \(error.message)", Status.usage)
        } catch {
            let near =
                error as? Errno == .noSuchFileOrDirectory ? DirectoryListing.suggestion(for: trace) : ""
            throw stop("\(trace): cannot be read: \(error)\(near)", Status.usage)
        }
    }
}
