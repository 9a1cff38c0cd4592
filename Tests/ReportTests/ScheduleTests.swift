// SPDX-License-Identifier: MIT
import Foundation
import FoundationXML
import Testing

@testable import Report

@Suite("Drawings of schedules")
struct ScheduleTests {
    private func chart(title: String = "a race", bands: Int = 3) -> ScheduleChart {
        let outcomes = [
            ScheduleChart.Outcome("c = ok, r = SIGBUS", isAllowed: true, count: 10),
            ScheduleChart.Outcome("c = EAGAIN at 0, r = 0x41", isAllowed: true, count: 3),
            ScheduleChart.Outcome("c = ok, r = 0x41", isAllowed: false, count: 1),
        ]
        return ScheduleChart(
            title: title, backend: "LinuxKVM (Linux 7.3.4-lab)", unit: "Delays in ns.",
            strips: [
                .init(
                    "host1 read 0, preempted by host convert 0 private", note: "14 schedules",
                    bands: (0..<bands).map { number in
                        let start = UInt64(number) * 100
                        return .init(
                            start...(start + 99), label: "\(start) ..\(start + 99)",
                            outcomes: [outcomes[number % 3]], place: number == 1 ? "in gup <&>" : "",
                            waits: number == 0)
                    })
            ])
    }

    private func svg(_ chart: ScheduleChart) throws -> String {
        try writtenText { ScheduleDrawing(chart).writeSVG(to: &$0) }
    }

    @Test func theDrawingSaysWhatWasSeenAndWhere() throws {
        let text = try svg(chart())
        #expect(XMLParser(data: Data(text.utf8)).parse())
        for word in [
            "a race", "LinuxKVM (Linux 7.3.4-lab)", "host1 read 0, preempted by host convert 0 private",
            "14 schedules", "100 ..199", "c = EAGAIN at 0, r = 0x41", "in gup &lt;&amp;&gt;",
            "c = ok, r = 0x41 (forbidden)",
        ] {
            #expect(text.contains(word), "\(word)")
        }
        // One band and one sign in its line for each interval; the first is hatched twice.
        #expect(text.components(separatedBy: "url(#waits)").count - 1 == 2)
        #expect(text.components(separatedBy: "<g><title>").count - 1 == 3)
    }

    @Test func aPageHasTheDrawingAndLoadsNothing() throws {
        let page = try writtenText { ScheduleDrawing(chart()).writeHTML(to: &$0) }
        #expect(page.contains("<svg") && page.contains("default-src 'none'"))
        for word in ["https://", "src=", "@import", "<script"] { #expect(!page.contains(word), "\(word)") }
    }

    @Test func manyIntervalsAreCutAndCounted() throws {
        let text = try svg(chart(bands: 100))
        #expect(text.components(separatedBy: "<g><title>").count - 1 == ScheduleDrawing.mostBands)
        #expect(text.contains("… and \(100 - ScheduleDrawing.mostBands) more intervals"))
    }

    /// No band is too narrow for its letter, and together they fill the width.
    @Test func bandsAreWideEnough() throws {
        let widths = try svg(chart(bands: 32)).matches(
            of: /<g><title>[^\n]*\n<rect x="[0-9.]+" y="[0-9.]+" width="([0-9.]+)"/
        )
        .compactMap { Double($0.1) }
        #expect(widths.count == 32 && widths.allSatisfy { $0 >= 30 })
        #expect(abs(widths.reduce(0, +) - 1152) < 2)
    }

    @Test func noTextBecomesMarkup() throws {
        let hostile = #"</title></svg><script>alert(1)</script>"#
        let page = try writtenText { ScheduleDrawing(chart(title: hostile)).writeHTML(to: &$0) }
        #expect(!page.contains("<script") && page.contains("&lt;script&gt;"))
        #expect(XMLParser(data: Data(try svg(chart(title: hostile)).utf8)).parse())
    }
}
