// SPDX-License-Identifier: MIT
/// The parts of a line of the text trace: time, actor, name, then the fields.
extension OutputBuffer {
    /// Widths of the time with its decimal and of the event's name.
    private static let timeColumns = 11
    private static let nameColumns = 22

    /// - Parameter nanoseconds: since the trace began.
    public mutating func beginTextLine(_ nanoseconds: UInt64) {
        let microseconds = nanoseconds / 1000
        var width = 1
        var power: UInt64 = 10
        while width < Self.timeColumns - 2, microseconds >= power {
            width += 1
            power *= 10
        }
        for _ in width..<Self.timeColumns - 2 { append(32) }
        append(decimal: microseconds)
        append(46)
        append(decimal: nanoseconds / 100 % 10)
        append("  ")
    }

    /// Pads a column to `width` bytes; the column began at `start` of ``bytes``.
    public mutating func pad(from start: Int, to width: Int) {
        while bytes.count < start + width { append(32) }
    }

    /// Appends the name, escaped, in a column of 7 bytes.
    public mutating func appendTextActor(_ actor: String) {
        let start = bytes.count
        append(contentsOf: VisibleText.escaped(actor).utf8)
        pad(from: start, to: 7)
    }

    /// Appends the name of an event, escaped, in a column of 22 bytes.
    public mutating func appendTextName(_ name: String) {
        let start = bytes.count
        append(contentsOf: VisibleText.escaped(name).utf8)
        pad(from: start, to: Self.nameColumns)
    }

    mutating func appendTextName(_ name: EventName) {
        let start = bytes.count
        append(name.spelling)
        pad(from: start, to: Self.nameColumns)
    }

    /// Appends an address as `0x1000`, any other number in decimal.
    public mutating func appendText(_ value: UInt64, isAddress: Bool) {
        guard isAddress else { return append(decimal: value) }
        append("0x")
        append(hex: value)
    }

    /// Appends a decimal number, with a minus sign if it is negative.
    public mutating func appendText(_ value: Int64) {
        if value < 0 { append(45) }
        append(decimal: value.magnitude)
    }

    /// Appends `yes` or `no`.
    public mutating func appendText(_ value: Bool) { append(value ? "yes" : "no") }

    /// A text with spaces or hidden characters is quoted and escaped, so that a guest cannot control the terminal.
    public mutating func appendText(_ value: String) {
        let isPlain = value.utf8.allSatisfy { $0 > 32 && $0 != 34 && !VisibleText.isSuspicious($0) }
        if isPlain { append(value) } else { append(quoted: value) }
    }
}
