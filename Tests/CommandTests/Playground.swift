// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// The playground's page in a browser.
struct Playground {
    /// `MINIVMM_PLAYGROUND` names the file; `make playground-test` sets it.
    static let page = ProcessInfo.processInfo.environment["MINIVMM_PLAYGROUND"].flatMap {
        $0.isEmpty ? nil : $0
    }
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    let browser: Browser

    init() throws {
        let page = try #require(Self.page)
        browser = try Browser()
        try browser.open(page)
    }

    var complaints: [String] { browser.complaints }

    func text(_ expression: String) throws -> String { try browser.text(expression) }
    func press(_ key: String) throws { try browser.press(key) }
    func screenshot(_ name: String) throws { try browser.screenshot("playground-\(name)") }

    /// Runs statements, and does not wait for promises.
    func evaluate(_ statements: String) throws {
        _ = try browser.text("(() => { \(statements); return ''; })()")
    }

    /// Waits until the expression is true.
    func wait(_ expression: String, seconds: Double = 30) throws {
        let end = Date(timeIntervalSinceNow: seconds)
        while try text("Boolean(\(expression))") != "true" {
            guard Date() < end else {
                throw Browser.Failure(description: "\(expression) is not true after \(seconds) s")
            }
            usleep(10_000)
        }
    }

    /// Puts a text into the editor, as typing does.
    func set(_ test: String) throws {
        let quoted = try String(decoding: JSONSerialization.data(withJSONObject: [test]), as: UTF8.self)
        try evaluate("setText(\(quoted)[0])")
    }

    /// Clicks on Run and waits for the answer.
    func run(seconds: Double = 30) throws {
        try evaluate("delete element('verdict').dataset.verdict; element('run').click()")
        try wait(
            "element('run').disabled === false && element('verdict').textContent !== ''", seconds: seconds)
    }

    var verdict: String {
        get throws { try text("element('verdict').dataset.verdict || 'none'") }
    }

    /// Answers the question on the page, and waits until the model has judged it.
    func predict(_ outcome: String) throws {
        try evaluate(
            """
            window.asked = document.querySelector('.question');
            [...asked.querySelectorAll('.choice')].find(c => c.textContent === '\(outcome)').querySelector('input').click();
            asked.requestSubmit()
            """)
        try wait("document.querySelector('.question') !== window.asked")
    }
}
