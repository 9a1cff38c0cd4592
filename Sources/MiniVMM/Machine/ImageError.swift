// SPDX-License-Identifier: MIT
/// Why an image cannot be booted, and where it is wrong.
public enum ImageError: Error, Sendable, Hashable {
    case empty
    /// The file ends at this byte, inside the ELF magic.
    case magicCutShort(Int)
    /// A field or a segment needs bytes that the file, which has `fileSize`, does not have.
    case cutShort(Field, offset: UInt64, end: UInt64, fileSize: Int)
    /// `EI_CLASS`, `EI_DATA`, `e_machine`, `e_type`: not what a guest for x86-64 has.
    case elfClass(UInt8)
    case dataEncoding(UInt8)
    case machine(UInt16)
    case type(UInt16)
    /// `e_phentsize` is less than a program header.
    case programHeaderSize(UInt64)
    case programHeaderOutsideFile(Int, fileSize: Int)
    case interpreter(programHeader: Int)
    case notIdentityMapped(programHeader: Int, virtual: UInt64, physical: UInt64)
    case moreInFileThanInMemory(programHeader: Int, fileSize: UInt64, size: UInt64)
    case wrapsAround(programHeader: Int)
    case nothingToLoad
    case entryOutside(UInt64)
    /// A part of the image that is not in RAM, which ends at `ramSize`.
    case outsideRAM(Part, ramSize: UInt64)
    case overlap(Part, with: Part)
    case pastLastPage

    /// A field of the file.
    public struct Field: Sendable, Hashable {
        /// Nil for the ELF header.
        public let programHeader: Int?
        /// As elf.h has it; nil for a segment's bytes.
        public let name: String?

        public init(programHeader: Int? = nil, _ name: String? = nil) {
            self.programHeader = programHeader
            self.name = name
        }
    }

    /// Bytes of guest-physical memory.
    public struct Part: Sendable, Hashable {
        public enum Content: Sendable, Hashable {
            case flatImage
            case segment(Int)
            case stacks
            case bootPages
            case pageTables
        }
        public let content: Content
        /// One that wraps around ends before it starts.
        public let start: UInt64
        public let end: UInt64

        public init(_ content: Content, start: UInt64, end: UInt64) {
            self.content = content
            self.start = start
            self.end = end
        }
    }
}

extension ImageError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .empty: "the image is empty"
        case .magicCutShort(let count): "the file ends at byte \(count), inside the ELF magic"
        case .cutShort(let field, let offset, let end, let fileSize):
            "the file is truncated: \(field) needs bytes \(offset) to \(end), the file has \(fileSize)"
        case .elfClass(let value):
            "ELF class \(value) (\(value == 1 ? "32-bit" : "unknown")): the guest runs in 64-bit mode"
        case .dataEncoding(let value): "ELF data encoding \(value): x86-64 is little endian (1)"
        case .machine(let value): "ELF machine \(value): this is no x86-64 file (62)"
        case .type(let value): "ELF type \(value), \(Self.cause(value)); a static executable has type 2"
        case .programHeaderSize(let size): "e_phentsize is \(size), less than a program header"
        case .programHeaderOutsideFile(let index, let fileSize):
            "program header \(index) lies past the end of the file (\(fileSize) bytes)"
        case .interpreter(let index):
            "program header \(index) asks for an interpreter: link the guest with -static"
        case .notIdentityMapped(let index, let virtual, let physical):
            "program header \(index) is linked for \(hex(virtual)) but loads at \(hex(physical)): the guest runs identity "
                + "mapped"
        case .moreInFileThanInMemory(let index, let fileSize, let size):
            "program header \(index) has \(fileSize) bytes in the file for \(size) in memory"
        case .wrapsAround(let index): "program header \(index) wraps around the address space"
        case .nothingToLoad: "the image has nothing to load (an ELF file needs a PT_LOAD segment)"
        case .entryOutside(let entry): "the entry point \(hex(entry)) lies in no loaded segment"
        case .outsideRAM(let part, let size): "\(part), does not fit into RAM, which ends at \(hex(size))"
        case .overlap(let part, let other): "\(part), overlaps \(other)"
        case .pastLastPage: "the image reaches past the last page of the address space"
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
    public var description: String {
        let header = programHeader.map { "program header \($0)" }
        return [header, name].compactMap { $0 }.joined(separator: ", ")
    }
}

extension ImageError.Part: CustomStringConvertible {
    public var description: String { "\(content), [\(hex(start)), \(hex(end)))" }
}

extension ImageError.Part.Content: CustomStringConvertible {
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
