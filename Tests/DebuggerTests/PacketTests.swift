// SPDX-License-Identifier: MIT
import ConversionModel
import Testing

@testable import Debugger

struct PacketTests {
    private func items(_ bytes: some Sequence<UInt8>) -> [PacketReader.Item] {
        var reader = PacketReader()
        return reader.take(bytes)
    }

    @Test func encodingIsThatOfTheProtocol() {
        #expect(Packet.encoded(Array("OK".utf8)) == Array("$OK#9a".utf8))
        #expect(Packet.encoded([]) == Array("$#00".utf8))
        // A byte that has a meaning is sent as } and itself with bit 5 changed.
        #expect(Packet.encoded(Array("a}#$*".utf8)) == Array("$a}]}\u{3}}\u{4}}\n#".utf8) + Array("c3".utf8))
    }

    @Test func itemsBetweenPackets() {
        #expect(items("+-\u{3}".utf8) == [.acknowledged, .rejected, .interrupt])
        #expect(items("xyz\n\r\0".utf8) == [])
        #expect(items("+$qC#b4+".utf8) == [.acknowledged, .packet(Array("qC".utf8)), .acknowledged])
    }

    @Test(arguments: ["$qC#b5", "$qC#zz", "$qC#+4", "$qC# b"]) func wrongChecksumsAreDamage(_ text: String) {
        #expect(items(text.utf8) == [.damaged])
    }

    @Test func checksumDigitsMayBeCapitals() {
        #expect(items("$OK#9A".utf8) == [.packet(Array("OK".utf8))])
    }

    /// A packet whose end is lost does not swallow the next one.
    @Test func aDollarBeginsAPacket() {
        #expect(items("$m100$qC#b4".utf8) == [.damaged, .packet(Array("qC".utf8))])
    }

    @Test func longestPacketIsTakenAndALongerOneIsNot() {
        let most = [UInt8](repeating: UInt8(ascii: "a"), count: PacketReader.limit)
        #expect(items(Packet.encoded(most)) == [.packet(most)])
        #expect(items(Packet.encoded(most + [0x61]) + Packet.encoded([0x67])) == [.tooLong, .packet([0x67])])
        // A megabyte without an end.
        #expect(items([UInt8(ascii: "$")] + [UInt8](repeating: 0x61, count: 1 << 20)) == [])
    }

    /// Any data arrives as it was sent, however the stream is cut, and with any bytes between packets that mean nothing.
    @Test(arguments: 0..<50 as Range<UInt64>) func everyDataSurvives(seed: UInt64) {
        var random = Random(seed)
        var stream: [UInt8] = []
        var sent: [PacketReader.Item] = []
        for _ in 0..<20 {
            let data = random.bytes(Int(random.below(64)))
            stream += Packet.encoded(data) + [0, UInt8(ascii: "x")].prefix(Int(random.below(3)))
            sent.append(.packet(data))
        }
        var reader = PacketReader()
        var got: [PacketReader.Item] = []
        var rest = stream[...]
        while !rest.isEmpty {
            let piece = rest.prefix(1 + Int(random.below(9)))
            rest = rest.dropFirst(piece.count)
            got += reader.take(piece)
        }
        #expect(got == sent)
    }

    @Test func escapeAtTheEndIsDropped() {
        #expect(Packet.unescaped(Array("a}".utf8)) == Array("a".utf8))
        #expect(items("$}#7d".utf8) == [.packet([])])
    }

    @Test func hexadecimal() {
        #expect(Hex.digits([0, 0xab, 0x10]) == Array("00ab10".utf8))
        #expect(Hex.bytes("00aB10".utf8) == [0, 0xab, 0x10])
        #expect(Hex.bytes("0".utf8) == nil && Hex.bytes("0g".utf8) == nil && Hex.bytes("".utf8) == [])
    }
}

/// Packets and bytes from a seed, so that a failure can be repeated.
struct Random {
    private var generator: SplitMix64
    init(_ seed: UInt64) { generator = SplitMix64(seed: seed) }

    mutating func next() -> UInt64 { generator.next() }
    mutating func below(_ bound: UInt64) -> UInt64 { next() % bound }
    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }
    mutating func pick<T>(_ choices: [T]) -> T { choices[Int(below(UInt64(choices.count)))] }
}
