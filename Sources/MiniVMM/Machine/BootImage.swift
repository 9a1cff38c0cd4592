// SPDX-License-Identifier: MIT
/// The contents of RAM before the guest starts.
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
    /// In file order. They may overlap; ``GuestLayout`` checks that.
    public let segments: [Segment]
    /// The address at which the vCPUs start.
    public let entry: UInt64

    /// The address at which a flat image is loaded and entered.
    public static let flatBase: UInt64 = 0x10_0000

    /// A flat image: loaded at 1 MiB, entered at its first byte.
    ///
    /// - Throws: ``ImageError/empty``.
    public static func flat(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        guard !bytes.isEmpty else { throw .empty }
        let segment = Segment(gpa: flatBase, bytes: bytes, size: UInt64(bytes.count), content: .flatImage)
        return BootImage(segments: [segment], entry: flatBase)
    }

    /// An ELF64 static executable, or a flat image if the file does not begin like ELF.
    ///
    /// - Throws: ``ImageError``: the file is empty, truncated, not a static x86-64 executable, or one of its
    ///   program headers cannot be loaded. ``GuestLayout`` checks whether the image fits into RAM.
    public static func parse(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        if bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) { return try elf(bytes) }
        // A file that ends within the ELF magic is a truncated ELF file, not a few bytes of code.
        if bytes.count < 4, !bytes.isEmpty, [0x7f, 0x45, 0x4c, 0x46].starts(with: bytes) {
            throw .magicCutShort(bytes.count)
        }
        return try flat(bytes)
    }

    private static func elf(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        let file = Reader(bytes: bytes)
        let kind = try file.byte(4, Field("EI_CLASS"))
        guard kind == 2 else { throw .elfClass(kind) }
        let order = try file.byte(5, Field("EI_DATA"))
        guard order == 1 else { throw .dataEncoding(order) }
        let machine = try file.half(18, Field("e_machine"))
        guard machine == 62 else { throw .machine(machine) }
        let type = try file.half(16, Field("e_type"))
        guard type == 2 else { throw .type(type) }
        let entry = try file.word(24, Field("e_entry"))
        let table = try file.word(32, Field("e_phoff"))
        let entrySize = UInt64(try file.half(54, Field("e_phentsize")))
        let count = try file.half(56, Field("e_phnum"))
        guard entrySize >= 56 else { throw .programHeaderSize(entrySize) }
        var segments: [Segment] = []
        for index in 0..<Int(count) {
            let (start, overflow) = table.addingReportingOverflow(UInt64(index) * entrySize)
            guard !overflow, start < UInt64(bytes.count) else {
                throw .programHeaderOutsideFile(index, fileSize: bytes.count)
            }
            if let segment = try programHeader(file, start, index) { segments.append(segment) }
        }
        guard !segments.isEmpty else { throw .nothingToLoad }
        guard segments.contains(where: { $0.gpa <= entry && entry - $0.gpa < $0.size }) else {
            throw .entryOutside(entry)
        }
        return BootImage(segments: segments, entry: entry)
    }

    private static func programHeader(
        _ file: Reader, _ at: UInt64, _ index: Int
    ) throws(ImageError) -> Segment? {
        func field(_ name: String) -> Field { Field(programHeader: index, name) }
        let type = try file.half32(at, field("p_type"))
        if type == 3 { throw .interpreter(programHeader: index) }
        guard type == 1 else { return nil }
        let offset = try file.word(at + 8, field("p_offset"))
        let virtual = try file.word(at + 16, field("p_vaddr"))
        let physical = try file.word(at + 24, field("p_paddr"))
        let fileSize = try file.word(at + 32, field("p_filesz"))
        let size = try file.word(at + 40, field("p_memsz"))
        guard size > 0 else { return nil }
        guard virtual == physical else {
            throw .notIdentityMapped(programHeader: index, virtual: virtual, physical: physical)
        }
        guard fileSize <= size else {
            throw .moreInFileThanInMemory(programHeader: index, fileSize: fileSize, size: size)
        }
        guard !physical.addingReportingOverflow(size).overflow else {
            throw .wrapsAround(programHeader: index)
        }
        let content = try file.slice(offset, fileSize, Field(programHeader: index))
        return Segment(gpa: physical, bytes: content, size: size, content: .segment(index))
    }

    private typealias Field = ImageError.Field

    /// Little-endian fields at checked offsets.
    private struct Reader {
        let bytes: [UInt8]

        func slice(_ offset: UInt64, _ count: UInt64, _ field: Field) throws(ImageError) -> [UInt8] {
            let (end, overflow) = offset.addingReportingOverflow(count)
            guard !overflow, end <= UInt64(bytes.count) else {
                throw .cutShort(
                    field, offset: offset, end: overflow ? .max : end, fileSize: bytes.count)
            }
            return Array(bytes[Int(offset)..<Int(end)])
        }
        func number(_ offset: UInt64, _ count: UInt64, _ field: Field) throws(ImageError) -> UInt64 {
            try slice(offset, count, field).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        func byte(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt8 {
            UInt8(truncatingIfNeeded: try number(offset, 1, field))
        }
        func half(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt16 {
            UInt16(truncatingIfNeeded: try number(offset, 2, field))
        }
        func half32(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt32 {
            UInt32(truncatingIfNeeded: try number(offset, 4, field))
        }
        func word(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt64 {
            try number(offset, 8, field)
        }
    }
}
