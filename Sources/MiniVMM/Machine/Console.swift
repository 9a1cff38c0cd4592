// SPDX-License-Identifier: MIT
import Synchronization
public import SystemPackage

/// The guest's console: COM1, whose transmitter is always ready, and the 0xE9 debug port.
///
/// Several vCPUs may write; a lock keeps their bytes apart. Output is written at each end of line.
public final class Console: Sendable {
    private struct State {
        var output: OutputBuffer?
        var kept: [UInt8] = []
        var line: [UInt8] = []
        /// COM1's line control register; bit 7 makes 0x3f8 and 0x3f9 the divisor latch.
        var lineControl: UInt8 = 0
        var scratch: UInt8 = 0
    }
    private let state: Mutex<State>
    private let keeps: Bool
    private let onLine: (@Sendable (String) -> Void)?
    /// Limit on kept bytes, for guests that print forever.
    private static let keptLimit = 1 << 20

    /// - Parameters:
    ///   - output: where the bytes go, or nil for nowhere.
    ///   - keeps: also keep the first megabyte, for ``text``.
    ///   - onLine: also called with each line, without its newline, on the thread of the vCPU that ended it.
    public init(
        _ output: FileDescriptor?, keeps: Bool = false, onLine: (@Sendable (String) -> Void)? = nil
    ) {
        state = Mutex(State(output: output.map { OutputBuffer($0) }))
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
            switch port {
            case Self.debugPort: return put(byte, &state)
            case Self.serialPort where state.lineControl & 0x80 == 0: return put(byte, &state)
            case 0x3fb: state.lineControl = byte
            case 0x3ff: state.scratch = byte
            default: break
            }
            return nil
        }
        if let line { onLine?(String(decoding: line, as: UTF8.self)) }
    }

    func read(port: UInt16) -> UInt8 {
        state.withLock { state in
            switch port {
            case Self.debugPort: Self.debugPortAnswer
            case 0x3fa: 0x01  // no interrupt pending
            case 0x3fb: state.lineControl
            case 0x3fd: 0x60  // transmitter empty
            case 0x3fe: 0xb0  // carrier, data set ready, clear to send
            case 0x3ff: state.scratch
            default: 0
            }
        }
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
