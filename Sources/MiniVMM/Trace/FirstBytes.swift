// SPDX-License-Identifier: MIT
/// The first eight bytes of a range as the host reads them, for showing its contents in a picture.
public struct FirstBytes: Sendable, Equatable, CustomStringConvertible {
    /// The bytes as a little-endian 64-bit word.
    public let word: UInt64

    /// The eight bytes, the first in the lowest bits.
    public init(word: UInt64) { self.word = word }

    /// Sixteen hex digits in the order of the bytes in memory.
    public var description: String {
        var out = ""
        for shift in stride(from: 0, to: 64, by: 8) {
            let byte = UInt8(truncatingIfNeeded: word >> UInt64(shift))
            out += (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
        return out
    }
}

extension GuestMemory {
    /// The first bytes of `range`, for a trace; nil if the host cannot read them, as on a private page.
    func firstBytes(of range: PageRange) -> FirstBytes? {
        guard state(at: range.start) == .shared else { return nil }
        return (try? readWord(gpa: range.start)).map(FirstBytes.init(word:))
    }
}
