// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// The page in a browser: keys are pressed, and what is shown is compared with what `report --text` says.
@Suite(
    "The page timeline in a browser", .serialized, .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Browser.program != nil, "needs a browser: make browser-test"))
struct BrowserTests {
    /// A run's page, and its events as text: actor and name.
    private func report(_ scratch: Scratch, _ payload: String) throws -> (
        page: String, events: [(String, String)]
    ) {
        let page = scratch.path("\(payload).html")
        let trace = scratch.path("\(payload).jsonl")
        _ = try Command.run(
            [
                "run", payload, "--backend", "soft", "--timeout", payload == "hang" ? "1" : "600", "--report",
                page,
                "--trace", trace,
            ])
        return (page, try events(trace))
    }

    private func events(_ trace: String) throws -> [(String, String)] {
        try Command.run(["report", trace, "--text"]).output.split(separator: "\n").filter {
            !$0.hasPrefix("#")
        }
        .map { line in
            let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: true)
            return (String(words[1]), String(words[2]))
        }
    }

    private func shown(_ browser: Browser) throws -> (step: Int, actor: String, name: String) {
        let name = try browser.text("document.getElementById('what').textContent")
        return (
            try #require(
                Int(
                    browser.text(
                        "Number(document.getElementById('where').textContent.split(' ')[0].replaceAll(',', ''))"
                    ))),
            try browser.text("document.querySelector('#now .who').textContent"),
            name == "KVM_SET_MEMORY_ATTRIBUTES2" ? "set-memory-attributes2" : name
        )
    }

    /// The sentences are filled in by the page: nothing is left open, and nothing is missing.
    @Test func everyEventIsASentence() throws {
        let scratch = try Scratch()
        let (page, events) = try report(scratch, "pinned")
        let browser = try Browser()
        try browser.open(page)
        let sentences = try browser.text("Array.from({ length: N }, (_, i) => sentence(i)).join('\\n')")
            .components(separatedBy: "\n")
        #expect(sentences.count == events.count)
        for (event, sentence) in zip(events, sentences) where event.1 != "console" {
            for word in ["{", "}", "undefined", "NaN", "?"] {
                #expect(!sentence.contains(word), "\(event.1): \(sentence)")
            }
        }
        for sentence in [
            "starts the machine: 1 vCPU, 16 MiB of RAM, all of it shared, with the image written through the host mapping",
            "KVM_SET_MEMORY_ATTRIBUTES2 pages 512 to 519 to private → EAGAIN, error_offset 0x205000; no page has changed",
            "calls by instruction: KVM_HC_MAP_GPA_RANGE for pages 512 to 519 to private → 0",
            "waits 20 µs for page 517, attempt 1",
            "has not converted pages 512 to 519 to private: EAGAIN after 16 calls",
            "has the host read page 517: succeeds", "ends with status 0",
        ] {
            #expect(sentences.contains(sentence), "\(sentence)")
        }
    }

    @Test func theArrowsGoThroughEveryEvent() throws {
        let scratch = try Scratch()
        let (page, events) = try report(scratch, "pinned")
        let browser = try Browser()
        try browser.open(page)
        #expect(try browser.text("document.querySelector('h1').textContent") == "pinned")
        #expect(
            try browser.text("document.getElementById('facts').textContent").contains("Simulated: SoftKVM"))
        #expect(try shown(browser).step == events.count)
        try browser.press("Home")
        for (index, event) in events.enumerated() {
            let now = try shown(browser)
            #expect(now.step == index + 1 && now.actor == event.0 && now.name == event.1)
            try browser.press("ArrowRight")
        }
        #expect(try shown(browser).step == events.count)
        try browser.press("PageUp")
        #expect(try shown(browser).step == events.count - 10)
        try browser.press("ArrowLeft")
        #expect(try shown(browser).step == events.count - 11)
        #expect(browser.complaints.isEmpty, "\(browser.complaints)")
        try browser.screenshot("pinned")
    }

    @Test func theStepsStateIsWhatIsDrawn() throws {
        let scratch = try Scratch()
        let (page, events) = try report(scratch, "explicit")
        let browser = try Browser()
        try browser.open(page)
        // The colour of a page in the column of the step, at a place where no letter is.
        func colour(_ page: Int) throws -> String {
            try browser.settle()
            return try browser.text(
                """
                (() => { const r = rowOfPage(\(page)), y = Math.round(yOf(rowTop[r]) + 3), x = box.nowAt + 3;
                const seen = new Set(), g = document.getElementById('picture').getContext('2d');
                for (let dx = 0; dx < 8; dx++) { const d = g.getImageData(x + dx, y, 1, 1).data; seen.add(d[2] > d[0] ? 'private' : 'shared'); }
                return [...seen].join('+'); })()
                """)
        }
        try browser.press("Home")
        var seen: Set<String> = []
        for index in events.indices where index > 0 {
            try browser.press("ArrowRight")
            guard try shown(browser).name == "converted" else { continue }
            let target = try browser.text("get(view.step, 'target')")
            let first = try #require(Int(browser.text("rowPage(rowOf[view.step])")))
            #expect(try colour(first) == target, "event \(index + 1)")
            seen.insert(target)
        }
        #expect(seen == ["private", "shared"])
        #expect(browser.complaints.isEmpty)
    }

    @Test func aFilterLeavesWhatItSays() throws {
        let scratch = try Scratch()
        let (page, _) = try report(scratch, "pinned")
        let browser = try Browser()
        try browser.open(page)
        _ = try browser.text("document.getElementById('filters').open = true")
        _ = try browser.text("document.getElementById('pages').focus()")
        try browser.type("517")
        _ = try browser.text("document.getElementById('picture').focus()")
        try browser.press("Home")
        var steps: [Int] = []
        while steps.last != (try shown(browser).step) {
            steps.append(try shown(browser).step)
            let pages = try browser.text(
                """
                (() => { const first = rowOf[view.step], last = first + rowsOf[view.step] - 1;
                return first >= 0 && rowPage(first) <= 517 && 517 < rowPage(last) + rowPages(last); })()
                """)
            #expect(pages == "true")
            try browser.press("ArrowRight")
        }
        #expect(steps.count > 10)
        // An actor that is switched off is skipped.
        _ = try browser.text("[...document.querySelectorAll('#actors input')][0].click()")
        try browser.press("Home")
        try browser.press("ArrowRight")
        #expect(try shown(browser).actor == "host")
        #expect(browser.complaints.isEmpty)
    }

    @Test func aClickTakesTheEventUnderIt() throws {
        let scratch = try Scratch()
        let (page, events) = try report(scratch, "implicit")
        let browser = try Browser()
        try browser.open(page)
        let fault = try #require(events.firstIndex { $0.1 == "memory-fault" })
        let place = try browser.text(
            "(() => { const r = document.getElementById('picture').getBoundingClientRect(); return (r.left + xOf(middle(\(fault)))) + ' ' + (r.top + 4 + laneOf[actorOf[\(fault)]] * box.lane + box.lane / 2); })()"
        ).split(separator: " ").compactMap { Double($0) }
        try browser.click(place[0], place[1])
        let now = try shown(browser)
        #expect(abs(now.step - (fault + 1)) <= 2 && now.actor == "vcpu0")
        #expect(try browser.text("document.getElementById('tip').hidden") == "false")
        try browser.screenshot("implicit")
    }

    @Test func aFailedRunSaysSo() throws {
        let scratch = try Scratch()
        let (page, _) = try report(scratch, "hang")
        let browser = try Browser()
        try browser.open(page)
        #expect(try browser.text("document.querySelector('.facts .bad').textContent").contains("time limit"))
        try browser.screenshot("hang")
    }

    @Test func noTextRunsAsAScript() throws {
        let scratch = try Scratch()
        let bad =
            #"</script><img src=x onerror=\"window.hacked=1;alert(1)\"><script>window.hacked=1</script>"#
        let trace = try scratch.file(
            "bad.jsonl",
            Array(
                """
                {"schema":"minivmm.trace/1","t":0,"backend":"\(bad)","host":"\(bad)"}
                {"t":1,"actor":"\(bad)","event":"\(bad)","gpa":4096,"\(bad)":"\(bad)"}
                {"t":2,"actor":"host","event":"stop","why":"\(bad)","status":1}

                """.utf8))
        let page = scratch.path("bad.html")
        #expect(
            try Command.run(["report", trace, "--html", page, "--title", "<img src=x onerror=alert(1)>"])
                .status == 0)
        let browser = try Browser()
        try browser.open(page)
        for key in ["Home", "ArrowRight", "End", "ArrowUp"] { try browser.press(key) }
        try browser.settle()
        #expect(try browser.text("window.hacked") == "undefined")
        #expect(browser.complaints.isEmpty, "\(browser.complaints)")
        #expect(try browser.text("document.querySelectorAll('img').length") == "0")
        #expect(
            try browser.text("document.querySelector('h1').textContent") == "<img src=x onerror=alert(1)>")
    }

    @Test func onAPhoneNothingLeavesTheWindow() throws {
        let scratch = try Scratch()
        let (page, _) = try report(scratch, "smp")
        let browser = try Browser()
        for (width, height) in [(360, 740), (768, 1000), (1440, 1000), (1920, 1080)] {
            try browser.size(width, height)
            try browser.open(page)
            #expect(
                try browser.text("document.documentElement.scrollWidth <= innerWidth") == "true", "\(width)")
            try browser.screenshot("smp-\(width)")
        }
        _ = try browser.text("document.getElementById('theme').click()")
        #expect(try browser.text("document.documentElement.dataset.theme") == "dark")
        try browser.screenshot("smp-dark")
    }

    @Test func aHundredThousandEventsAreThereInTime() throws {
        let scratch = try Scratch()
        var lines = [
            #"{"schema":"minivmm.trace/1","t":0,"backend":"SoftKVM","host":"generated"}"#,
            #"{"t":1,"actor":"host","event":"boot","image":0,"image_bytes":4096,"entry":0,"vcpus":4,"ram_bytes":40960000}"#,
        ]
        for index in 0..<33_333 {
            let range =
                #""gpa":\#(index * 7919 % 10_000 * 4096),"size":4096,"target":"\#(index % 3 == 0 ? "shared" : "private")""#
            let actor = #""actor":"vcpu\#(index % 4)""#
            lines.append(
                #"{"t":\#(index * 900 + 10),\#(actor),"event":"convert",\#(range),"contents":"preserve"}"#)
            lines.append(
                #"{"t":\#(index * 900 + 200),\#(actor),"event":"set-memory-attributes2","offset":0,\#(range),"errno":0}"#
            )
            lines.append(
                #"{"t":\#(index * 900 + 300),\#(actor),"event":"converted",\#(range),"contents":"preserve"}"#)
        }
        let trace = try scratch.file("large.jsonl", Array((lines.joined(separator: "\n") + "\n").utf8))
        let page = scratch.path("large.html")
        #expect(try Command.run(["report", trace, "--html", page]).status == 0)
        let browser = try Browser()
        try browser.open(page)
        let ready = try #require(Int(browser.text("document.documentElement.dataset.ready")))
        print("100,000 events: ready after \(ready) ms")
        #expect(ready < 4000)
        let start = Date()
        for _ in 0..<20 { try browser.press("ArrowLeft") }
        try browser.settle()
        let step = Date().timeIntervalSince(start) / 20 * 1000
        print("100,000 events: \(step) ms a step")
        #expect(step < 300)
        #expect(try shown(browser).step == 100_000 - 20)
        try browser.screenshot("large")
    }
}
