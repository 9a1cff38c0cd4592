// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// Standard input as the input of the guest's COM1. Nothing is read before the guest looks for input, so a script's own input
/// stays untouched by a guest that reads none.
///
/// A file or a pipe is read by the vCPU's thread, a few bytes at a time. A terminal is put into raw mode, and a thread of its own
/// reads the keys, so that Ctrl-A x ends a guest that no longer reads them.
final class GuestInput: ConsoleInput {
    private struct State {
        var isAsked = false
        var terminal: RawTerminal?
        var machine: Machine?
        var isOver = false
    }
    private let state = Mutex(State())
    private static let input = FileDescriptor.standardInput
    private let isTerminal = isatty(0) == 1

    /// The machine that Ctrl-A x ends. Set before it runs.
    func attach(_ machine: Machine) { state.withLock { $0.machine = machine } }

    func next(atMost count: Int) -> ConsoleInputBytes {
        guard !isTerminal else {
            askTerminal()
            return .later
        }
        guard isReadable(Self.input, within: .zero) else { return .later }
        var bytes = [UInt8](repeating: 0, count: max(1, count))
        let length = try? unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe try Self.input.read(into: buffer)
        }
        guard let length, length > 0 else { return .ended }
        return .bytes(Array(bytes.prefix(length)))
    }

    private func askTerminal() {
        state.withLock { state in
            guard !state.isAsked, !state.isOver, let machine = state.machine else { return }
            state.isAsked = true
            // A process in the background must not change the terminal.
            guard tcgetpgrp(0) == getpgrp() else { return }
            state.terminal = RawTerminal(machine)
            if state.terminal != nil {
                let terminal = Terminal.diagnostics
                terminal.hanging(
                    terminal.styled("input   ", .dim),
                    "keys go to the guest's COM1; Ctrl-A x ends the guest, Ctrl-A a sends Ctrl-A", indent: 8)
            }
        }
    }

    /// Restores the terminal. Nothing is read any more.
    func end() {
        let terminal = state.withLock { state in
            state.isOver = true
            state.machine = nil
            defer { state.terminal = nil }
            return state.terminal
        }
        terminal?.restore()
    }
}

/// The terminal of standard input in raw mode, and the thread that reads it until ``restore()``.
private final class RawTerminal: Sendable {
    private let before: Mutex<termios>
    private let stop: FileDescriptor
    private let thread: HostThread

    /// - Returns: nil if the terminal's mode cannot be changed, or there are no descriptors or threads left.
    init?(_ machine: Machine) {
        var mode = termios()
        guard unsafe tcgetattr(0, &mode) == 0, let pipe = try? FileDescriptor.pipe() else { return nil }
        let old = mode
        // Every key is passed on as it is, without echo and signals. Output is still processed.
        mode.c_iflag &= ~tcflag_t(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON)
        mode.c_lflag &= ~tcflag_t(ECHO | ECHONL | ICANON | ISIG | IEXTEN)
        let reader = HostThread { Self.read(until: pipe.readEnd, into: machine) }
        guard let reader, unsafe tcsetattr(0, TCSANOW, &mode) == 0 else {
            try? pipe.writeEnd.close()
            reader?.join()
            return nil
        }
        before = Mutex(old)
        stop = pipe.writeEnd
        thread = reader
    }

    func restore() {
        try? stop.close()
        thread.join()
        before.withLock { mode in _ = unsafe tcsetattr(0, TCSANOW, &mode) }
    }

    /// Reads keys until the other end of the pipe is closed.
    private static func read(until stop: FileDescriptor, into machine: Machine) {
        defer { try? stop.close() }
        var keys = EscapedKeys()
        var buffer = [UInt8](repeating: 0, count: 256)
        while true {
            var waits = [
                pollfd(fd: stop.rawValue, events: Int16(POLLIN), revents: 0),
                pollfd(fd: 0, events: Int16(POLLIN), revents: 0),
            ]
            guard unsafe poll(&waits, 2, -1) > 0 || errno == EINTR else { return }
            if waits[0].revents != 0 { return }
            guard waits[1].revents != 0 else { continue }
            let count = unsafe Glibc.read(0, &buffer, buffer.count)
            // The terminal is gone.
            guard count > 0 else { return }
            let (bytes, isEnd) = keys.take(buffer[..<count])
            machine.console.receive(bytes)
            if isEnd { machine.stop(.quit) }
        }
    }
}

/// Keys with Ctrl-A as the escape, as in QEMU: x ends the guest, and a, or another Ctrl-A, is Ctrl-A itself. Any other key after
/// it is ignored.
struct EscapedKeys {
    private static let escape: UInt8 = 1
    private var isEscaped = false

    /// - Returns: the bytes for the guest, and whether it is to end; keys after that are ignored.
    mutating func take(_ keys: some Sequence<UInt8>) -> (bytes: [UInt8], isEnd: Bool) {
        var bytes: [UInt8] = []
        for key in keys {
            guard isEscaped else {
                if key == Self.escape { isEscaped = true } else { bytes.append(key) }
                continue
            }
            isEscaped = false
            switch key {
            case UInt8(ascii: "x"): return (bytes, true)
            case UInt8(ascii: "a"), Self.escape: bytes.append(Self.escape)
            default: break
            }
        }
        return (bytes, false)
    }
}
