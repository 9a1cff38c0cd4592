// SPDX-License-Identifier: MIT
/// The first eight bytes of a range as the host sees them: what a picture shows of its contents.
public struct FirstBytes: Sendable, Equatable, CustomStringConvertible {
    /// Little-endian, as a load of 64 bits has it.
    public let word: UInt64

    /// The eight bytes, the first one lowest.
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
    /// What is at the start of `range`, for a trace; nil where the host cannot look, as on a private page.
    func firstBytes(of range: PageRange) -> FirstBytes? {
        guard state(at: range.start) == .shared else { return nil }
        return (try? readWord(gpa: range.start)).map(FirstBytes.init(word:))
    }
}
