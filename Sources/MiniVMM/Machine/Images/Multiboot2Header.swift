// SPDX-License-Identifier: MIT
/// The header of a Multiboot 2 kernel (Multiboot2 Specification 2.0, section 3.1).
struct Multiboot2Header {
    private typealias Field = ImageError.Field

    private static let magic: UInt32 = 0xe852_50d6
    /// EAX at the entry.
    static let loaderMagic: UInt64 = 0x36d7_6289
    /// The header is in the first 32768 bytes, at a multiple of 8.
    private static let searched = 32768
    private static let name = "the Multiboot 2 header"

    /// The types of tags in a header.
    private enum Tag {
        static let end: UInt64 = 0
        static let informationRequest: UInt64 = 1
        static let address: UInt64 = 2
        static let entryAddress: UInt64 = 3
        static let consoleFlags: UInt64 = 4
        /// Aligned modules, entries of EFI, relocatable images: what they ask for is done, or may be ignored.
        static let harmless: Set<UInt64> = [6, 7, 8, 9, 10]
    }

    private let place: UInt64
    private var addresses: (header: UInt64, load: UInt64, loadEnd: UInt64, zeroEnd: UInt64)?
    private var entry: UInt64?

    /// - Returns: nil if the file has no such header.
    /// - Throws: ``ImageError``: the header is truncated, its checksum is wrong, or it requires what is not there.
    init?(_ bytes: [UInt8]) throws(ImageError) {
        let file = ImageReader(bytes: bytes)
        guard let found = file.find(Self.magic, within: Self.searched, alignment: 8) else {
            return nil
        }
        place = found
        func field(_ offset: UInt64, _ size: UInt64, _ name: String) throws(ImageError) -> UInt64 {
            try file.number(found + offset, size, Field(name, of: Self.name))
        }
        func bad(_ what: String) -> ImageError { .badHeader(Self.name, at: found, what) }
        let architecture = try field(4, 4, "architecture")
        let length = try field(8, 4, "header_length")
        let checksum = try field(12, 4, "checksum")
        let expected = (0 &- UInt64(Self.magic) &- architecture &- length) & 0xffff_ffff
        guard checksum == expected else {
            throw bad("its checksum is \(hex(checksum)) and should be \(hex(expected))")
        }
        guard architecture == 0 else { throw bad("its architecture is \(architecture); i386 is 0") }
        var offset: UInt64 = 16
        while true {
            guard offset + 8 <= length else { throw bad("it has no end tag in its \(length) bytes") }
            let type = try field(offset, 2, "the type of a tag")
            let isOptional = try field(offset + 2, 2, "the flags of a tag") & 1 != 0
            let size = try field(offset + 4, 4, "the size of a tag")
            guard size >= 8, offset + size <= length else {
                throw bad("the tag at byte \(found + offset) has \(size) bytes, which is too few or too many")
            }
            func needs(_ bytes: UInt64) throws(ImageError) {
                guard size >= bytes else { throw bad("the tag at byte \(found + offset) is too short") }
            }
            switch type {
            case Tag.end: return
            case Tag.informationRequest:
                for place in stride(from: offset + 8, to: offset + size - 3, by: 4) where !isOptional {
                    let wanted = try field(place, 4, "an information request")
                    guard MultibootInformation.tags.contains(wanted) else {
                        throw bad("it requires information of type \(wanted), which does not exist here")
                    }
                }
            case Tag.address:
                try needs(24)
                addresses = (
                    try field(offset + 8, 4, "header_addr"), try field(offset + 12, 4, "load_addr"),
                    try field(offset + 16, 4, "load_end_addr"), try field(offset + 20, 4, "bss_end_addr")
                )
            case Tag.entryAddress:
                try needs(12)
                entry = try field(offset + 8, 4, "entry_addr")
            case Tag.consoleFlags:
                try needs(12)
                let flags = try field(offset + 8, 4, "console_flags")
                guard isOptional || flags & 1 == 0 else {
                    throw bad("it requires a text console; this machine has COM1 only")
                }
            case let type where isOptional || Tag.harmless.contains(type): break
            case 5: throw bad("it requires a framebuffer; this machine has none")
            default: throw bad("it requires the feature of tag \(type), which does not exist here")
            }
            offset += (size + 7) & ~7
        }
    }

    /// The image of a file that is not ELF.
    func image(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        guard let addresses = try loadAddresses else {
            throw .badHeader(Self.name, at: place, "it has no address tag, and the file is not ELF")
        }
        return try addresses.image(bytes, .multiboot2(nil))
    }

    /// The image of an ELF file. An address tag counts more than the program headers, an entry tag more than `e_entry`.
    func image(_ file: ELFFile, _ bytes: [UInt8]) throws(ImageError) -> BootImage {
        if let addresses = try loadAddresses { return try addresses.image(bytes, .multiboot2(file.kind)) }
        let entry = entry ?? file.physicalEntry
        try file.check(entry: entry, self.entry == nil ? "e_entry" : "entry_addr of the Multiboot 2 header")
        return BootImage(
            segments: file.segments, entry: entry, format: .multiboot2(file.kind), mode: .protected)
    }

    private var loadAddresses: LoadAddresses? {
        get throws(ImageError) {
            guard let (header, load, loadEnd, zeroEnd) = addresses else { return nil }
            guard let entry else {
                throw .badHeader(Self.name, at: place, "it has an address tag but no entry address tag")
            }
            return LoadAddresses(
                name: Self.name, place: place, header: header, load: load, loadEnd: loadEnd, zeroEnd: zeroEnd,
                entry: entry)
        }
    }
}
