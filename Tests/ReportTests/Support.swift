// SPDX-License-Identifier: MIT
import Foundation
import MiniVMM
import Report
import SystemPackage
import Testing

/// The bytes that a picture writes.
func written(_ body: (inout OutputBuffer) -> Void) throws -> [UInt8] {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent(
        "minivmm-report-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: path) }
    let file = try FileDescriptor.open(
        FilePath(path.path), .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
    defer { try? file.close() }
    var out = OutputBuffer(file)
    body(&out)
    out.flush()
    #expect(out.failure == nil)
    return try [UInt8](Data(contentsOf: path))
}

func writtenText(_ body: (inout OutputBuffer) -> Void) throws -> String {
    try #require(String(validating: written(body), as: UTF8.self), "not UTF-8")
}

/// Reads a trace from lines.
///
/// - Parameter header: the first line; nil if `lines` has one.
func trace(_ lines: [String], header: String? = Lines.header, ending: String = "\n") throws -> RecordedTrace {
    var reader = TraceReader()
    let text = ([header].compactMap { $0 } + lines).joined(separator: "\n") + ending
    // In pieces that split lines at any place.
    let bytes = Array(text.utf8)
    for start in stride(from: 0, to: bytes.count, by: 97) {
        try reader.add(bytes[start..<min(start + 97, bytes.count)])
    }
    return try reader.finish()
}

enum Lines {
    static let header =
        #"{"schema":"minivmm.trace/1","clock":"monotonic ns","t":1000,"backend":"SoftKVM","host":"Unicorn 2.0.1"}"#

    static func event(_ name: String, _ fields: String = "", by actor: String = "vcpu0", t: Int = 2000)
        -> String
    {
        #"{"t":\#(t),"actor":"\#(actor)","event":"\#(name)"\#(fields.isEmpty ? "" : ",")\#(fields)}"#
    }

    static func boot(pages: Int = 16, t: Int = 1500) -> String {
        event(
            "boot", #""image":0,"image_bytes":4096,"entry":0,"vcpus":1,"ram_bytes":\#(pages * 4096)"#,
            by: "host", t: t)
    }

    static func convert(_ page: Int, _ pages: Int, to target: String, by actor: String = "vcpu0", t: Int)
        -> [String]
    {
        let range = #""gpa":\#(page * 4096),"size":\#(pages * 4096),"target":"\#(target)""#
        return [
            event("convert", range + #","contents":"preserve""#, by: actor, t: t),
            event(
                "set-memory-attributes2",
                #""offset":\#(page * 4096),"#.dropLast() + "," + range + #","errno":0,"ns":40"#,
                by: actor, t: t + 50),
            event(
                "converted",
                range
                    + #","contents":"preserve","means":"the ABI's promise","calls":1,"busy":0,"waited_ns":0"#,
                by: actor, t: t + 60),
        ]
    }

    /// A guest that faults on a page, which is converted, and then ends.
    static func fault() -> [String] {
        [
            boot(),
            event(
                "memory-fault",
                #""gpa":12288,"bytes":4096,"flags":0,"wants":"private","errno":14,"verdict":"convert""#,
                t: 2000),
        ] + convert(3, 1, to: "private", t: 2010) + [
            event("resume", #""gpa":12288"#, t: 2080), event("exit-status", #""status":0"#, t: 3000),
            event("stop", #""why":"the guest ended with status 0","status":0"#, by: "host", t: 3100),
        ]
    }
}

/// A pseudo-random generator with a fixed sequence.
struct Numbers {
    var state: UInt64
    mutating func next(_ bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int((state >> 33) % UInt64(bound))
    }
}

/// Draws all pictures to `/dev/null`.
struct OutputBuffers {
    mutating func draw(_ trace: RecordedTrace, _ timeline: Timeline) {
        guard let nowhere = try? FileDescriptor.open("/dev/null", .writeOnly) else { return }
        defer { try? nowhere.close() }
        for picture in 0..<4 {
            var out = OutputBuffer(nowhere)
            switch picture {
            case 0: HTMLReport(trace, timeline, title: "t").write(to: &out)
            case 1: SVGPicture(trace, timeline, title: "t").write(to: &out)
            case 2: ChromeTrace(trace, timeline, title: "t").write(to: &out)
            default: TextListing(trace).write(to: &out)
            }
        }
    }
}
