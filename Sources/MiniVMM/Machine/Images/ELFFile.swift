// SPDX-License-Identifier: MIT
/// `EI_CLASS`.
public enum ELFClass: String, Sendable, Hashable {
    case elf32 = "ELF32"
    case elf64 = "ELF64"
}

/// A static ELF executable for x86, of 32 or 64 bits (System V ABI, chapter 4 and 5).
struct ELFFile {
    private typealias Field = ImageError.Field

    static let magic: [UInt8] = [0x7f, 0x45, 0x4c, 0x46]

    let kind: ELFClass
    /// `e_entry`.
    let entry: UInt64
    /// The `PT_LOAD` segments, at `p_paddr`.
    let segments: [BootImage.Segment]
    /// `p_vaddr` of the same segments, and the index of their program headers.
    private let virtual: [(start: UInt64, header: Int)]
    /// The contents of the `PT_NOTE` segments.
    private let notes: [(header: Int, bytes: [UInt8])]

    /// - Throws: ``ImageError``: the file is truncated, not a static executable for x86, or one of its program headers cannot
    ///   be loaded.
    init(_ bytes: [UInt8]) throws(ImageError) {
        let file = ImageReader(bytes: bytes)
        let kindByte = try file.byte(4, Field("EI_CLASS"))
        guard kindByte == 1 || kindByte == 2 else { throw .elfClass(kindByte) }
        kind = kindByte == 1 ? .elf32 : .elf64
        let isWide = kind == .elf64
        let order = try file.byte(5, Field("EI_DATA"))
        guard order == 1 else { throw .dataEncoding(order) }
        let machine = try file.half(18, Field("e_machine"))
        // EM_386 and EM_X86_64. An ELF32 file for x86-64 is of the x32 ABI.
        guard machine == (isWide ? 62 : 3) else { throw .machine(machine, kind) }
        let type = try file.half(16, Field("e_type"))
        guard type == 2 else { throw .type(type) }
        entry = isWide ? try file.word(24, Field("e_entry")) : try file.number(24, 4, Field("e_entry"))
        let table = isWide ? try file.word(32, Field("e_phoff")) : try file.number(28, 4, Field("e_phoff"))
        let entrySize = UInt64(try file.half(isWide ? 54 : 42, Field("e_phentsize")))
        let count = try file.half(isWide ? 56 : 44, Field("e_phnum"))
        guard entrySize >= (isWide ? 56 : 32) else { throw .programHeaderSize(entrySize) }
        var segments: [BootImage.Segment] = []
        var virtual: [(start: UInt64, header: Int)] = []
        var notes: [(header: Int, bytes: [UInt8])] = []
        for index in 0..<Int(count) {
            let (start, overflow) = table.addingReportingOverflow(UInt64(index) * entrySize)
            guard !overflow, start < UInt64(bytes.count) else {
                throw .programHeaderOutsideFile(index, fileSize: bytes.count)
            }
            let header = try ProgramHeader(file, start, index, kind)
            switch header.type {
            case 3: throw .interpreter(programHeader: index)
            case 4:
                notes.append(
                    (index, try file.slice(header.offset, header.fileSize, Field(programHeader: index))))
            case 1 where header.size > 0:
                segments.append(try header.segment(in: file))
                virtual.append((header.virtual, index))
            default: break
            }
        }
        guard !segments.isEmpty else { throw .nothingToLoad }
        (self.segments, self.virtual, self.notes) = (segments, virtual, notes)
    }

    /// A guest that starts with paging on runs identity mapped.
    func checkIdentity() throws(ImageError) {
        for (segment, (start, header)) in zip(segments, virtual) where segment.gpa != start {
            throw .notIdentityMapped(programHeader: header, virtual: start, physical: segment.gpa)
        }
    }

    /// - Parameter name: how an error names the entry.
    func check(entry: UInt64, _ name: String) throws(ImageError) {
        guard segments.contains(where: { $0.contains(entry) }) else { throw .entryOutside(entry, name) }
    }

    /// `e_entry` as a guest-physical address: an entry that is only in the virtual addresses of a segment is moved with it,
    /// as other Multiboot loaders do.
    var physicalEntry: UInt64 {
        if segments.contains(where: { $0.contains(entry) }) { return entry }
        for (segment, (start, _)) in zip(segments, virtual)
        where entry >= start && entry - start < segment.size {
            return segment.gpa + (entry - start)
        }
        return entry
    }

    /// The address in `XEN_ELFNOTE_PHYS32_ENTRY`; nil without such a note.
    ///
    /// - Throws: ``ImageError/badNote(programHeader:_:)`` if the notes contradict themselves.
    var pvhEntry: UInt64? {
        get throws(ImageError) {
            for (header, bytes) in notes {
                if let entry = try Self.pvhEntry(in: bytes, header) { return entry }
            }
            return nil
        }
    }

    private static func pvhEntry(in bytes: [UInt8], _ header: Int) throws(ImageError) -> UInt64? {
        let notes = ImageReader(bytes: bytes)
        var place: UInt64 = 0
        while place + 12 <= UInt64(bytes.count) {
            let field = Field(programHeader: header, "a note")
            let nameSize = try notes.number(place, 4, field)
            let size = try notes.number(place + 4, 4, field)
            let type = try notes.number(place + 8, 4, field)
            // Sizes have 32 bits, so this cannot overflow.
            let contents = place + 12 + (nameSize + 3) & ~3
            guard contents + size <= UInt64(bytes.count) else {
                throw .badNote(programHeader: header, "extends past the end of its segment")
            }
            let name = try notes.slice(place + 12, nameSize, field)
            if type == 18, name == Array("Xen\0".utf8) {
                guard size == 4 || size == 8 else {
                    throw .badNote(programHeader: header, "has \(size) bytes for an address of 4 or 8")
                }
                let entry = try notes.number(contents, size, field)
                guard entry >> 32 == 0 else {
                    throw .badNote(programHeader: header, "has the entry point \(hex(entry)), above 4 GiB")
                }
                return entry
            }
            place = contents + (size + 3) & ~3
        }
        return nil
    }
}

extension BootImage.Segment {
    func contains(_ address: UInt64) -> Bool { gpa <= address && address - gpa < size }
}

/// `Elf32_Phdr` or `Elf64_Phdr`.
private struct ProgramHeader {
    let index: Int
    let type: UInt32
    let offset, virtual, physical, fileSize, size: UInt64

    init(_ file: ImageReader, _ at: UInt64, _ index: Int, _ kind: ELFClass) throws(ImageError) {
        func number(_ narrow: UInt64, _ wide: UInt64, _ name: String) throws(ImageError) -> UInt64 {
            let field = ImageError.Field(programHeader: index, name)
            return kind == .elf64
                ? try file.word(at &+ wide, field) : try file.number(at &+ narrow, 4, field)
        }
        self.index = index
        type = try file.half32(at, ImageError.Field(programHeader: index, "p_type"))
        guard type == 1 || type == 4 else {
            (offset, virtual, physical, fileSize, size) = (0, 0, 0, 0, 0)
            return
        }
        offset = try number(4, 8, "p_offset")
        virtual = try number(8, 16, "p_vaddr")
        physical = try number(12, 24, "p_paddr")
        fileSize = try number(16, 32, "p_filesz")
        size = try number(20, 40, "p_memsz")
    }

    func segment(in file: ImageReader) throws(ImageError) -> BootImage.Segment {
        guard fileSize <= size else {
            throw .moreInFileThanInMemory(programHeader: index, fileSize: fileSize, size: size)
        }
        guard !physical.addingReportingOverflow(size).overflow else {
            throw .wrapsAround(programHeader: index)
        }
        let content = try file.slice(offset, fileSize, ImageError.Field(programHeader: index))
        return BootImage.Segment(gpa: physical, bytes: content, size: size, content: .segment(index))
    }
}
