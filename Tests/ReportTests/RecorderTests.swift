// SPDX-License-Identifier: MIT
import Foundation
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM
@testable import Report

/// Compares a trace recorded in memory with the same trace read from JSON lines, and its text with the text trace.
@Suite("Recording a trace")
struct RecorderTests {
    /// A temporary file for a sink.
    private struct Output {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent(
            "minivmm-recorder-\(UUID().uuidString)")
        let file: FileDescriptor

        init() throws {
            file = try .open(
                FilePath(path.path), .readWrite, options: [.create, .exclusiveCreate],
                permissions: .ownerReadWrite)
        }

        func bytes() throws -> [UInt8] {
            defer {
                try? file.close()
                try? FileManager.default.removeItem(at: path)
            }
            return try [UInt8](Data(contentsOf: path))
        }
    }

    private static func letter(_ letter: Int, _ vcpu: Int) -> (TraceEvent, Actor) {
        (.portOut(port: 0x3f8, size: 1, value: UInt64(letter)), .vcpu(vcpu))
    }

    /// Events of two vCPUs that print at the same time, conversions, a refused conversion, holds, and numbers that a
    /// double cannot represent.
    private static func events() throws -> [(TraceEvent, Actor)] {
        let page = try #require(PageRange(start: 0x3000, size: 0x1000))
        let request = ConversionRequest(range: page, to: .private, contents: .preserve)
        let failure = ConversionError(
            reason: .inUse([page]), request: request, result: ConversionResult(means: .promisedByABI))
        var events: [(TraceEvent, Actor)] = [
            (.booted(image: page, entry: 0x3000, vcpus: 2, ram: 1 << 16, sharedBit: nil), .monitor),
            (.conversionStarted(request), .monitor),
            (.attributesCall(offset: 0x3000, size: 0x1000, target: .private, nil, 0, gpa: 0x3000), .monitor),
            (.conversionFinished(request, ConversionResult(means: .promisedByABI)), .monitor),
        ]
        for (index, byte) in "two lines ▲ \u{1b}[2J\n".utf8.enumerated() {
            events += [letter(Int(byte), 0), letter(0x41 + index, 1)]
        }
        for (vcpu, error) in [(0, nil), (1, Errno.resourceTemporarilyUnavailable), (0, nil)] {
            events += [
                (.hypercall(number: 12, .max, 1 << 60, 7, byInstruction: false, result: .min), .vcpu(vcpu)),
                (.conversionStarted(request, before: FirstBytes(word: 7)), .vcpu(vcpu)),
                (
                    .attributesCall(offset: 0, size: 0x1000, target: .private, error, 0, gpa: 0x3000),
                    .vcpu(vcpu)
                ),
                (
                    error == nil
                        ? .conversionFinished(request, ConversionResult(means: .promisedByABI))
                        : .conversionFailed(failure), .vcpu(vcpu)
                ),
            ]
        }
        events += [
            (.held(page, yields: true), .monitor), (.heldByName("a \"name\"", page), .host(1)),
            (.portIn(port: 0x60, size: 4, value: .max), .vcpu(1)), letter(0x21, 1),
            (.stopped("the end", status: 0), .monitor), letter(0x22, 0),
        ]
        return events
    }

    /// One run: recorded in memory, read from JSON lines, and as a text trace.
    private static func run(
        _ events: [(TraceEvent, Actor)], mostEvents: Int = .max
    ) throws -> (recorded: RecordedTrace, read: RecordedTrace, text: String) {
        let (lines, text) = (try Output(), try Output())
        let recorder = TraceRecorder(mostEvents: mostEvents)
        let trace = Trace(
            backend: SoftKVM(), sinks: [recorder, JSONLinesTrace(lines.file), TextTrace(text.file)])
        for (event, actor) in events { trace.record(event, by: actor) }
        trace.flush()
        var reader = TraceReader(mostEvents: mostEvents)
        try reader.add(lines.bytes())
        return (recorder.recorded(), try reader.finish(), String(decoding: try text.bytes(), as: UTF8.self))
    }

    private func pictures(_ trace: RecordedTrace) throws -> [[UInt8]] {
        let timeline = Timeline(trace)
        return [
            try written { HTMLReport(trace, timeline, title: "t").write(to: &$0) },
            try written { SVGPicture(trace, timeline, title: "t").write(to: &$0) },
            try written { ChromeTrace(trace, timeline, title: "t").write(to: &$0) },
            try written { TextListing(trace).write(to: &$0) },
        ]
    }

    @Test func aRecordedTraceEqualsTheTraceRead() throws {
        let run = try Self.run(Self.events())
        #expect(try pictures(run.recorded) == pictures(run.read))
    }

    @Test func theTextEqualsTheTextTrace() throws {
        let run = try Self.run(Self.events())
        let text = try writtenText { TextListing(run.read).write(to: &$0) }
        #expect(text == run.text)
        #expect(text.components(separatedBy: " console ").count == 5)
    }

    /// As in `run`, the monitor's conversion at boot does not count.
    @Test func onlyConversionsOfVCPUsCount() throws {
        let expected = "2 conversions, 1 refused or failed"
        for trace in try [Self.run(Self.events()), Self.run(Self.events(), mostEvents: 6)].flatMap({
            [$0.recorded, $0.read]
        }) {
            #expect(trace.conversions.description == expected)
            let timeline = Timeline(trace)
            let page = try writtenText { HTMLReport(trace, timeline, title: "t").write(to: &$0) }
            #expect(page.contains("\"conversionText\":\"\(expected)\""))
            let drawing = try writtenText { SVGPicture(trace, timeline, title: "t").write(to: &$0) }
            #expect(timeline.conversions.isEmpty || drawing.contains(expected))
        }
    }

    @Test(arguments: [2, 3, 10, 100, 1000]) func aLongTraceIsCutTheSameWay(_ mostEvents: Int) throws {
        let events = try (0..<4).flatMap { _ in try Self.events() }
        let run = try Self.run(events, mostEvents: mostEvents)
        #expect(try pictures(run.recorded) == pictures(run.read))
        // One event for all that were left out, and one for each of three ranges of pages.
        #expect(run.recorded.count <= mostEvents + 4)
    }

    /// Memory is bounded: of a million events, only the first and the last are kept.
    @Test func ofAMillionEventsTheFirstAndTheLastAreKept() throws {
        let recorder = TraceRecorder(mostEvents: 1000)
        recorder.begin(backend: BackendIdentity(name: "k", host: "", kind: .simulated), time: 0)
        for index in 0..<1_000_000 {
            let event = TraceEvent.step(line: index, "step \(index)", outcome: "0", ok: true)
            recorder.write(event, by: .monitor, time: UInt64(index))
        }
        let trace = recorder.recorded()
        #expect(trace.count == 1001 && trace.strings.count <= 1002)
        #expect(
            trace.notes.count == 1 && trace.notes[0].hasPrefix("999000 events in the middle are left out"))
        #expect(trace.text(1000, .text) == "step 999999")
    }

    /// With long texts, fewer events are kept, so memory stays bounded.
    @Test func ofEventsWithLongTextsFewerAreKept() throws {
        let recorder = TraceRecorder(mostEvents: 1000)
        let long = String(repeating: "x", count: 1 << 20)
        for index in 0..<2000 {
            recorder.write(
                .step(line: index, index < 500 ? "" : long, outcome: "", ok: true), by: .monitor, time: 0)
        }
        let trace = recorder.recorded()
        #expect(trace.count > 520 && trace.count < 600)
        #expect(trace.number(trace.count - 1, .line) == 1999)
    }
}
