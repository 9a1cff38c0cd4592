// SPDX-License-Identifier: MIT
import Foundation
import FoundationXML
import Testing

@testable import Report

@Suite("Pictures of a trace")
struct PictureTests {
    private static let hostile = #"</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"#

    /// The JSON inside a page.
    private func data(_ page: String) throws -> [String: Any] {
        let start = try #require(page.range(of: "<script id=\"trace\" type=\"application/json\">"))
        let end = try #require(page.range(of: "</script>", range: start.upperBound..<page.endIndex))
        let json = try JSONSerialization.jsonObject(with: Data(page[start.upperBound..<end.lowerBound].utf8))
        return try #require(json as? [String: Any])
    }

    @Test func thePageHasEveryEventAndLoadsNothing() throws {
        let trace = try trace(Lines.fault())
        let page = try writtenText { HTMLReport(trace, Timeline(trace), title: "a fault").write(to: &$0) }
        let data = try data(page)
        #expect(
            data["count"] as? Int == trace.count && data["backend"] as? String == "SoftKVM (Unicorn 2.0.1)")
        #expect(data["simulated"] as? Bool == true && data["endedWell"] as? Bool == true)
        #expect((data["conversions"] as? [Int]) == [2, 4, 1, 5, 1])
        for word in ["http://", "https://", "src=", "@import", "url("] {
            #expect(!page.contains(word), "\(word)")
        }
        #expect(page.contains("<title>a fault · SoftKVM (Unicorn 2.0.1) · MiniVMM</title>"))
    }

    /// The script of the page identifies kinds by their labels. Each kind has a sign, and each label exists.
    @Test func everyKindHasItsSignOnThePage() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let script = try String(
            contentsOf: root.appendingPathComponent("Sources/CReportPage/page/signs.js"), encoding: .utf8)
        let signs = script.matches(of: /case "([^"]+)":/).map { String($0.1) }
        let letters = try #require(script.firstMatch(of: /letter\(\{([^}]+)\}/)).1
            .matches(of: /"?([a-z_A-Z\/ ]+)"?: "/).map { $0.1.trimmingCharacters(in: .whitespaces) }
        let bad = try #require(script.firstMatch(of: /BAD = new Set\(\[([^\]]+)\]/)).1
            .matches(of: /"([^"]+)"/).map { String($0.1) }
        let kinds = Set(EventKind.allCases.map(\.label))
        #expect(Set(signs + letters) == kinds.subtracting([EventKind.other.label]))
        #expect(kinds.isSuperset(of: bad))
    }

    @Test func noTextOfATraceBecomesMarkup() throws {
        let quoted = Self.hostile.replacingOccurrences(of: "\"", with: "\\\"")
        let trace = try trace(
            [Lines.event(quoted, #""\#(quoted)":"\#(quoted)","gpa":4096"#, by: quoted)],
            header: #"{"schema":"minivmm.trace/1","t":0,"backend":"\#(quoted)","host":"\#(quoted)"}"#)
        let timeline = Timeline(trace)
        let harmless = try faultTrace()
        let page = try writtenText { HTMLReport(trace, timeline, title: Self.hostile).write(to: &$0) }
        let plain = try writtenText { HTMLReport(harmless, Timeline(harmless), title: "x").write(to: &$0) }
        // The page has as many of these tags as a page of a harmless trace.
        for tag in ["<script", "</script", "<img", "<!--"] {
            #expect(
                page.components(separatedBy: tag).count == plain.components(separatedBy: tag).count, "\(tag)")
        }
        #expect(try data(page)["title"] as? String == Self.hostile)
        let drawing = try writtenText { SVGPicture(trace, timeline, title: Self.hostile).write(to: &$0) }
        #expect(!drawing.contains("<script") && XMLParser(data: Data(drawing.utf8)).parse())
        let chrome = try written { ChromeTrace(trace, timeline, title: Self.hostile).write(to: &$0) }
        #expect((try? JSONSerialization.jsonObject(with: Data(chrome))) != nil)
    }

    private func faultTrace() throws -> RecordedTrace { try trace(Lines.fault()) }

    @Test func theDrawingIsXMLAndNamesTheBackend() throws {
        for lines in [[], Lines.fault(), [Lines.boot()]] {
            let trace = try trace(lines)
            let drawing = try writtenText {
                SVGPicture(trace, Timeline(trace), title: "t & <u>").write(to: &$0)
            }
            #expect(XMLParser(data: Data(drawing.utf8)).parse())
            #expect(drawing.contains("Simulated, no real kernel was involved: SoftKVM (Unicorn 2.0.1)"))
            #expect(drawing.contains("Simulated time, starting at 1000 ns."))
        }
    }

    /// States and events use different letters, regardless of case.
    @Test func aLetterHasOneMeaning() {
        let states = Timeline.State.allCases.map(\.letter)
        let events = Set(EventKind.allCases.compactMap(SVGSign.letter))
        let letters = states + events
        #expect(Set(letters.map { $0.lowercased() }).count == letters.count, "\(letters)")
    }

    @Test func theDrawingHasExpectedAndSeenOutcomes() throws {
        let trace = try trace([
            Lines.event(
                "step", #""line":3,"text":"host read 0","outcome":"0x1","ok":false,"expected":"0x2""#,
                by: "host")
        ])
        let drawing = try writtenText { SVGPicture(trace, Timeline(trace), title: "t").write(to: &$0) }
        for text in [
            ">Expected<", ">Seen<", ">line 3: host read 0<", ">0x2<", ">0x1<", "1 step not as expected",
        ] {
            #expect(drawing.contains(text), "\(text)")
        }
        let page = try data(writtenText { HTMLReport(trace, Timeline(trace), title: "t").write(to: &$0) })
        #expect((page["strings"] as? [String])?.contains("0x2") == true)
    }

    @Test func thePageOpensAtTheFirstChange() throws {
        func opening(_ lines: [String]) throws -> Int {
            let trace = try trace(lines)
            return Timeline(trace).opening(trace)
        }
        let boot = [Lines.boot()] + Lines.convert(0, 16, to: "private", by: "host", t: 1600)
        let noChange = Lines.convert(2, 1, to: "private", t: 1700)
        #expect(try opening(boot) == 0)
        // A conversion to the state that the page has already changes nothing, and is better than boot.
        #expect(try opening(boot + noChange) == 4)
        #expect(try opening(boot + noChange + Lines.convert(3, 1, to: "shared", t: 1800)) == 7)
        #expect(try opening(Lines.fault()) == 1)
        let stop = Lines.event("stop", #""why":"the time limit","status":124"#, by: "host", t: 3100)
        #expect(try opening(boot + noChange + [stop]) == 7)
        let step = Lines.event("step", #""line":1,"text":"x","outcome":"y","ok":false"#, by: "host")
        #expect(try opening(boot + [step] + Lines.fault()) == 4)
    }

    @Test func thePicturesStateWhatTheyDraw() throws {
        let lines = [Lines.boot(pages: 4096)] + Lines.convert(512, 8, to: "private", t: 2000)
        let trace = try trace(lines + Lines.convert(1000, 1, to: "private", t: 3000))
        let timeline = Timeline(trace)
        let text =
            "Drawn: 9 of 4,096 pages in 2 blocks at full height, the other pages compressed; all 7 events."
        #expect(timeline.drawnText(trace) == text)
        #expect(timeline.rows.map(\.weight) == [1, 4, 1, 1, 1])
        let page = try writtenText { HTMLReport(trace, timeline, title: "t").write(to: &$0) }
        let drawing = try writtenText { SVGPicture(trace, timeline, title: "t").write(to: &$0) }
        #expect(page.contains(text) && drawing.contains(text))
    }

    @Test func picturesOfALargeTraceAreBounded() throws {
        var lines = [Lines.boot(pages: 20_000)]
        for page in 0..<10_000 {
            lines += Lines.convert(
                page * 2, 1, to: page % 3 == 0 ? "shared" : "private", t: 2000 + page * 100)
        }
        let trace = try trace(lines)
        let timeline = Timeline(trace)
        let drawing = try written { SVGPicture(trace, timeline, title: "large").write(to: &$0) }
        #expect(drawing.count < 4_000_000)
        let page = try written { HTMLReport(trace, timeline, title: "large").write(to: &$0) }
        #expect(page.count < trace.count * 80)
    }
}
