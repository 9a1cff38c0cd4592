// SPDX-License-Identifier: MIT
import MiniVMM

/// Parsing and printing of numbers and words.
enum Words {
    /// Parses decimal, with K, M, G or T for powers of 1024, or `0x` hex. Nil if the text is not a number of at most 64 bits.
    static func number(_ text: some StringProtocol) -> UInt64? {
        let folded = text.lowercased()
        if folded.hasPrefix("0x") {
            let digits = folded.dropFirst(2)
            // UInt64(_:radix:) accepts a sign, which an address cannot have.
            return digits.first?.isHexDigit == true ? UInt64(digits, radix: 16) : nil
        }
        guard folded.first?.isNumber == true, let last = folded.last else { return nil }
        guard let power = ["k", "m", "g", "t"].firstIndex(of: String(last)) else { return UInt64(folded) }
        guard let value = UInt64(folded.dropLast()) else { return nil }
        let (bytes, overflow) = value.multipliedReportingOverflow(by: 1 << (10 * UInt64(power + 1)))
        return overflow ? nil : bytes
    }

    /// `0x` and hex digits.
    static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    /// `1 page`, `4 pages`.
    static func count(_ value: UInt64, _ noun: String) -> String {
        "\(value) \(noun)\(value == 1 ? "" : "s")"
    }

    /// The end of a sentence that names an unknown word: similar words, or a full stop.
    static func suggestion(for typed: String, among names: [String]) -> String {
        let near = NearWords.suggestion(for: typed, among: names)
        return near.isEmpty ? "." : near
    }
}
