// SPDX-License-Identifier: MIT
/// Why an image cannot be booted, and where the fault is.
public enum ImageError: Error, Sendable, Hashable {
    /// The file has no bytes.
    case empty
    /// The file ends at this byte, inside the ELF magic.
    case magicCutShort(Int)
    /// A field or a segment needs bytes past the end of the file, which has `fileSize` bytes.
    case cutShort(Field, offset: UInt64, end: UInt64, fileSize: Int)
    /// `EI_CLASS` is not 2 (64-bit).
    case elfClass(UInt8)
    /// `EI_DATA` is not 1 (little endian).
    case dataEncoding(UInt8)
    /// `e_machine` is not 62 (x86-64).
    case machine(UInt16)
    /// `e_type` is not 2 (a static executable).
    case type(UInt16)
    /// `e_phentsize` is less than a program header.
    case programHeaderSize(UInt64)
    /// The program header with this index starts at or after the end of the file, which has `fileSize` bytes.
    case programHeaderOutsideFile(Int, fileSize: Int)
    /// This program header is `PT_INTERP`: the file is linked dynamically.
    case interpreter(programHeader: Int)
    /// `p_vaddr` and `p_paddr` of a segment differ.
    case notIdentityMapped(programHeader: Int, virtual: UInt64, physical: UInt64)
    /// `p_filesz` of a segment exceeds its `p_memsz`; both in bytes.
    case moreInFileThanInMemory(programHeader: Int, fileSize: UInt64, size: UInt64)
    /// `p_paddr + p_memsz` of a segment exceeds 64 bits.
    case wrapsAround(programHeader: Int)
    /// There is no `PT_LOAD` segment with a byte in memory.
    case nothingToLoad
    /// `e_entry` is not in any loaded segment.
    case entryOutside(UInt64)
    /// A part of the image that is not in RAM, which ends at `ramSize`.
    case outsideRAM(Part, ramSize: UInt64)
    /// Two parts have an address in common. The second may belong to the monitor.
    case overlap(Part, with: Part)
    /// The last page of the image would end after 2^64 bytes.
    case pastLastPage

    /// A field of the file.
    public struct Field: Sendable, Hashable {
        /// Nil for the ELF header.
        public let programHeader: Int?
        /// The name in elf.h; nil for a segment's bytes.
        public let name: String?

        /// `programHeader` is the index in the table, from 0.
        public init(programHeader: Int? = nil, _ name: String? = nil) {
            self.programHeader = programHeader
            self.name = name
        }
    }

    /// Bytes of guest-physical memory.
    public struct Part: Sendable, Hashable {
        /// The kind of part; some belong to the image and some to the monitor.
        public enum Content: Sendable, Hashable {
            /// All of a flat image.
            case flatImage
            /// The `PT_LOAD` segment of the program header with this index.
            case segment(Int)
            /// The stacks of all vCPUs.
            case stacks
            /// The GDT and the boot information page.
            case bootPages
            /// The page tables with which the vCPUs start.
            case pageTables
        }
        /// How the description names the part.
        public let content: Content
        /// Guest-physical address of the first byte.
        public let start: UInt64
        /// One past the last byte; less than ``start`` if the part wraps around.
        public let end: UInt64

        /// The part may be empty or wrap around; this is not checked.
        public init(_ content: Content, start: UInt64, end: UInt64) {
            self.content = content
            self.start = start
            self.end = end
        }
    }
}

extension ImageError: CustomStringConvertible {
    /// One line: what is wrong and where in the file, and how to link the guest if that helps.
    public var description: String {
        switch self {
        case .empty: "the image is empty"
        case .magicCutShort(let count): "the file ends at byte \(count), inside the ELF magic"
        case .cutShort(let field, let offset, let end, let fileSize):
            "the file is truncated: \(field) needs bytes \(offset) to \(end), the file has \(fileSize)"
        case .elfClass(let value):
            "ELF class \(value) (\(value == 1 ? "32-bit" : "unknown")): the guest runs in 64-bit mode"
        case .dataEncoding(let value): "ELF data encoding \(value): x86-64 is little endian (1)"
        case .machine(let value): "ELF machine \(value): this is not an x86-64 file (62)"
        case .type(let value): "ELF type \(value), \(Self.cause(value)); a static executable has type 2"
        case .programHeaderSize(let size): "e_phentsize is \(size), less than a program header"
        case .programHeaderOutsideFile(let index, let fileSize):
            "program header \(index) starts past the end of the file (\(fileSize) bytes)"
        case .interpreter(let index):
            "program header \(index) asks for an interpreter: link the guest with -static"
        case .notIdentityMapped(let index, let virtual, let physical):
            "program header \(index) is linked for \(hex(virtual)) but loads at \(hex(physical)): the guest runs identity "
                + "mapped"
        case .moreInFileThanInMemory(let index, let fileSize, let size):
            "program header \(index) has \(fileSize) bytes in the file for \(size) in memory"
        case .wrapsAround(let index): "program header \(index) wraps around the address space"
        case .nothingToLoad: "the image has nothing to load (an ELF file needs a PT_LOAD segment)"
        case .entryOutside(let entry): "the entry point \(hex(entry)) is not in any loaded segment"
        case .outsideRAM(let part, let size): "\(part), does not fit into RAM, which ends at \(hex(size))"
        case .overlap(let part, let other): "\(part), overlaps \(other)"
        case .pastLastPage: "the image extends past the last page of the address space"
        }
    }

    private static func cause(_ type: UInt16) -> String {
        switch type {
        case 1: "an object file: link it"
        case 3: "position independent or a shared library: link it with -static -no-pie"
        case 4: "a core dump"
        default: "unknown"
        }
    }
}

extension ImageError.Field: CustomStringConvertible {
    /// `program header 2, p_filesz`; `e_entry` for a field of the ELF header.
    public var description: String {
        let header = programHeader.map { "program header \($0)" }
        return [header, name].compactMap { $0 }.joined(separator: ", ")
    }
}

extension ImageError.Part: CustomStringConvertible {
    /// The part and its address range, in hexadecimal: `segment 1, [0x100000, 0x102000)`.
    public var description: String { "\(content), [\(hex(start)), \(hex(end)))" }
}

extension ImageError.Part.Content: CustomStringConvertible {
    /// `segment 1`, `the stacks`.
    public var description: String {
        switch self {
        case .flatImage: "the image"
        case .segment(let index): "segment \(index)"
        case .stacks: "the stacks"
        case .bootPages: "the GDT and the boot information page"
        case .pageTables: "the page tables"
        }
    }
}
