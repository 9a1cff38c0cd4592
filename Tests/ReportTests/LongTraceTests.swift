// SPDX-License-Identifier: MIT
import Testing

@testable import Report

/// Tests of traces with more events than a picture shows.
@Suite("Long traces")
struct LongTraceTests {
    private func read(_ lines: [String], mostEvents: Int, ending: String = "\n") throws -> RecordedTrace {
        var reader = TraceReader(mostEvents: mostEvents)
        try reader.add(Array((([Lines.header] + lines).joined(separator: "\n") + ending).utf8))
        return try reader.finish()
    }

    private func names(_ trace: RecordedTrace) -> [String] { (0..<trace.count).map(trace.name) }

    private static func call(_ page: Int, to target: String, errno: Int = 0, t: Int) -> String {
        Lines.event(
            "set-memory-attributes2",
            #""offset":\#(page * 4096),"size":4096,"target":"\#(target)","errno":\#(errno),"gpa":\#(page * 4096)"#,
            t: t)
    }

    @Test func theFirstAndTheLastEventsAreKept() throws {
        let lines = (0..<1000).map { Lines.event("n\($0)", t: 2000 + $0) }
        let trace = try read(lines, mostEvents: 10)
        #expect(names(trace) == ["n0", "n1", "n2", "n3", "n4", "left-out"] + (995..<1000).map { "n\($0)" })
        let text = try writtenText { TextListing(trace).write(to: &$0) }
        #expect(text.contains("events=990"))
        #expect(trace.notes.count == 1 && trace.notes[0].contains("990 events in the middle are left out"))
        #expect(trace.notes[0].contains("--text") && trace.notes[0].contains("--events"))
    }

    @Test(arguments: [9, 10]) func aTraceAtTheLimitIsComplete(_ count: Int) throws {
        let lines = (0..<count).map { Lines.event("n\($0)", t: 2000 + $0) }
        let trace = try read(lines, mostEvents: 10)
        #expect(names(trace) == (0..<count).map { "n\($0)" } && trace.notes.isEmpty)
    }

    /// Events that were left out still determine the states of pages after them.
    @Test func pageStatesAfterEventsLeftOutAreCorrect() throws {
        var lines = [Lines.boot(pages: 64)] + (0..<4).map { Lines.event("head\($0)", t: 2000 + $0) }
        lines += (0..<16).map { Self.call($0, to: "private", t: 3000 + $0) }
        lines += [Self.call(3, to: "shared", t: 3100), Self.call(40, to: "private", errno: 11, t: 3101)]
        lines += (0..<5).map {
            Lines.event("host-access", #""gpa":\#($0 * 4096),"direction":"read","errno":0"#, t: 4000 + $0)
        }
        let trace = try read(lines, mostEvents: 10)
        #expect(
            names(trace).filter { !$0.hasPrefix("head") } == [
                "boot", "left-out", "pages-then", "pages-then", "pages-then", "host-access", "host-access",
                "host-access", "host-access", "host-access",
            ])
        let timeline = Timeline(trace)
        func state(_ page: UInt64) -> Timeline.State? {
            let row = timeline.rows.firstIndex { $0.page <= page && page < $0.page + $0.pages }
            return timeline.segments.first {
                !$0.state.isOverlay && $0.events.upperBound == trace.count
                    && row.map($0.rows.contains) == true
            }?.state
        }
        #expect(
            [0, 2, 3, 4, 15, 16, 40].map(state) == [
                .private, .private, .shared, .private, .private, .shared, .shared,
            ])
    }

    @Test func anInvalidLineIsReportedWithItsNumber() throws {
        var lines = (0..<100).map { Lines.event("n\($0)", t: 2000 + $0) }
        lines[50] = "{"
        let error = #expect(throws: ReportError.self) { try read(lines, mostEvents: 10) }
        #expect(error?.line == 52)
        // Only the last line may be incomplete.
        let trace = try read(
            (0..<100).map { Lines.event("n\($0)", t: 2000 + $0) } + [#"{"t":1,"#], mostEvents: 10, ending: "")
        #expect(trace.notes.contains { $0.contains("line 102 is cut off") })
        #expect(names(trace).last == "n99")
    }
}
