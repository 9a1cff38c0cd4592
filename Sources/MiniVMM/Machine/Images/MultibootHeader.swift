// SPDX-License-Identifier: MIT
/// The header of a Multiboot 1 kernel (Multiboot Specification 0.6.96, section 3.1).
struct MultibootHeader {
    private typealias Field = ImageError.Field

    private static let magic: UInt32 = 0x1bad_b002
    /// EAX at the entry.
    static let loaderMagic: UInt64 = 0x2bad_b002
    /// The header is in the first 8192 bytes, at a multiple of 4.
    private static let searched = 8192
    /// Flags 0 to 2: aligned modules, the sizes of memory, a video mode. Nothing answers the last, as with QEMU.
    private static let knownRequests: UInt64 = 0b111
    private static let hasAddresses: UInt64 = 1 << 16

    /// The byte offset in the file.
    let place: UInt64
    /// Where the file is to be loaded, if the header says so; otherwise its ELF header does.
    private let addresses: LoadAddresses?

    /// - Returns: nil if the file has no such header.
    /// - Throws: ``ImageError``: the header is truncated, its checksum is wrong, or it asks for what is not there.
    init?(_ bytes: [UInt8]) throws(ImageError) {
        let file = ImageReader(bytes: bytes)
        let name = "the Multiboot header"
        guard let found = file.find(Self.magic, within: Self.searched, alignment: 4) else {
            return nil
        }
        place = found
        let flags = try file.number(found + 4, 4, Field("flags", of: name))
        let checksum = try file.number(found + 8, 4, Field("checksum", of: name))
        let expected = (0 &- UInt64(Self.magic) &- flags) & 0xffff_ffff
        guard checksum == expected else {
            throw .badHeader(
                name, at: found, "its checksum is \(hex(checksum)) and should be \(hex(expected))")
        }
        let unknown = flags & 0xffff & ~Self.knownRequests
        guard unknown == 0 else {
            throw .badHeader(
                name, at: found, "it requires features that do not exist (flags \(hex(unknown)))")
        }
        guard flags & Self.hasAddresses != 0 else {
            addresses = nil
            return
        }
        func field(_ offset: UInt64, _ field: String) throws(ImageError) -> UInt64 {
            try file.number(found + offset, 4, Field(field, of: name))
        }
        addresses = LoadAddresses(
            name: name, place: found, header: try field(12, "header_addr"), load: try field(16, "load_addr"),
            loadEnd: try field(20, "load_end_addr"), zeroEnd: try field(24, "bss_end_addr"),
            entry: try field(28, "entry_addr"))
    }

    /// The image of a file that is not ELF.
    func image(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        guard let addresses else {
            throw .badHeader(
                "the Multiboot header", at: place,
                "it has no load addresses (flag 16), and the file is not ELF")
        }
        return try addresses.image(bytes, .multiboot(nil))
    }

    /// The image of an ELF file. Load addresses in the header count more than the program headers.
    func image(_ file: ELFFile, _ bytes: [UInt8]) throws(ImageError) -> BootImage {
        if let addresses { return try addresses.image(bytes, .multiboot(file.kind)) }
        try file.check(entry: file.physicalEntry, "e_entry")
        return BootImage(
            segments: file.segments, entry: file.physicalEntry, format: .multiboot(file.kind),
            mode: .protected)
    }
}

/// The load addresses of a Multiboot header ("a.out kludge"), in the file's own words.
struct LoadAddresses {
    /// How errors name the header.
    let name: String
    /// Byte offset of the header in the file.
    let place: UInt64
    let header, load: UInt64
    /// One past the last byte to load; 0 for all of the file.
    let loadEnd: UInt64
    /// One past the last byte to clear; 0 for none.
    let zeroEnd: UInt64
    let entry: UInt64

    /// - Throws: ``ImageError/badHeader(_:at:_:)`` if the addresses contradict each other or the file.
    func image(_ bytes: [UInt8], _ format: BootImage.Format) throws(ImageError) -> BootImage {
        func bad(_ what: String) -> ImageError { .badHeader(name, at: place, what) }
        guard load <= header else {
            throw bad("load_addr \(hex(load)) is above header_addr \(hex(header))")
        }
        guard header - load <= place else {
            throw bad("load_addr \(hex(load)) is before the start of the file")
        }
        let start = place - (header - load)
        let available = UInt64(bytes.count) - start
        let end = loadEnd == 0 ? load &+ available : loadEnd
        guard end > load else {
            throw bad("load_end_addr \(hex(loadEnd)) is not above load_addr \(hex(load))")
        }
        guard end - load <= available else {
            throw bad("it loads \(end - load) bytes, of which the file has \(available)")
        }
        let last = zeroEnd == 0 ? end : zeroEnd
        guard last >= end else {
            throw bad("bss_end_addr \(hex(zeroEnd)) is below the end of the file's bytes")
        }
        guard entry >= load, entry < last else {
            throw bad("entry_addr \(hex(entry)) is outside of [\(hex(load)), \(hex(last)))")
        }
        let content = Array(bytes[Int(start)..<Int(start + (end - load))])
        let segment = BootImage.Segment(gpa: load, bytes: content, size: last - load, content: .flatImage)
        return BootImage(segments: [segment], entry: entry, format: format, mode: .protected)
    }
}
