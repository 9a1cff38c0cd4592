// SPDX-License-Identifier: MIT
/// Reads the fields of a packet's data from left to right. A field that is not there is nil, never an error.
struct PacketScanner {
    private var rest: ArraySlice<UInt8>

    init(_ data: some Sequence<UInt8>) { rest = ArraySlice(Array(data)) }

    var isAtEnd: Bool { rest.isEmpty }
    /// The rest of the packet.
    var remaining: ArraySlice<UInt8> { rest }

    mutating func next() -> UInt8? { rest.popFirst() }

    /// Reads `text` if it comes next.
    mutating func take(_ text: String) -> Bool {
        guard rest.starts(with: text.utf8) else { return false }
        rest = rest.dropFirst(text.utf8.count)
        return true
    }

    /// A hexadecimal number, big endian as the protocol writes it.
    ///
    /// - Returns: nil without a digit, and for a value of more than 64 bits.
    mutating func number() -> UInt64? {
        let digits = rest.prefix { $0.hexDigit != nil }
        rest = rest.dropFirst(digits.count)
        let significant = digits.drop { $0 == UInt8(ascii: "0") }
        guard !digits.isEmpty, significant.count <= 16 else { return nil }
        return significant.reduce(0) { $0 << 4 | UInt64($1.hexDigit ?? 0) }
    }

    /// Everything up to `separator`, which is skipped, or to the end.
    mutating func field(before separator: Unicode.Scalar) -> ArraySlice<UInt8> {
        let field = rest.prefix { $0 != UInt8(ascii: separator) }
        rest = rest.dropFirst(field.count + 1)
        return field
    }

    /// A thread: `-1` for all, `0` for any, else its number.
    mutating func thread() -> ThreadChoice? {
        if take("-1") { return .all }
        guard let value = number() else { return nil }
        guard value != 0 else { return .any }
        return Int(exactly: value).map { .one($0) }
    }
}

/// The threads that a packet is about. A thread is a vCPU: thread 1 is vCPU 0.
enum ThreadChoice: Equatable, Sendable {
    case all
    case any
    case one(Int)
}
