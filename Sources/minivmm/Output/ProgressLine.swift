// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization

/// A line on a terminal that is overwritten at most ten times a second. Other outputs get nothing.
final class ProgressLine: Sendable {
    private let terminal: Terminal
    /// When the line was last written, in nanoseconds, and whether it is visible.
    private let state = Mutex<(last: UInt64, isShown: Bool)>((0, false))

    private static let erase = Array("\r\u{1b}[K".utf8)

    init(_ terminal: Terminal) { self.terminal = terminal }

    func show(_ text: () -> String) {
        guard terminal.isTerminal, environment("TERM") != "dumb" else { return }
        state.withLock { state in
            let now = monotonicNanoseconds()
            guard now &- state.last > 100_000_000 else { return }
            state = (now, true)
            terminal.put(Self.erase)
            terminal.write(terminal.styled(text(), .dim))
        }
    }

    func clear() {
        state.withLock { state in
            if state.isShown { terminal.put(Self.erase) }
            state.isShown = false
        }
    }
}
