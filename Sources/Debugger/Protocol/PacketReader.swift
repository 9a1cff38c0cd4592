// SPDX-License-Identifier: MIT
/// Splits the bytes from a debugger into packets of GDB's remote serial protocol: `$data#checksum`.
///
/// A value without I/O. It keeps at most one packet of ``limit`` bytes, whatever it is fed.
package struct PacketReader {
    /// A unit of the client's byte stream.
    package enum Item: Equatable, Sendable {
        /// A packet whose checksum matches, with escapes resolved.
        case packet([UInt8])
        /// A packet whose checksum is wrong or is not hexadecimal.
        case damaged
        /// A packet longer than ``limit``, without its data.
        case tooLong
        /// Byte 3, outside of a packet: stop the guest.
        case interrupt
        /// `+`
        case acknowledged
        /// `-`: send the last packet again.
        case rejected
    }

    /// Bytes of the longest packet, without `$`, `#` and checksum. The client is told (`PacketSize`).
    package static let limit = 0x4000

    private enum State {
        case idle
        case data
        /// After `#`, with the first digit of the checksum once it is there.
        case checksum(first: UInt8?)
    }
    private var state = State.idle
    private var data: [UInt8] = []
    private var sum: UInt8 = 0
    private var isTooLong = false

    package init() {}

    /// Takes the next bytes of the stream. Bytes between packets that mean nothing are ignored.
    package mutating func take(_ bytes: some Sequence<UInt8>) -> [Item] { bytes.compactMap { take($0) } }

    private mutating func take(_ byte: UInt8) -> Item? {
        switch state {
        case .idle: return between(byte)
        case .data:
            // `$` is escaped in data, so this one begins a packet: the end of the last one is lost.
            if byte == UInt8(ascii: "$") {
                begin()
                return .damaged
            }
            guard byte != UInt8(ascii: "#") else {
                state = .checksum(first: nil)
                return nil
            }
            sum &+= byte
            if data.count < Self.limit { data.append(byte) } else { isTooLong = true }
            return nil
        case .checksum(first: nil):
            state = .checksum(first: byte)
            return nil
        case .checksum(let first?):
            state = .idle
            return end(first, byte)
        }
    }

    private mutating func between(_ byte: UInt8) -> Item? {
        switch byte {
        case UInt8(ascii: "$"):
            begin()
            return nil
        case UInt8(ascii: "+"): return .acknowledged
        case UInt8(ascii: "-"): return .rejected
        case 3: return .interrupt
        default: return nil
        }
    }

    private mutating func begin() {
        state = .data
        data.removeAll(keepingCapacity: true)
        sum = 0
        isTooLong = false
    }

    private func end(_ first: UInt8, _ second: UInt8) -> Item {
        guard let high = first.hexDigit, let low = second.hexDigit, high << 4 | low == sum else {
            return .damaged
        }
        return isTooLong ? .tooLong : .packet(Packet.unescaped(data))
    }
}

/// The encoding of packets.
package enum Packet {
    private static let escape = UInt8(ascii: "}")
    private static let special: [UInt8] = ["#", "$", "}", "*"].map { UInt8(ascii: $0) }

    /// A packet with this data, ready to be sent.
    package static func encoded(_ data: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = [UInt8(ascii: "$")]
        var sum: UInt8 = 0
        func escaped(_ byte: UInt8) -> [UInt8] { special.contains(byte) ? [escape, byte ^ 0x20] : [byte] }
        for byte in data.lazy.flatMap(escaped) {
            sum &+= byte
            bytes.append(byte)
        }
        bytes.append(UInt8(ascii: "#"))
        return bytes + Hex.digits([sum])
    }

    /// Data of a packet without its escapes. An escape at the end is dropped.
    static func unescaped(_ data: [UInt8]) -> [UInt8] {
        guard data.contains(escape) else { return data }
        var result: [UInt8] = []
        var isEscaped = false
        for byte in data {
            if isEscaped {
                result.append(byte ^ 0x20)
                isEscaped = false
            } else if byte == escape {
                isEscaped = true
            } else {
                result.append(byte)
            }
        }
        return result
    }
}

extension UInt8 {
    /// The value of a hexadecimal digit in ASCII.
    var hexDigit: UInt8? {
        switch self {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): self - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): self - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): self - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

/// Bytes as hexadecimal digits in ASCII.
package enum Hex {
    private static let alphabet = Array("0123456789abcdef".utf8)

    private static func digit(_ value: UInt8) -> UInt8 { alphabet[Int(value & 15)] }

    /// Two digits for each byte.
    package static func digits(_ bytes: some Sequence<UInt8>) -> [UInt8] {
        bytes.flatMap { [digit($0 >> 4), digit($0)] }
    }

    /// - Returns: nil for an odd number of digits, or another character.
    package static func bytes(_ digits: some Collection<UInt8>) -> [UInt8]? {
        guard digits.count % 2 == 0 else { return nil }
        var result: [UInt8] = []
        var high: UInt8?
        for digit in digits {
            guard let value = digit.hexDigit else { return nil }
            if let first = high {
                result.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return result
    }

    /// `size` bytes of a value, little endian, two digits for each.
    static func littleEndian(_ value: UInt64, size: Int) -> [UInt8] {
        digits((0..<size).map { $0 < 8 ? UInt8(truncatingIfNeeded: value >> (UInt64($0) * 8)) : 0 })
    }
}
