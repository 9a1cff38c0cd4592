// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// Opens the playground from its file, without a network, and uses it with keys and clicks.
@Suite(
    "The playground in a browser", .serialized, .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Browser.program != nil && Playground.page != nil, "needs a browser: make playground-test"))
struct PlaygroundPageTests {
    private static let race = """
        test "a race"
        memory 1 pages shared
        host write 0 0x41
        parallel
        host convert 0 private => c
        host1 read 0 => r
        allowed c = ok, r = 0x41
        end
        """

    /// A verdict, and each outcome of each block with whether it is permitted.
    private struct Judgement: Equatable {
        var verdict: String
        var outcomes: Set<String> = []
    }

    private static func judgements(_ tests: Any?, name: String) throws -> [String: Judgement] {
        var all: [String: Judgement] = [:]
        for test in try #require(tests as? [[String: Any]]) {
            let file = try #require(test[name] as? String)
            var judgement = Judgement(verdict: test["verdict"] as? String ?? "none")
            for block in test["blocks"] as? [[String: Any]] ?? [] {
                for outcome in block["outcomes"] as? [[String: Any]] ?? [] {
                    let results = try #require(outcome["results"] as? String)
                    let isPermitted = try #require(outcome["allowed"] as? Bool)
                    judgement.outcomes.insert("\(block["line"] ?? ""): \(results) \(isPermitted)")
                }
            }
            all[file.components(separatedBy: "litmus/").last ?? file] = judgement
        }
        return all
    }

    /// A request may take 2 s, which only one that hangs needs.
    @Test func everyLibraryTestHasTheVerdictOfTheCommand() throws {
        let litmus = Playground.root.appendingPathComponent("litmus").path
        let command = try Command.run([
            "litmus", "--backend", "soft", "--format", "json", litmus, "\(litmus)/snp", "\(litmus)/tdx",
        ])
        let expected = try Self.judgements(command.json?["tests"], name: "file")
        let playground = try Playground()
        try playground.evaluate(
            """
            window.all = []; (async () => { for (const test of library) {
              let timer = 0;
              const late = new Promise(r => { timer = setTimeout(() => { model.stop('late'); }, 2000); });
              const reply = await Promise.race([model.ask(requestText('run', [], test.text)), late]);
              clearTimeout(timer);
              const answer = reply.answer || { verdict: reply.stopped };
              window.all.push({ file: test.name + '.litmus', verdict: answer.verdict || JSON.stringify(answer),
                blocks: (answer.blocks || []).map(b => ({ line: b.line, outcomes: b.outcomes.map(o => ({ results: resultText(o.results), allowed: o.permitted })) })) });
            } window.done = true; })()
            """)
        try playground.wait("window.done", seconds: 900)
        let seen = try Self.judgements(
            JSONSerialization.jsonObject(with: Data(playground.text("JSON.stringify(window.all)").utf8)),
            name: "file")
        #expect(seen.count > 350 && seen.count == expected.count)
        for (file, judgement) in expected where seen[file] != judgement {
            Issue.record(
                "\(file): the command \(judgement), the playground \(String(describing: seen[file]))")
        }
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    @Test func theArrowKeysVisitEveryStep() throws {
        let playground = try Playground()
        #expect(
            try playground.text("element('answered').textContent").hasSuffix(
                "in this browser; no kernel ran."))
        try playground.run()
        #expect(try playground.verdict == "passed")
        #expect(try playground.text("element('where').textContent") == "step 1 of 11, line 7")
        try playground.evaluate("element('pages').focus()")
        try playground.press("Home")
        var lines: [String] = []
        for _ in 0..<11 {
            try playground.press("ArrowRight")
            lines.append(try playground.text("element('now').textContent"))
        }
        #expect(lines[2] == "hostconvert 0..3 private preserve → EAGAIN at 2")
        #expect(lines[8] == "hostread 0 → SIGBUS" || lines[7] == "hostread 0 → SIGBUS")
        #expect(Set(lines).count >= 10)
        // Page 2 is held at step 3, and all pages are private after step 7.
        try playground.evaluate("showFrame(3)")
        #expect(try playground.text("document.querySelectorAll('#pages .held').length") == "1")
        try playground.evaluate("showFrame(7)")
        #expect(try playground.text("document.querySelectorAll('#pages .page.private').length") == "4")
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    @Test func aRaceShowsAnOrderForEachOutcome() throws {
        let playground = try Playground()
        try playground.set(Self.race)
        try playground.run()
        #expect(try playground.verdict == "failed")
        let rows = try playground.text(
            "[...document.querySelectorAll('.outcomes .results')].map(e => e.textContent + ' ' + e.nextSibling.textContent).sort().join('; ')"
        )
        #expect(
            rows
                == "c = EAGAIN at 0, r = 0x41 forbidden; c = ok, r = 0x41 permitted; c = ok, r = SIGBUS forbidden"
        )
        for index in 0..<3 {
            try playground.evaluate("document.querySelectorAll('.outcomes button')[\(index)].click()")
            let outcome = try playground.text(
                "document.querySelectorAll('.outcomes .results')[\(index)].textContent")
            #expect(
                try playground.text("element('sequence').textContent") == "One order that leads to \(outcome)"
            )
            // The last steps of the order have the outcomes.
            let seen = try playground.text(
                "frames.filter(f => f.isInRace).map(f => f.outcome || '').filter(Boolean).sort().join(' ')")
            let named = outcome.components(separatedBy: ", ").compactMap {
                $0.components(separatedBy: " = ").last
            }
            #expect(seen == named.sorted().joined(separator: " "))
        }
        try playground.screenshot("race")
    }

    @Test func anErrorIsMarkedAtItsPlace() throws {
        let playground = try Playground()
        try playground.set("test \"t\"\nmemory 1 pages shared\nhost raed 0\n")
        try playground.wait("element('problem').textContent !== ''")
        #expect(
            try playground.text("document.querySelector('#problem button').textContent") == "Line 3, column 6"
        )
        #expect(try playground.text("document.querySelector('#coloured mark').textContent") == "raed")
        try playground.evaluate("document.querySelector('#problem button').click()")
        #expect(try playground.text("document.activeElement.id + ' ' + textArea.selectionStart") == "text 36")
        try playground.screenshot("error")
        try playground.run()
        #expect(try playground.text("element('player').hidden") == "true")
    }

    /// Nothing of the answer is on the page before an attempt; afterwards all of it is.
    @Test func aPredictionIsJudgedAndOnlyThenIsTheAnswerShown() throws {
        let playground = try Playground()
        try playground.evaluate("localStorage.clear(); addScore(-score.right, -score.asked)")
        try playground.evaluate("element('predict').click()")
        try playground.set(
            "test \"the read is SIGBUS\"\nmemory 1 pages shared\nhost write 0 0x41\nhost convert 0 private => ok\nhost read 0 => SIGBUS # gone\n"
        )
        try playground.evaluate("element('run').click()")
        try playground.wait("document.querySelector('.question')")
        #expect(try playground.text("element('masked').innerText.includes('SIGBUS')") == "false")
        #expect(try playground.text("element('editor').hidden") == "true")
        #expect(try playground.text("element('answer').innerText.includes('EAGAIN at 0')") == "true")
        try playground.predict("ok")
        #expect(try playground.text("document.querySelector('.feedback').textContent").contains("Right"))
        #expect(
            try playground.text(
                "[...document.querySelectorAll('#stepRows, #now, #pages')].some(e => e.innerText.includes('SIGBUS'))"
            ) == "false")
        try playground.predict("0x41")
        try playground.wait("element('verdict').dataset.verdict")
        let feedback = try playground.text("document.querySelector('.feedback').textContent")
        #expect(feedback.contains("you said 0x41") && feedback.hasSuffix("SIGBUS"))
        #expect(try playground.text("element('verdict').textContent").hasPrefix("You were right in 1 of 2."))
        #expect(
            try playground.text("element('score').textContent").hasPrefix("Your predictions: 1 of 2 right"))
        #expect(try playground.text("element('editor').hidden") == "false")
        try playground.screenshot("predicted")
    }

    @Test func aPredictionOfARaceNamesWhatIsPossible() throws {
        let playground = try Playground()
        try playground.evaluate("element('predict').click()")
        try playground.set(Self.race)
        try playground.evaluate("element('run').click()")
        try playground.wait("document.querySelector('.question')")
        #expect(try playground.text("document.querySelectorAll('.badge, .outcomes').length") == "0")
        for choice in ["c = ok, r = 0x41", "c = EAGAIN at 0, r = SIGBUS"] {
            try playground.evaluate(
                "[...document.querySelectorAll('.choice')].find(c => c.textContent === '\(choice)').querySelector('input').click()"
            )
        }
        try playground.evaluate("document.querySelector('.question').requestSubmit()")
        try playground.wait("element('verdict').dataset.verdict")
        #expect(try playground.text("document.querySelectorAll('.said.good').length") == "1")
        #expect(try playground.text("document.querySelectorAll('.said.bad').length") == "2")
        #expect(
            try playground.text("element('blocks').textContent").contains("no interleaving leads to them"))
        #expect(try playground.text("element('verdict').textContent").hasPrefix("You were right in 1 of 4."))
    }

    @Test func aLinkBringsTheTestAndItsOptions() throws {
        let playground = try Playground()
        try playground.set(Self.race)
        try playground.evaluate("options.abi = 'rfc-v2'; optionsChanged(); element('predict').checked = true")
        try playground.evaluate("copyLink()")
        try playground.wait("location.hash.length > 20")
        try playground.evaluate("location.reload()")
        try playground.wait(
            "document.documentElement?.dataset?.ready && typeof textArea === 'object' && element('testTitle').textContent === 'Test of the link'"
        )
        #expect(try playground.text("textArea.value") == Self.race)
        #expect(try playground.text("options.abi + ' ' + element('predict').checked") == "rfc-v2 true")
        #expect(try playground.text("element('editor').hidden") == "true")
    }

    @Test(arguments: [
        "#1.xxxx", "#7.abcd", "#anything", "#1.", "#1.q1YqUbJSAgA",
        "#1.\(String(repeating: "A", count: 90_000))",
    ])
    func aBrokenLinkLeavesTheEditorUsable(_ link: String) throws {
        let playground = try Playground()
        try playground.evaluate("location.hash = '\(link)'")
        try playground.wait("element('notes').textContent.includes('was not read')")
        try playground.run()
        #expect(try playground.verdict == "passed")
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    /// Texts of a link never become markup, and what unpacks to more than the page takes is not unpacked.
    @Test func aHostileLinkIsRefusedOrHarmless() throws {
        let playground = try Playground()
        let attack = "</script><img src=x onerror=hacked=1><script>hacked=1</script>"
        try playground.evaluate(
            "linkOf({ t: 'test \"' + '\(attack)'.replaceAll('<', '\\\\u003c') + '\"\\nmemory 1 pages shared\\n<b>', o: { abi: '<img src=x onerror=hacked=1>', fault: ['<b>x</b>'] } }).then(l => { location.hash = l; })"
        )
        try playground.wait("element('notes').textContent.includes('does not have')")
        try playground.wait("element('problem').textContent !== ''")
        #expect(
            try playground.text("window.hacked + ' ' + document.querySelectorAll('img').length")
                == "undefined 0")
        try playground.evaluate(
            "piped(new TextEncoder().encode(JSON.stringify({ t: 'a'.repeat(9e6) })), new CompressionStream('deflate-raw'), 1e8).then(b => { location.hash = '#1.' + toBase64(b).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', ''); })"
        )
        try playground.wait("element('notes').textContent.includes('longer than this page takes')")
        #expect(playground.complaints.isEmpty, "\(playground.complaints)")
    }

    @Test func limitsAreStated() throws {
        let playground = try Playground()
        let long = "test 'x'\\n".replacingOccurrences(of: "'", with: "\\\"")
        try playground.evaluate(
            "setText(\"\(long)\" + 'memory 1 pages shared\\n' + 'host read 0\\n'.repeat(10000))")
        try playground.wait("element('problem').textContent.includes('this page takes at most 2,000')")
        try playground.evaluate("element('run').click()")
        try playground.wait("element('verdict').textContent.includes('this page takes at most 2,000')")
        // Eight actors with eight steps each: whatever ends first, the limit of states or of time, it is no pass.
        let steps = (0..<8).map { actor in
            (0..<8).map { "host\(actor) write @\(actor * 8 + $0) \($0 + 1) => a\(actor)b\($0)\n" }.joined()
        }.joined()
        try playground.set("test \"many\"\nmemory 1 pages shared\nparallel\n\(steps)end\n")
        try playground.run(seconds: 60)
        let verdict = try playground.verdict
        #expect(verdict == "cut" || verdict == "none", "\(verdict)")
        let said = try playground.text("element('verdict').textContent")
        #expect(said.contains("not all interleavings were tried") || said.contains("time limit"), "\(said)")
    }

    @Test func aRunCanBeStopped() throws {
        let playground = try Playground()
        let steps = (0..<8).map { actor in
            (0..<8).map { "host\(actor) write @\(actor * 8 + $0) \($0 + 1) => a\(actor)b\($0)\n" }.joined()
        }.joined()
        try playground.set("test \"many\"\nmemory 1 pages shared\nparallel\n\(steps)end\n")
        try playground.evaluate("element('run').click(); setTimeout(() => element('stop').click(), 50)")
        try playground.wait(
            "element('run').disabled === false && element('verdict').textContent !== ''", seconds: 60)
        try playground.evaluate("choose(library.find(t => t.name === 'all-or-nothing'))")
        try playground.run()
        #expect(try playground.verdict == "passed")
    }

    @Test func thePageFitsTheWindow() throws {
        let playground = try Playground()
        for (width, height) in [(360, 740), (768, 1000), (1440, 1000)] {
            try playground.browser.size(width, height)
            for theme in ["light", "dark"] {
                try playground.evaluate(
                    "setTheme('\(theme)'); element('options').open = true; openLibrary(true)")
                try playground.run()
                #expect(
                    try playground.text("document.documentElement.scrollWidth <= innerWidth") == "true",
                    "\(width) \(theme)")
                try playground.screenshot("\(width)-\(theme)")
            }
        }
        // Everything that can be operated has a name.
        let nameless = try playground.text(
            "[...document.querySelectorAll('button, input, select, textarea')].filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length))).map(e => e.id || e.outerHTML).join(' ')"
        )
        #expect(nameless.isEmpty, "\(nameless)")
    }
}
