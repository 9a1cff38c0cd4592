// SPDX-License-Identifier: MIT
import Foundation
import Glibc
import Synchronization
import Testing

/// A pseudo-terminal that runs the command and types input.
final class PseudoTerminal: Sendable {
    private let master: Int32
    private let slave: Int32
    private let received = Mutex<[UInt8]>([])

    init(columns: Int, rows: Int) throws {
        master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        try #require(master >= 0)
        // TIOCSPTLCK unlocks the terminal, TIOCGPTN returns its number.
        var number: Int32 = 0
        try #require(ioctl(master, 0x4004_5431, &number) == 0 && ioctl(master, 0x8004_5430, &number) == 0)
        slave = open("/dev/pts/\(number)", O_RDWR | O_NOCTTY | O_CLOEXEC)
        try #require(slave >= 0)
        var size = winsize(ws_row: UInt16(rows), ws_col: UInt16(columns), ws_xpixel: 0, ws_ypixel: 0)
        try #require(ioctl(slave, UInt(TIOCSWINSZ), &size) == 0)
    }

    deinit {
        close(master)
        close(slave)
    }

    /// The output so far, without carriage returns.
    var text: String { String(decoding: received.withLock { $0 }.filter { $0 != 0x0d }, as: UTF8.self) }
    /// The output without colours.
    var plainText: String { text.replacing(#/\x1b\[[0-9]*m/#, with: "") }

    /// Runs the command to its end.
    ///
    /// - Parameters:
    ///   - typing: lines; each is typed at the next prompt that has not been answered.
    ///   - interruptAfter: text in the output after which the process gets SIGINT. Alternatives are separated by U+0001.
    /// - Returns: the exit status, or 128 + the signal that ended it.
    func run(
        _ arguments: [String], environment: [String: String], typing: [String], interruptAfter: String? = nil,
        tool: URL? = Command.executable
    ) throws -> Int32 {
        let process = Process()
        process.executableURL = tool
        process.arguments = arguments
        let own = ProcessInfo.processInfo.environment.filter { $0.key.hasSuffix("SAN_OPTIONS") }
        process.environment = ["PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"].merging(own) { $1 }
            .merging(environment) { $1 }
        let handle = FileHandle(fileDescriptor: slave, closeOnDealloc: false)
        process.standardInput = handle
        process.standardOutput = handle
        process.standardError = handle
        try process.run()
        let deadline = Date().addingTimeInterval(600)
        var answered = 0
        var isInterrupted = false
        while process.isRunning {
            read(milliseconds: 20)
            let text = plainText
            // Every prompt ends with this.
            if answered < typing.count, text.components(separatedBy: " >\n").count - 1 > answered {
                let line = Array((typing[answered] + "\n").utf8)
                _ = write(master, line, line.count)
                answered += 1
            }
            if !isInterrupted, answered == typing.count, let wanted = interruptAfter,
                wanted.split(separator: "\u{1}").contains(where: { text.contains($0) })
            {
                isInterrupted = true
                process.interrupt()
            }
            if Date() > deadline {
                kill(process.processIdentifier, SIGKILL)
                Issue.record("minivmm \(arguments.joined(separator: " ")) did not end:\n\(text)")
                break
            }
        }
        process.waitUntilExit()
        read(milliseconds: 0)
        return process.terminationReason == .uncaughtSignal
            ? 128 + process.terminationStatus : process.terminationStatus
    }

    /// Reads the available output; waits up to `milliseconds` for some.
    private func read(milliseconds: Int32) {
        var wait = milliseconds
        while true {
            var descriptor = pollfd(fd: master, events: Int16(POLLIN), revents: 0)
            guard poll(&descriptor, 1, wait) > 0, descriptor.revents & Int16(POLLIN) != 0 else { return }
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count = Glibc.read(master, &bytes, bytes.count)
            guard count > 0 else { return }
            received.withLock { $0 += bytes[..<count] }
            wait = 0
        }
    }
}
