// SPDX-License-Identifier: MIT
import Synchronization
public import SystemPackage

/// Where the bytes come from that COM1 receives.
public protocol ConsoleInput: Sendable {
    /// The bytes that are there now, at most `count`. Called on a vCPU's thread whenever the guest looks for input and has none,
    /// so it must not block, nor use the console.
    func next(atMost count: Int) -> ConsoleInputBytes
}

/// The answer of a ``ConsoleInput``.
public enum ConsoleInputBytes: Sendable, Equatable {
    /// One byte or more.
    case bytes([UInt8])
    /// Nothing now, or the bytes come by ``Console/receive(_:)``.
    case later
    /// Nothing any more.
    case ended
}

/// The guest's console: COM1, a 16550A UART, and the 0xE9 debug port.
///
/// Several vCPUs may use it; a lock keeps their bytes apart. Output is written at each end of line, and when the guest begins to
/// wait for input.
public final class Console: Sendable {
    private struct State {
        var output: OutputBuffer?
        var kept: [UInt8] = []
        var line: [UInt8] = []
        var uart = UART()
        /// Input that COM1 has no room for yet.
        var waiting: [UInt8] = []
        var input: (any ConsoleInput)?
        /// Drives the interrupt line, whose level follows.
        var interruptLine: (@Sendable (Bool) -> Void)?
        var isLineHigh = false
    }
    private let state: Mutex<State>
    private let keeps: Bool
    private let onLine: (@Sendable (String) -> Void)?
    /// Limit on kept bytes, for guests that print forever.
    private static let keptLimit = 1 << 20

    /// - Parameters:
    ///   - output: where the bytes go, or nil for nowhere.
    ///   - keeps: also keep the first megabyte, for ``text``.
    ///   - input: where the bytes come from that COM1 receives; nil for nowhere.
    ///   - onLine: also called with each line, without its newline, on the thread of the vCPU that ended it.
    public init(
        _ output: FileDescriptor?, keeps: Bool = false, input: (any ConsoleInput)? = nil,
        onLine: (@Sendable (String) -> Void)? = nil
    ) {
        state = Mutex(State(output: output.map { OutputBuffer($0) }, input: input))
        self.keeps = keeps
        self.onLine = onLine
    }

    /// The kept output, as text.
    public var text: String { String(decoding: state.withLock { $0.kept }, as: UTF8.self) }

    /// The first error on output, if any.
    public var failure: Errno? { state.withLock { $0.output?.failure } }

    static let ports: ClosedRange<UInt16> = 0x3f8...0x3ff
    /// The transmit register.
    static let serialPort: UInt16 = 0x3f8
    static let debugPort: UInt16 = 0xe9

    func write(port: UInt16, _ byte: UInt8) {
        let line = state.withLock { state -> [UInt8]? in
            guard port != Self.debugPort else { return put(byte, &state) }
            let sent = state.uart.write(port &- Self.ports.lowerBound, byte)
            if state.uart.wantsInput { fetch(&state) }
            driveLine(&state)
            return sent.flatMap { put($0, &state) }
        }
        if let line { onLine?(String(decoding: line, as: UTF8.self)) }
    }

    func read(port: UInt16) -> UInt8 {
        state.withLock { state in
            guard port != Self.debugPort else { return Self.debugPortAnswer }
            let value = state.uart.read(port &- Self.ports.lowerBound)
            // The next read finds the bytes.
            if state.uart.wantsInput { fetch(&state) }
            driveLine(&state)
            return value
        }
    }

    /// Bytes arrive for COM1, from any thread. Bytes beyond its FIFO wait; more than 64 KiB of them are dropped.
    public func receive(_ bytes: [UInt8]) {
        state.withLock { state in
            state.waiting += bytes.prefix(max(0, Self.waitingLimit - state.waiting.count))
            deliver(&state)
            driveLine(&state)
        }
    }

    /// Connects COM1's interrupt line. `drive` is called with each new level, under the console's lock.
    func connect(_ drive: @escaping @Sendable (Bool) -> Void) { state.withLock { $0.interruptLine = drive } }

    private func driveLine(_ state: inout State) {
        guard let drive = state.interruptLine, state.uart.isInterrupting != state.isLineHigh else { return }
        state.isLineHigh = state.uart.isInterrupting
        drive(state.isLineHigh)
    }

    private static let waitingLimit = 64 << 10

    private func deliver(_ state: inout State) {
        let count = min(state.uart.room, state.waiting.count)
        for byte in state.waiting.prefix(count) { state.uart.receive(byte) }
        state.waiting.removeFirst(count)
    }

    private func fetch(_ state: inout State) {
        deliver(&state)
        guard state.waiting.isEmpty, state.uart.room > 0, let input = state.input else { return }
        // A prompt without a newline must be seen before the answer is typed.
        state.output?.flush()
        switch input.next(atMost: state.uart.room) {
        case .bytes(let bytes): state.waiting = bytes
        case .later: break
        case .ended: state.input = nil
        }
        deliver(&state)
    }

    /// The value by which a guest detects the debug console (Bochs, QEMU).
    private static let debugPortAnswer: UInt8 = 0xe9

    /// A longer line is passed on in pieces.
    private static let lineLimit = 4096

    /// - Returns: a line for ``onLine``, if this byte ends one.
    private func put(_ byte: UInt8, _ state: inout State) -> [UInt8]? {
        if keeps && state.kept.count < Self.keptLimit { state.kept.append(byte) }
        state.output?.append(byte)
        if byte == 10 || (state.output?.bytes.count ?? 0) >= Self.lineLimit { state.output?.flush() }
        guard onLine != nil else { return nil }
        if byte != 10 { state.line.append(byte) }
        guard byte == 10 || state.line.count >= Self.lineLimit else { return nil }
        defer { state.line.removeAll(keepingCapacity: true) }
        return state.line
    }

    /// Writes out a last line without a newline.
    public func flush() {
        let line = state.withLock { state -> [UInt8] in
            state.output?.flush()
            defer { state.line = [] }
            return state.line
        }
        if !line.isEmpty { onLine?(String(decoding: line, as: UTF8.self)) }
    }
}
