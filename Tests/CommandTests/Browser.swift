// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// A headless Chromium, controlled over its DevTools protocol through two pipes.
///
/// Every wait has a time limit.
final class Browser {
    /// `MINIVMM_BROWSER` names the program; `make browser-test` sets it.
    static let program = ProcessInfo.processInfo.environment["MINIVMM_BROWSER"].flatMap {
        $0.isEmpty ? nil : $0
    }

    struct Failure: Error, CustomStringConvertible { let description: String }

    private let scratch: Scratch
    private let process = Process()
    private let input: FileHandle
    private let output: FileHandle
    private var buffer = Data()
    private var lastID = 0
    private var session: String?
    /// Exceptions of scripts, and dialogs that they opened.
    private(set) var complaints: [String] = []

    init() throws {
        let program: String = try #require(Self.program)
        scratch = try Scratch()
        for name in ["in", "out"] { try #require(mkfifo(scratch.path(name), 0o600) == 0) }
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = [
            "-c",
            """
            exec "$0" --headless --no-sandbox --disable-gpu --no-first-run --disable-extensions \
            --user-data-dir="$3" --remote-debugging-pipe about:blank 3<"$1" 4>"$2" 2>/dev/null
            """, program, scratch.path("in"), scratch.path("out"), scratch.path("profile"),
        ]
        // Opened for reading and writing, so that opening does not block.
        input = try #require(FileHandle(forUpdatingAtPath: scratch.path("in")))
        output = try #require(FileHandle(forUpdatingAtPath: scratch.path("out")))
        try process.run()
        let target = try command("Target.createTarget", ["url": "about:blank"])["targetId"] as? String ?? ""
        session =
            try command("Target.attachToTarget", ["targetId": target, "flatten": true])["sessionId"]
            as? String
        for domain in ["Page", "Runtime"] { try command("\(domain).enable") }
        try size(1440, 1000)
    }

    deinit {
        process.terminate()
        process.waitUntilExit()
    }

    // MARK: input

    /// Opens a file and waits until it is ready.
    ///
    /// - Parameter isPage: whether it is a page timeline, whose script signals that it is ready.
    func open(_ path: String, isPage: Bool = true) throws {
        let address = URL(fileURLWithPath: path).absoluteString
        try command("Page.navigate", ["url": address])
        let start = Date()
        let ready =
            isPage
            ? "document.documentElement?.dataset?.ready ?? ''"
            : "document.readyState === 'complete' ? 'ready' : ''"
        // A question that reaches the page before this one is answered with an error when that is left.
        func isReady() throws -> Bool {
            do {
                return try !text("location.href.split('#')[0] === '\(address)' ? \(ready) : ''").isEmpty
            } catch let failure as Failure where failure.description.contains("navigated or closed") {
                return false
            }
        }
        while try !isReady() {
            guard Date().timeIntervalSince(start) < 30 else {
                throw Failure(description: "\(path) is not ready after 30 s")
            }
            usleep(10_000)
        }
    }

    func size(_ width: Int, _ height: Int) throws {
        try command(
            "Emulation.setDeviceMetricsOverride",
            ["width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600])
    }

    func press(_ key: String) throws {
        let codes = [
            "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40, "Home": 36, "End": 35,
            "PageUp": 33,
            "PageDown": 34, " ": 32, "Tab": 9, "0": 48, "+": 187,
        ]
        for type in ["keyDown", "keyUp"] {
            var event: [String: Any] = ["type": type, "key": key, "code": key == " " ? "Space" : key]
            event["windowsVirtualKeyCode"] = codes[key] ?? 0
            try command("Input.dispatchKeyEvent", event)
        }
    }

    func click(_ x: Double, _ y: Double) throws {
        for type in ["mouseMoved", "mousePressed", "mouseReleased"] {
            try command(
                "Input.dispatchMouseEvent",
                [
                    "type": type, "x": x, "y": y, "button": type == "mouseMoved" ? "none" : "left",
                    "clickCount": 1,
                ])
        }
    }

    func type(_ text: String) throws { try command("Input.insertText", ["text": text]) }

    // MARK: output

    /// The value of a script expression as text.
    func text(_ expression: String) throws -> String {
        let answer = try command(
            "Runtime.evaluate", ["expression": "String(\(expression))", "returnByValue": true])
        if let wrong = answer["exceptionDetails"] { throw Failure(description: "\(expression): \(wrong)") }
        return (answer["result"] as? [String: Any])?["value"] as? String ?? ""
    }

    /// Waits until the next frame has been drawn.
    func settle() throws {
        try command(
            "Runtime.evaluate",
            [
                "expression":
                    "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))",
                "awaitPromise": true,
            ])
    }

    /// Writes a picture of the window into the directory `MINIVMM_SCREENSHOTS`, if it is set.
    func screenshot(_ name: String) throws {
        guard let directory = ProcessInfo.processInfo.environment["MINIVMM_SCREENSHOTS"] else { return }
        try settle()
        let data =
            try command("Page.captureScreenshot", ["captureBeyondViewport": true])["data"] as? String ?? ""
        try Data(base64Encoded: data)?.write(to: URL(fileURLWithPath: "\(directory)/\(name).png"))
    }

    // MARK: the protocol

    @discardableResult
    private func command(_ method: String, _ parameters: [String: Any] = [:]) throws -> [String: Any] {
        lastID += 1
        var message: [String: Any] = ["id": lastID, "method": method, "params": parameters]
        message["sessionId"] = session
        try input.write(contentsOf: JSONSerialization.data(withJSONObject: message) + [0])
        while true {
            let answer = try read()
            if answer["method"] as? String == "Runtime.exceptionThrown" {
                complaints.append("\(answer["params"] ?? "")")
            }
            if answer["method"] as? String == "Page.javascriptDialogOpening" {
                complaints.append("dialog: \(answer["params"] ?? "")")
            }
            guard answer["id"] as? Int == lastID else { continue }
            if let error = answer["error"] { throw Failure(description: "\(method): \(error)") }
            return answer["result"] as? [String: Any] ?? [:]
        }
    }

    private func read() throws -> [String: Any] {
        while true {
            if let end = buffer.firstIndex(of: 0) {
                let message = buffer[buffer.startIndex..<end]
                defer { buffer = Data(buffer[(end + 1)...]) }
                return try JSONSerialization.jsonObject(with: message) as? [String: Any] ?? [:]
            }
            var ready = pollfd(fd: output.fileDescriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&ready, 1, 30_000) == 1 else {
                throw Failure(description: "no answer from the browser after 30 s")
            }
            buffer.append(output.availableData)
        }
    }
}
