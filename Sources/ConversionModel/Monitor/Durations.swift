// SPDX-License-Identifier: MIT
extension Duration {
    /// Whole nanoseconds: 0 for a negative duration, `UInt64.max` for one that does not fit.
    public var wholeNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, carry) = whole.addingReportingOverflow(UInt64(attoseconds) / 1_000_000_000)
        return overflow || carry ? .max : sum
    }

    /// A duration in nanoseconds; a `UInt64` can hold more than an `Int64`.
    public init(wholeNanoseconds: UInt64) {
        self.init(
            secondsComponent: Int64(wholeNanoseconds / 1_000_000_000),
            attosecondsComponent: Int64(wholeNanoseconds % 1_000_000_000) * 1_000_000_000)
    }

    /// In seconds, rounded down to milliseconds: "2", "1.5", "0.003".
    package var secondsText: String {
        let milliseconds = wholeNanoseconds / 1_000_000
        var fraction = String(milliseconds % 1000 + 1000).dropFirst()
        while fraction.last == "0" { fraction.removeLast() }
        return fraction.isEmpty ? "\(milliseconds / 1000)" : "\(milliseconds / 1000).\(fraction)"
    }
}
