// SPDX-License-Identifier: MIT
/// A 16550A UART, as its data sheet describes it (National Semiconductor PC16550D), with a transmitter that is always ready.
///
/// A value: ``Console`` guards it, and drives the interrupt line by ``isInterrupting``.
struct UART {
    /// Registers by their offset from the first port.
    private enum Register {
        /// RBR and THR; the divisor's low byte if DLAB is set.
        static let data: UInt16 = 0
        /// IER; the divisor's high byte if DLAB is set.
        static let interruptEnable: UInt16 = 1
        /// IIR when read, FCR when written.
        static let interruptAndFIFO: UInt16 = 2
        static let lineControl: UInt16 = 3
        static let modemControl: UInt16 = 4
        static let lineStatus: UInt16 = 5
        static let modemStatus: UInt16 = 6
        static let scratch: UInt16 = 7
    }
    private enum LineStatus {
        static let dataReady: UInt8 = 1 << 0
        static let overrun: UInt8 = 1 << 1
        static let transmitterEmpty: UInt8 = 1 << 5 | 1 << 6
    }
    private enum ModemControl {
        static let loopback: UInt8 = 1 << 4
    }
    /// DCD, DSR and CTS: somebody is at the other end.
    private static let connected: UInt8 = 0xb0
    private static let fifoSize = 16

    private var divisor: UInt16 = 12
    private var interruptEnable: UInt8 = 0
    private var fifoControl: UInt8 = 0
    private var lineControl: UInt8 = 0
    private var modemControl: UInt8 = 0
    private var modemChanges: UInt8 = 0
    private var scratch: UInt8 = 0
    private var hasOverrun = false
    private var isTransmitReported = false
    private var received: [UInt8] = []

    private var isDivisorVisible: Bool { lineControl & 0x80 != 0 }
    private var hasFIFO: Bool { fifoControl & 1 != 0 }
    private var isLoopback: Bool { modemControl & ModemControl.loopback != 0 }

    /// How many received bytes it can take before the next overrun.
    var room: Int { max(0, (hasFIFO ? Self.fifoSize : 1) - received.count) }

    /// Whether the last access shows that the guest waits for input: it has read the data register, enabled the interrupt for
    /// received data, or read the line status again although it was told that it can transmit.
    private(set) var wantsInput = false
    private var statusReads = 0

    /// A byte arrives on the line. In loopback the line is not connected, so the byte is lost.
    mutating func receive(_ byte: UInt8) { if !isLoopback { take(byte) } }

    private mutating func take(_ byte: UInt8) {
        if room > 0 {
            received.append(byte)
        } else {
            hasOverrun = true
            // Without a FIFO the new byte replaces the old one; with it, the new one is lost.
            if !hasFIFO { received = [byte] }
        }
    }

    /// - Parameter register: 0 to 7.
    /// - Returns: the byte that is sent on the line, if any.
    mutating func write(_ register: UInt16, _ byte: UInt8) -> UInt8? {
        wantsInput = false
        switch register {
        case Register.data where isDivisorVisible: divisor = divisor & 0xff00 | UInt16(byte)
        case Register.data:
            statusReads = 0
            isTransmitReported = false
            guard isLoopback else { return byte }
            take(byte)
        case Register.interruptEnable where isDivisorVisible: divisor = divisor & 0xff | UInt16(byte) << 8
        case Register.interruptEnable:
            interruptEnable = byte & 0xf
            isTransmitReported = false
            wantsInput = byte & 1 != 0
        case Register.interruptAndFIFO:
            // Enabling or disabling the FIFO clears it; the clear bits work only while it is enabled.
            if (byte ^ fifoControl) & 1 != 0 || byte & 0b11 == 0b11 { received = [] }
            fifoControl = byte & 0xc9
        case Register.lineControl: lineControl = byte
        case Register.modemControl:
            let before = modemLines
            modemControl = byte & 0x1f
            note(changesFrom: before)
        case Register.scratch: scratch = byte
        default: break  // the status registers are read-only
        }
        return nil
    }

    /// - Parameter register: 0 to 7.
    mutating func read(_ register: UInt16) -> UInt8 {
        wantsInput = false
        switch register {
        case Register.data where isDivisorVisible: return UInt8(truncatingIfNeeded: divisor)
        case Register.data:
            wantsInput = !isLoopback
            return received.isEmpty ? 0 : received.removeFirst()
        case Register.interruptEnable where isDivisorVisible: return UInt8(truncatingIfNeeded: divisor >> 8)
        case Register.interruptEnable: return interruptEnable
        case Register.interruptAndFIFO:
            let source = interrupt
            if source == .transmitterEmpty { isTransmitReported = true }
            return source.rawValue | (hasFIFO ? 0xc0 : 0)
        case Register.lineControl: return lineControl
        case Register.modemControl: return modemControl
        case Register.lineStatus:
            defer { hasOverrun = false }
            statusReads += 1
            wantsInput = statusReads > 1 && !isLoopback
            return LineStatus.transmitterEmpty | (received.isEmpty ? 0 : LineStatus.dataReady)
                | (hasOverrun ? LineStatus.overrun : 0)
        case Register.modemStatus:
            defer { modemChanges = 0 }
            return modemLines | modemChanges
        case Register.scratch: return scratch
        default: return 0xff
        }
    }

    /// CTS, DSR, RI and DCD. In loopback they follow RTS, DTR, OUT1 and OUT2.
    private var modemLines: UInt8 {
        guard isLoopback else { return Self.connected }
        return (modemControl & 2) << 3 | (modemControl & 1) << 5 | (modemControl & 0xc) << 4
    }

    /// The lower half of the modem status: which lines have changed since it was read. RI counts only when it falls.
    private mutating func note(changesFrom before: UInt8) {
        let changed = (before ^ modemLines) >> 4
        let ring: UInt8 = 4
        modemChanges |= changed & ~ring | (before >> 4 & ring & changed)
    }

    /// The level of the interrupt line. OUT2 of the modem control register gates it, as on a PC.
    var isInterrupting: Bool { interrupt != .none && modemControl & 8 != 0 && !isLoopback }

    /// The pending interrupt with the highest priority; the raw value is the lower half of the IIR.
    enum Interrupt: UInt8 {
        case none = 0x1
        case lineStatus = 0x6
        case dataReceived = 0x4
        case transmitterEmpty = 0x2
        case modemStatus = 0x0
    }
    var interrupt: Interrupt {
        if interruptEnable & 4 != 0, hasOverrun { return .lineStatus }
        if interruptEnable & 1 != 0, !received.isEmpty { return .dataReceived }
        if interruptEnable & 2 != 0, !isTransmitReported { return .transmitterEmpty }
        if interruptEnable & 8 != 0, modemChanges != 0 { return .modemStatus }
        return .none
    }
}
