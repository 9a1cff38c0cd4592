import Synchronization
public import SystemPackage

/// The guest's console: COM1, whose transmitter is always ready, and the 0xE9 debug port.
///
/// Several vCPUs may write; its lock keeps their bytes apart. Output leaves at each end of line.
public final class Console: Sendable {
    private struct State {
        var output: OutputBuffer?
        var kept: [UInt8] = []
        /// COM1's line control register; bit 7 makes 0x3f8 and 0x3f9 the divisor latch.
        var lineControl: UInt8 = 0
        var scratch: UInt8 = 0
    }
    private let state: Mutex<State>
    private let keeps: Bool
    /// Bytes kept at most: a guest that prints for ever costs no more.
    private static let keptLimit = 1 << 20

    /// - Parameters:
    ///   - output: where the bytes go, or nil for nowhere.
    ///   - keeps: also remember the first megabyte, for ``text``.
    public init(_ output: FileDescriptor?, keeps: Bool = false) {
        state = Mutex(State(output: output.map { OutputBuffer($0) }))
        self.keeps = keeps
    }

    /// What was kept, as text.
    public var text: String { String(decoding: state.withLock { $0.kept }, as: UTF8.self) }

    /// The error that output met, if it did.
    public var failure: Errno? { state.withLock { $0.output?.failure } }

    static let ports: ClosedRange<UInt16> = 0x3f8...0x3ff
    static let debugPort: UInt16 = 0xe9

    func write(port: UInt16, _ byte: UInt8) {
        state.withLock { state in
            switch port {
            case Self.debugPort: put(byte, &state)
            case 0x3f8 where state.lineControl & 0x80 == 0: put(byte, &state)
            case 0x3fb: state.lineControl = byte
            case 0x3ff: state.scratch = byte
            default: break
            }
        }
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

    /// What tells a guest that the debug console is there (Bochs, QEMU).
    private static let debugPortAnswer: UInt8 = 0xe9

    private func put(_ byte: UInt8, _ state: inout State) {
        if keeps && state.kept.count < Self.keptLimit { state.kept.append(byte) }
        state.output?.append(byte)
        if byte == 10 || (state.output?.bytes.count ?? 0) >= 4096 { state.output?.flush() }
    }

    /// Writes out a last line that has no end.
    public func flush() { state.withLock { $0.output?.flush() } }
}
