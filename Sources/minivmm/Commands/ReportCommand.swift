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
            The trace is JSON lines as `minivmm run GUEST --trace FILE.jsonl` writes them. A picture's file may be \
            `-`, standard output. Without an option the page is written beside the trace, as TRACE.html.
            """)

    @Argument(
        help: ArgumentHelp("The trace, or - for standard input.", valueName: "trace.jsonl"),
        completion: .file(extensions: ["jsonl", "json"]))
    var trace: String
    @OptionGroup var pictures: PictureOptions
    @Flag(help: "Print the events as text, all of them.")
    var text = false
    @Option(
        help:
            "Events that a picture shows at most, the first half of them and the last; 0 for all. A page of many millions does not open in a browser."
    )
    var events = TraceReader.defaultEvents
    @Option(help: "The heading; by default the trace's name.")
    var title: String?

    func validate() throws {
        if events != 0, !(2...1_000_000_000).contains(events) {
            throw ValidationError("--events \(events): 0, or from 2 to 1000000000.")
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
                    "standard input has no name: say --html FILE, --svg FILE, --chrome FILE or --text.")
            }
            pictures.html = stem + ".html"
        }
        try pictures.draw(recorded, title: title ?? ByteText.lastComponent(stem))
        if self.pictures.html == nil, let html = pictures.html { Terminal.output.print(html) }
    }

    /// The trace's name without its ending.
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
            // Text has no page to keep small.
            return try TraceReader.read(file, mostEvents: text || events == 0 ? .max : events)
        } catch let error as ReportError {
            let place = error.line.map { ":\($0)" } ?? ""
            throw stop("\(isInput ? "standard input" : trace)\(place): \(error.message)", Status.usage)
        } catch {
            throw stop("\(trace): cannot be read: \(error)", Status.usage)
        }
    }
}
