// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain
import Glibc
import MiniVMM
import Report
import SystemPackage

/// Options for pictures of a trace.
struct PictureOptions: ParsableArguments {
    @Option(
        name: [.customLong("report"), .customLong("html")],
        help: ArgumentHelp(
            "Write the page timeline as one HTML file. By default none is written.", valueName: "file.html"),
        completion: .file(extensions: ["html"]))
    var html: String?
    @Option(
        help: ArgumentHelp(
            "Write the page timeline as an SVG drawing. By default none is written.", valueName: "file.svg"),
        completion: .file(extensions: ["svg"]))
    var svg: String?
    @Option(
        help: ArgumentHelp(
            "Write a trace in Chrome's format, for Perfetto. By default none is written.",
            valueName: "file.json"),
        completion: .file(extensions: ["json"]))
    var chrome: String?

    /// Whether any picture is requested, so that a trace must be recorded.
    var isWanted: Bool { html != nil || svg != nil || chrome != nil }

    /// Writes the requested pictures.
    ///
    /// - Throws: status 125, after a message on standard error, if a picture cannot be written.
    func draw(_ trace: RecordedTrace, title: String) throws {
        guard isWanted else { return }
        let title = ByteText.visible(title)
        let timeline = Timeline(trace)
        if let html {
            try Picture.write(html) { HTMLReport(trace, timeline, title: title).write(to: &$0) }
        }
        if let svg { try Picture.write(svg) { SVGPicture(trace, timeline, title: title).write(to: &$0) } }
        if let chrome {
            try Picture.write(chrome) { ChromeTrace(trace, timeline, title: title).write(to: &$0) }
        }
    }
}

extension PictureOptions {
    /// Writes the requested pictures of a map of schedules.
    ///
    /// - Throws: as ``draw(_:title:)``.
    func draw(_ chart: ScheduleChart) throws {
        if let html { try Picture.write(html) { ScheduleDrawing(chart).writeHTML(to: &$0) } }
        if let svg { try Picture.write(svg) { ScheduleDrawing(chart).writeSVG(to: &$0) } }
    }
}

/// Files that pictures are written to.
enum Picture {
    /// - Parameter path: `-` is standard output.
    static func write(_ path: String, _ body: (inout OutputBuffer) -> Void) throws {
        // Writing to a closed pipe must be an error, not a signal.
        signal(SIGPIPE, SIG_IGN)
        let isOutput = path == "-"
        let path = isOutput ? "standard output" : path
        let file: FileDescriptor
        do {
            file =
                isOutput
                ? .standardOutput
                : try .open(
                    FilePath(argument: path), .writeOnly, options: [.create, .truncate, .closeOnExec],
                    permissions: [.ownerReadWrite, .groupRead, .otherRead])
        } catch {
            throw stop(
                "\(path): cannot be written: \(error)", Status.monitorFailed, .file("the picture", error))
        }
        var out = OutputBuffer(file)
        body(&out)
        out.flush()
        var failure = out.failure
        if !isOutput {
            // Some file systems report a full disk only on close.
            do { try file.close() } catch { failure = failure ?? (error as? Errno) ?? .ioError }
        }
        if let failure {
            throw stop(
                "\(path): cannot be written: \(failure); the file is incomplete", Status.monitorFailed,
                .file("the picture", failure))
        }
    }
}
