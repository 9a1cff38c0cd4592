// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import Report

/// Checks the keys that the document of Chrome's trace-event format requires for each phase.
@Suite("Chrome's trace format")
struct ChromeTests {
    private typealias Event = [String: Any]

    private func events(_ lines: [String]) throws -> (events: [[String: Any]], other: [String: Any]) {
        let trace = try trace(lines)
        let bytes = try written { ChromeTrace(trace, Timeline(trace), title: "t").write(to: &$0) }
        let object = try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
        #expect(["ms", "ns"].contains(object["displayTimeUnit"] as? String ?? ""))
        return (
            try #require(object["traceEvents"] as? [[String: Any]]),
            try #require(object["otherData"] as? [String: Any])
        )
    }

    /// The last event of a trace is not taken for the end of a conversion that never ended.
    @Test func aConversionThatNeverEndsHidesNoEvent() throws {
        let lines = [Lines.boot(), Lines.convert(3, 1, to: "private", t: 2000)[0]]
        let (events, _) = try events(
            lines + [Lines.event("stop", #""why":"the time limit","status":124"#, by: "host", t: 3100)])
        #expect(events.contains { $0["name"] as? String == "stop" })
        let conversion = try #require(events.first { $0["cat"] as? String == "conversion" })
        #expect((conversion["args"] as? [String: Any])?["why"] == nil)
    }

    private func number(_ event: [String: Any], _ key: String) throws -> Double {
        try #require((event[key] as? NSNumber)?.doubleValue, "\(key) of \(event)")
    }

    @Test func everyEventHasTheKeysOfItsPhase() throws {
        let (events, other) = try events(Lines.fault())
        #expect(
            other["backend"] as? String == "SoftKVM (Unicorn 2.0.1)" && other["simulated"] as? String == "yes"
                && other["clock"] as? String == "simulated")
        var phases: Set<String> = []
        for event in events {
            let phase = try #require(event["ph"] as? String)
            phases.insert(phase)
            #expect(event["pid"] is Int && event["tid"] is Int && event["name"] is String, "\(event)")
            if phase != "M" { #expect(try number(event, "ts") >= 1 && event["cat"] is String, "\(event)") }
            switch phase {
            case "M":
                #expect(
                    ["process_name", "thread_name", "process_labels"].contains(event["name"] as? String ?? "")
                        && event["args"] is [String: Any])
            case "X": #expect(try number(event, "dur") >= 0)
            case "i": #expect(event["s"] as? String == "t")
            case "C":
                #expect((event["args"] as? [String: Any])?.values.allSatisfy { $0 is NSNumber } ?? false)
            case "s", "t", "f": #expect(event["id"] is Int)
            default: Issue.record("phase \(phase)")
            }
        }
        #expect(phases == ["M", "X", "i", "C", "s", "t", "f"])
    }

    @Test func spansOfATrackNestAndTimesAreInMicroseconds() throws {
        var lines = Lines.fault()
        for step in 0..<200 {
            lines += Lines.convert(
                step % 16, 1, to: step % 2 == 0 ? "shared" : "private", by: "vcpu\(step % 3)",
                t: 4000 + step * 70)
        }
        let (events, _) = try events(lines)
        for thread in Set(events.compactMap { $0["tid"] as? Int }) {
            let spans = try events.filter { $0["ph"] as? String == "X" && $0["tid"] as? Int == thread }
                .map { (try number($0, "ts"), try number($0, "ts") + number($0, "dur")) }
                .sorted { ($0.0, -$0.1) < ($1.0, -$1.1) }
            var open: [Double] = []
            for (start, end) in spans {
                while let last = open.last, last <= start + 1e-9 { open.removeLast() }
                if let last = open.last {
                    #expect(end <= last + 1e-9, "\(start) to \(end) ends after its parent")
                }
                open.append(end)
            }
        }
        let fault = try #require(events.first { $0["name"] as? String == "memory fault" })
        #expect(try number(fault, "ts") == 2.0 && abs(number(fault, "dur") - 0.08) < 1e-9)
    }

    @Test func flowsBeginAndEndInsideSpans() throws {
        let (events, _) = try events(Lines.fault())
        let flow = events.filter { $0["cat"] as? String == "flow" }
        #expect(flow.compactMap { $0["ph"] as? String } == ["s", "t", "f"])
        #expect(Set(flow.compactMap { $0["id"] as? Int }).count == 1)
        #expect(try flow.map { try number($0, "ts") } == [2.0, 2.01, 2.08])
    }

    /// A page with two holders is one held page.
    @Test func countersCountHeldPagesOnce() throws {
        func hold(_ event: String, _ page: Int, _ pages: Int, _ name: String) -> String {
            Lines.event(
                event, #""gpa":\#(page * 4096),"size":\#(pages * 4096),"name":"\#(name)""#, by: "host1")
        }
        let (events, _) = try events([
            Lines.boot(), hold("hold", 2, 4, "a"), hold("hold", 4, 4, "b"), hold("release", 2, 4, "a"),
            hold("release", 4, 4, "b"), Lines.event("halt"),
        ])
        let counts = events.filter { $0["name"] as? String == "held pages" }
            .compactMap { ($0["args"] as? [String: Any])?["pages"] as? Int }
        #expect(counts == [0, 4, 6, 4, 0])
    }

    @Test func countersCountPrivatePages() throws {
        let (events, _) = try events([Lines.boot()] + Lines.convert(2, 4, to: "private", t: 2000))
        let counts = events.filter { $0["name"] as? String == "private pages" }
            .compactMap { ($0["args"] as? [String: Any])?["pages"] as? Int }
        #expect(counts == [0, 4])
    }
}
