// SPDX-License-Identifier: MIT
/// The mode in which a vCPU executes its first instruction.
public enum CPUMode: String, Sendable, CaseIterable {
    /// Real mode: 16-bit code, no paging.
    case real
    /// 32-bit protected mode with flat segments, without paging.
    case protected
    /// 64-bit mode, with paging that maps every address to itself.
    case long
}

/// The contents of RAM before the guest starts, and the state in which it starts.
public struct BootImage: Sendable {
    /// Bytes for one address, followed by zeros up to `size`.
    public struct Segment: Sendable {
        /// Guest-physical address of the first byte.
        public let gpa: UInt64
        /// The segment's bytes in the file, at most ``size``.
        public let bytes: [UInt8]
        /// Size in RAM in bytes, at least `bytes.count`.
        public let size: UInt64
        /// How errors name the segment.
        public let content: ImageError.Part.Content
    }

    /// The format of a file.
    public enum Format: Sendable, Hashable {
        /// An ELF file without a header of a boot protocol.
        case elf(ELFClass)
        /// A Multiboot 1 header in an ELF file, or in a file that is loaded by the header's address fields (nil).
        case multiboot(ELFClass?)
        /// A Multiboot 2 header, likewise.
        case multiboot2(ELFClass?)
        /// An ELF file with the note `XEN_ELFNOTE_PHYS32_ENTRY`.
        case pvh(ELFClass)
        /// 512 bytes with 0xAA55 in the last two.
        case bootSector
        /// Anything else.
        case flat
    }

    /// In file order, followed by what a boot protocol adds. They may overlap; ``GuestLayout`` checks that.
    public internal(set) var segments: [Segment]
    /// The guest-physical address at which the vCPUs start.
    public let entry: UInt64
    /// The format of the file.
    public let format: Format
    /// The mode at ``entry``.
    public let mode: CPUMode
    /// Registers at the entry that differ from those of the state at boot.
    public internal(set) var registers: [GuestRegister: UInt64] = [:]
    /// The lowest address that the image was loaded at by an option; the stack of a real-mode guest ends below.
    let base: UInt64

    init(
        segments: [Segment], entry: UInt64, format: Format, mode: CPUMode, base: UInt64 = flatBase
    ) {
        self.segments = segments
        self.entry = entry
        self.format = format
        self.mode = mode
        self.base = base
    }

    /// The address at which a flat image is loaded and entered, unless options say otherwise.
    public static let flatBase: UInt64 = 0x10_0000
    /// The address at which a boot sector is loaded and entered, and a flat image for real mode.
    public static let bootSectorBase: UInt64 = 0x7c00
    private static let sectorSize = 512

    /// A flat image: loaded at 1 MiB, entered at its first byte in 64-bit mode.
    ///
    /// - Throws: ``ImageError/empty``.
    public static func flat(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        try flat(bytes, ImageOptions())
    }

    /// Recognises a file and decides what is loaded where.
    ///
    /// - Throws: ``ImageError``: the file is empty, truncated or contradicts itself, it is for another machine, or an
    ///   option does not go with its format. ``GuestLayout`` checks whether the image fits into RAM.
    public static func parse(
        _ bytes: [UInt8], _ options: ImageOptions = ImageOptions()
    ) throws(ImageError) -> BootImage {
        let magic = ELFFile.magic
        if bytes.starts(with: magic) {
            if options.loadAddress != nil { throw .optionNeedsFlatImage("--load-address") }
            if options.entry != nil { throw .optionNeedsFlatImage("--entry") }
            return try elf(bytes, options.mode)
        }
        // A file that ends within the ELF magic is a truncated ELF file, not a few bytes of code.
        if bytes.count < magic.count, !bytes.isEmpty, magic.starts(with: bytes) {
            throw .magicCutShort(bytes.count)
        }
        // An option that says how to load a flat image says that it is one.
        guard options.flatOnly == nil else { return try flat(bytes, options) }
        if let header = try MultibootHeader(bytes) { return try header.image(bytes) }
        if let header = try Multiboot2Header(bytes) { return try header.image(bytes) }
        let isSector = bytes.count >= sectorSize && bytes[510] == 0x55 && bytes[511] == 0xaa
        if isSector, bytes.count == sectorSize {
            var image = try flat(bytes, ImageOptions(mode: .real), format: .bootSector)
            image.registers[.rdx] = 0x80  // the first hard disk
            return image
        }
        if isSector, bytes.count % sectorSize == 0 { throw .diskImage(size: bytes.count) }
        return try flat(bytes, options)
    }

    /// - Parameter mode: nil for the mode of the format.
    private static func elf(_ bytes: [UInt8], _ mode: CPUMode?) throws(ImageError) -> BootImage {
        let file = try ELFFile(bytes)
        if let image = try protocolImage(file, bytes) {
            if let mode, mode != image.mode { throw .modeOfProtocol(mode, image.format) }
            return image
        }
        let mode = mode ?? (file.kind == .elf64 ? .long : .protected)
        if mode == .long { try file.checkIdentity() }
        try file.check(entry: file.entry, "e_entry")
        let base = file.segments.reduce(file.entry) { min($0, $1.gpa) }
        return BootImage(
            segments: file.segments, entry: file.entry, format: .elf(file.kind), mode: mode, base: base)
    }

    private static func protocolImage(_ file: ELFFile, _ bytes: [UInt8]) throws(ImageError) -> BootImage? {
        if let header = try MultibootHeader(bytes) { return try header.image(file, bytes) }
        if let header = try Multiboot2Header(bytes) { return try header.image(file, bytes) }
        guard let entry = try file.pvhEntry else { return nil }
        try file.check(entry: entry, "the entry point in the note XEN_ELFNOTE_PHYS32_ENTRY")
        return BootImage(segments: file.segments, entry: entry, format: .pvh(file.kind), mode: .protected)
    }

    private static func flat(
        _ bytes: [UInt8], _ options: ImageOptions, format: Format = .flat
    ) throws(ImageError) -> BootImage {
        guard !bytes.isEmpty else { throw .empty }
        let mode = options.mode ?? .long
        let base = options.loadAddress ?? (mode == .real ? bootSectorBase : flatBase)
        let size = UInt64(bytes.count)
        let part = ImageError.Part(.flatImage, start: base, end: base &+ size)
        guard part.end > base else { throw .pastLastPage }
        guard part.end <= mode.reach else { throw .outOfReach(part, mode) }
        let entry = options.entry ?? base
        guard entry >= base, entry < part.end else { throw .entryOutsideImage(entry, part) }
        let segment = Segment(gpa: base, bytes: bytes, size: size, content: .flatImage)
        return BootImage(segments: [segment], entry: entry, format: format, mode: mode, base: base)
    }
}

extension CPUMode {
    /// One past the last address that an image can be loaded at.
    var reach: UInt64 {
        switch self {
        case .real: 1 << 20
        case .protected: 1 << 32
        case .long: .max
        }
    }
}

extension BootImage {
    /// Format, mode and entry, for one line: `ELF32 with a Multiboot 1 header, 32-bit protected mode, entry 0x10000c`.
    public var summary: String { "\(format), \(mode.text), entry \(hex(entry))" }
}

extension CPUMode {
    /// `real mode`, `32-bit protected mode` or `64-bit mode`.
    public var text: String {
        switch self {
        case .real: "real mode"
        case .protected: "32-bit protected mode"
        case .long: "64-bit mode"
        }
    }
}

extension BootImage.Format: CustomStringConvertible {
    /// For people, without an article.
    public var description: String {
        switch self {
        case .elf(let kind): kind.rawValue
        case .multiboot(let kind):
            "\(kind?.rawValue ?? "flat image") with a Multiboot 1 header"
        case .multiboot2(let kind):
            "\(kind?.rawValue ?? "flat image") with a Multiboot 2 header"
        case .pvh(let kind): "\(kind.rawValue) with a PVH entry point"
        case .bootSector: "boot sector"
        case .flat: "flat image"
        }
    }

    /// The article for ``description``.
    var article: String {
        switch self {
        case .elf, .pvh, .multiboot(.some), .multiboot2(.some): "an"
        case .multiboot, .multiboot2, .bootSector, .flat: "a"
        }
    }

    /// One word for programs.
    public var name: String {
        switch self {
        case .elf(let kind): kind.rawValue.lowercased()
        case .multiboot: "multiboot"
        case .multiboot2: "multiboot2"
        case .pvh: "pvh"
        case .bootSector: "boot-sector"
        case .flat: "flat"
        }
    }

    /// Whether the format's own rules start one CPU, which wakes the others by means that this machine does not have.
    var startsOneCPU: Bool { hasProtocol || self == .bootSector }

    /// Whether the guest gets a command line and modules.
    var hasProtocol: Bool {
        switch self {
        case .multiboot, .multiboot2, .pvh: true
        case .elf, .bootSector, .flat: false
        }
    }
}
