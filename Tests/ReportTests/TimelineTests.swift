// SPDX-License-Identifier: MIT
import Testing

@testable import Report

@Suite("Pages over time")
struct TimelineTests {
    /// The state of a page after each event according to the segments.
    private func states(_ timeline: Timeline, page: UInt64, events: Int) -> [Timeline.State] {
        var found = [Timeline.State](repeating: .unallocated, count: events)
        guard let row = timeline.rows.firstIndex(where: { $0.page <= page && page < $0.page + $0.pages })
        else { return found }
        for segment in timeline.segments where !segment.state.isOverlay && segment.rows.contains(row) {
            for event in segment.events { found[event] = segment.state }
        }
        return found
    }

    @Test func segmentsAgreeWithAMapOfEveryPage() throws {
        for seed in 0..<60 {
            var numbers = Numbers(state: UInt64(seed))
            let pages = 4 + numbers.next(150)
            var lines = [Lines.boot(pages: pages)]
            var model = [[Timeline.State](repeating: .shared, count: pages)]
            for step in 0..<80 {
                let start = numbers.next(pages)
                let count = 1 + numbers.next(min(pages - start, numbers.next(3) == 0 ? pages : 5))
                let target = numbers.next(2) == 0 ? "private" : "shared"
                let works = numbers.next(4) != 0
                lines.append(
                    Lines.event(
                        "set-memory-attributes2",
                        #""offset":0,"size":\#(count * 4096),"target":"\#(target)","errno":\#(works ? 0 : 11),"gpa":\#(start * 4096)"#,
                        t: 2000 + step))
                var next = model[model.count - 1]
                if works {
                    for page in start..<start + count {
                        next[page] = target == "private" ? .private : .shared
                    }
                }
                model.append(next)
            }
            let trace = try trace(lines)
            let timeline = Timeline(trace)
            #expect(timeline.rows.reduce(0) { $0 + $1.pages } == UInt64(pages))
            for page in 0..<pages {
                #expect(
                    states(timeline, page: UInt64(page), events: trace.count) == model.map { $0[page] },
                    "seed \(seed)")
            }
            let count = timeline.counts(of: .private, events: trace.count)
            #expect(count == model.map { Int64($0.count { $0 == .private }) })
            #expect(timeline.segments.count <= 3 * trace.count)
        }
    }

    @Test func aTerabyteIsOneRow() throws {
        let trace = try trace(
            [Lines.boot(pages: 1 << 28)] + Lines.convert(0, 1 << 28, to: "private", t: 2000))
        let timeline = Timeline(trace)
        #expect(timeline.rows == [Timeline.Row(page: 0, pages: 1 << 28)])
        #expect(timeline.segments.count { !$0.state.isOverlay } == 2)
    }

    @Test func aFaultIsLinkedToItsConversionAndResume() throws {
        let trace = try trace(Lines.fault())
        let conversion = try #require(Timeline(trace).conversions.first)
        #expect(
            conversion.cause == 1 && conversion.start == 2 && conversion.end == 4 && conversion.resume == 5)
        #expect(conversion.succeeded && trace.endedWell == true)
    }

    @Test func aHypercallIsLinkedToTheConversionBeforeIt() throws {
        let call = #""number":12,"a0":4096,"a1":1,"a2":16,"by":"port","result":0"#
        let trace = try trace(
            [Lines.boot()] + Lines.convert(1, 1, to: "private", t: 2000) + [Lines.event("hypercall", call)]
                + Lines.convert(2, 1, to: "private", by: "vcpu1", t: 2000))
        let conversions = Timeline(trace).conversions
        #expect(conversions.map(\.cause) == [4, nil] && conversions.map(\.resume) == [4, nil])
    }

    @Test func holdsEndWithTheirRelease() throws {
        func hold(_ page: Int, _ name: String? = nil) -> String {
            Lines.event(
                "hold",
                #""gpa":\#(page * 4096),"size":4096,"yields":true"#
                    + (name.map { #","name":"\#($0)""# } ?? ""), by: "host1")
        }
        let trace = try trace([
            Lines.boot(), hold(1, "a"), hold(1, "b"), hold(2),
            Lines.event("release", #""gpa":4096,"size":4096,"name":"b""#),
            Lines.event("release", #""gpa":8192,"size":4096"#), Lines.event("release-holds", #""count":1"#),
            hold(3),
        ])
        let held = Timeline(trace).segments.filter { $0.state == .held }.map(\.events)
        #expect(Set(held) == [2..<4, 3..<5, 1..<6, 7..<8])
    }

    @Test func aHoleLastsUntilTheNextAccess() throws {
        let trace = try trace([
            Lines.event("file", #""name":"f","gpa":0,"size":16384,"state":"private""#, by: "host"),
            Lines.event("punch", #""gpa":4096,"size":4096"#, by: "child1"),
            Lines.event("access", #""gpa":0,"size":1,"direction":"read","errno":0"#, by: "child1"),
            Lines.event("access", #""gpa":4097,"size":1,"direction":"read","errno":0"#, by: "child1"),
        ])
        let timeline = Timeline(trace)
        #expect(timeline.segments.filter { $0.state == .hole }.map(\.events) == [1..<3])
        #expect(states(timeline, page: 3, events: 4) == [.private, .private, .private, .private])
    }

    /// Pages of SNP and TDX that the guest has not taken are drawn on their private state, until it takes them or they are
    /// shared.
    @Test func pagesThatTheGuestHasNotTaken() throws {
        func guest(_ page: Int, _ pages: Int, _ state: String) -> String {
            Lines.event("guest-pages", #""gpa":\#(page * 4096),"size":\#(pages * 4096),"state":"\#(state)""#)
        }
        let trace = try trace(
            [
                Lines.event("file", #""name":"f","gpa":0,"size":32768,"state":"private""#, by: "host"),
                guest(0, 8, "unassigned"), guest(2, 1, "unvalidated"), guest(2, 1, "taken"),
                guest(4, 1, "pending"), guest(4, 1, "blocked"), guest(0, 1, "a state of tomorrow"),
            ] + Lines.convert(5, 2, to: "shared", t: 3000).dropFirst().prefix(1) + [Lines.event("halt")])
        let timeline = Timeline(trace)
        func pages(_ state: Timeline.State) -> [String] {
            timeline.segments.filter { $0.state == state }.map { segment in
                let rows = timeline.rows[segment.rows]
                let end = rows.last.map { $0.page + $0.pages } ?? 0
                return "\(rows.first?.page ?? 0)-\(end - 1) \(segment.events)"
            }
            .sorted()
        }
        #expect(
            pages(.unassigned) == [
                "0-0 1..<6", "1-1 1..<9", "2-2 1..<2", "3-3 1..<9", "4-4 1..<4", "5-6 1..<7", "7-7 1..<9",
            ])
        #expect(pages(.unvalidated) == ["2-2 2..<3"])
        #expect(pages(.pending) == ["4-4 4..<5"] && pages(.blocked) == ["4-4 5..<9"])
        #expect(states(timeline, page: 4, events: 9) == Array(repeating: .private, count: 9))
        // The legend, the picture and the page name each of them, and draw it by more than a colour.
        let svg = try writtenText { SVGPicture(trace, timeline, title: "x").write(to: &$0) }
        let page = try writtenText { HTMLReport(trace, timeline, title: "x").write(to: &$0) }
        for state in ["unassigned", "unvalidated", "pending", "blocked"] {
            #expect(svg.contains("url(#\(state))") && svg.contains("\(state) ("), "\(state)")
            #expect(page.contains("[\"\(state)\","), "\(state)")
        }
    }

    /// The holder keeps the old pages, so the new pages in their place are not held.
    @Test func aHoldIsDetachedFromPunchedPages() throws {
        let range = #""gpa":4096,"size":12288"#
        let trace = try trace([
            Lines.event("file", #""name":"f","gpa":0,"size":20480,"state":"shared""#, by: "host"),
            Lines.event("hold", range + #","name":"h""#, by: "host"),
            Lines.event("punch", #""gpa":8192,"size":4096"#, by: "host"),
            Lines.event("punch", #""gpa":8192,"size":8192"#, by: "host"), Lines.event("halt"),
            Lines.event("release", range + #","name":"h""#, by: "host"), Lines.event("halt"),
        ])
        let timeline = Timeline(trace)
        func pages(_ state: Timeline.State) -> [String] {
            timeline.segments.filter { $0.state == state }.map { segment in
                let rows = timeline.rows[segment.rows]
                let (first, last) = (rows.first, rows.last)
                return "\(first?.page ?? 0)-\((last?.page ?? 0) + (last?.pages ?? 0) - 1) \(segment.events)"
            }
            .sorted()
        }
        #expect(pages(.held) == ["1-1 2..<5", "1-3 1..<2", "3-3 2..<3"])
        #expect(pages(.detached) == ["2-2 2..<5", "3-3 3..<5"])
        #expect(timeline.counts(of: .held, events: 7) == [0, 3, 2, 1, 1, 0, 0])
        #expect(timeline.counts(of: .detached, events: 7) == [0, 0, 1, 2, 2, 0, 0])
    }

    @Test func aConversionThatNeverEndsHasFailed() throws {
        let trace = try trace(
            [Lines.boot()] + Lines.convert(1, 2, to: "private", t: 2000).prefix(1) + [Lines.event("kick")])
        let timeline = Timeline(trace)
        #expect(timeline.segments.contains { $0.state == .failed && $0.events == 1..<3 })
        #expect(timeline.conversions.first?.succeeded == false)
    }
}
