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

    @Test func thePageHasEveryEventAndFetchesNothing() throws {
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

    /// The page's script knows kinds by their labels: each that it names is one, and each has a sign.
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
        // As many elements as any other page has.
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

    @Test func theDrawingIsXMLAndNamesTheKernel() throws {
        for lines in [[], Lines.fault(), [Lines.boot()]] {
            let trace = try trace(lines)
            let drawing = try writtenText {
                SVGPicture(trace, Timeline(trace), title: "t & <u>").write(to: &$0)
            }
            #expect(XMLParser(data: Data(drawing.utf8)).parse())
            #expect(drawing.contains("Simulated, no real kernel was involved: SoftKVM (Unicorn 2.0.1)"))
        }
    }

    @Test func picturesOfALargeTraceDoNotGrowWithIt() throws {
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
