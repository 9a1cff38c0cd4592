// SPDX-License-Identifier: MIT
/// Builds a static executable byte by byte, ELF64 or ELF32; a test can make any field wrong.
struct ELFBuilder {
    struct Segment {
        var type: UInt32 = 1
        var offset: UInt64?
        var virtual: UInt64
        var physical: UInt64?
        var content: [UInt8]
        var fileSize: UInt64?
        var size: UInt64?
    }
    var kind: UInt8 = 2
    var order: UInt8 = 1
    var type: UInt16 = 2
    var machine: UInt16 = 62
    var entry: UInt64 = 0x20_0000
    var tableOffset: UInt64 = 64
    var entrySize: UInt16 = 56
    var count: UInt16?
    var segments: [Segment] = [Segment(virtual: 0x20_0000, content: [0xb0, 7, 0xe6, 0xf4])]

    static func little(_ value: some FixedWidthInteger) -> [UInt8] {
        (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    var bytes: [UInt8] {
        var bytes: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, kind, order, 1, 0] + [UInt8](repeating: 0, count: 8)
        bytes += Self.little(type) + Self.little(machine) + Self.little(UInt32(1))
        bytes += Self.little(entry) + Self.little(tableOffset) + Self.little(UInt64(0))
        bytes += Self.little(UInt32(0)) + Self.little(UInt16(64)) + Self.little(entrySize)
        bytes += Self.little(count ?? UInt16(segments.count)) + [UInt8](repeating: 0, count: 6)
        var place = UInt64(64 + 56 * segments.count)
        for segment in segments {
            bytes += Self.little(segment.type) + Self.little(UInt32(7))
            bytes += Self.little(segment.offset ?? place) + Self.little(segment.virtual)
            bytes += Self.little(segment.physical ?? segment.virtual)
            bytes += Self.little(segment.fileSize ?? UInt64(segment.content.count))
            bytes += Self.little(segment.size ?? UInt64(segment.content.count)) + Self.little(UInt64(0x1000))
            place += UInt64(segment.content.count)
        }
        for segment in segments { bytes += segment.content }
        return bytes
    }

    /// The same file as ELF32 for the 80386, unless its class and machine were changed.
    var bytes32: [UInt8] {
        func word(_ value: UInt64) -> [UInt8] { Self.little(UInt32(truncatingIfNeeded: value)) }
        let kind: UInt8 = self.kind == 2 ? 1 : self.kind
        var bytes: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, kind, order, 1, 0] + [UInt8](repeating: 0, count: 8)
        bytes += Self.little(type) + Self.little(machine == 62 ? 3 : machine) + Self.little(UInt32(1))
        bytes += word(entry) + word(tableOffset == 64 ? 52 : tableOffset) + word(0) + word(0)
        bytes += Self.little(UInt16(52)) + Self.little(entrySize == 56 ? 32 : entrySize)
        bytes += Self.little(count ?? UInt16(segments.count)) + [UInt8](repeating: 0, count: 6)
        // The contents begin at a multiple of 8, as Multiboot 2 wants it.
        var place = UInt64(52 + 32 * segments.count + 4) & ~7
        for segment in segments {
            bytes += Self.little(segment.type) + word(segment.offset ?? place) + word(segment.virtual)
            bytes += word(segment.physical ?? segment.virtual)
            bytes += word(segment.fileSize ?? UInt64(segment.content.count))
            bytes += word(segment.size ?? UInt64(segment.content.count)) + word(7) + word(0x1000)
            place += UInt64(segment.content.count)
        }
        bytes += [UInt8](repeating: 0, count: (52 + 32 * segments.count + 4) & ~7 - bytes.count)
        for segment in segments { bytes += segment.content }
        return bytes
    }
}
