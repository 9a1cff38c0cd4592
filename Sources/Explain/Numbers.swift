// SPDX-License-Identifier: MIT
/// Numbers, read and written.
enum Words {
    /// Decimal or `0x` hex, with K, M, G or T for powers of 1024; nil if it is no number of 64 bits.
    static func number(_ text: some StringProtocol) -> UInt64? {
        let folded = text.lowercased()
        if folded.hasPrefix("0x") {
            let digits = folded.dropFirst(2)
            // The parser takes a sign; an address has none.
            return digits.first?.isHexDigit == true ? UInt64(digits, radix: 16) : nil
        }
        guard folded.first?.isNumber == true, let last = folded.last else { return nil }
        guard let power = ["k", "m", "g", "t"].firstIndex(of: String(last)) else { return UInt64(folded) }
        guard let value = UInt64(folded.dropLast()) else { return nil }
        let (bytes, overflow) = value.multipliedReportingOverflow(by: 1 << (10 * UInt64(power + 1)))
        return overflow ? nil : bytes
    }

    /// `0x` and hex digits, as addresses are written.
    static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    /// `1 page`, `4 pages`.
    static func count(_ value: UInt64, _ noun: String) -> String {
        "\(value) \(noun)\(value == 1 ? "" : "s")"
    }
}
