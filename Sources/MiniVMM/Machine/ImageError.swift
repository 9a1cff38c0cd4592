// SPDX-License-Identifier: MIT
/// Why an image cannot be booted, and where the fault is.
public enum ImageError: Error, Sendable, Hashable {
    /// The file has no bytes.
    case empty
    /// The file ends at this byte, inside the ELF magic.
    case magicCutShort(Int)
    /// A field or a segment needs bytes past the end of the file, which has `fileSize` bytes.
    case cutShort(Field, offset: UInt64, end: UInt64, fileSize: Int)
    /// `EI_CLASS` is neither 1 (32-bit) nor 2 (64-bit).
    case elfClass(UInt8)
    /// `EI_DATA` is not 1 (little endian).
    case dataEncoding(UInt8)
    /// `e_machine` is not 62 (x86-64) in an ELF64 file, or not 3 (80386) in an ELF32 file.
    case machine(UInt16, ELFClass)
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
    /// The entry point, under this name, is not in any loaded segment.
    case entryOutside(UInt64, String)
    /// `--entry` is not in the flat image.
    case entryOutsideImage(UInt64, Part)
    /// The header of a boot protocol, at this byte of the file, is wrong or asks for what is not there.
    case badHeader(String, at: UInt64, String)
    /// A note in the `PT_NOTE` segment of this program header is wrong.
    case badNote(programHeader: Int, String)
    /// Several sectors that begin with a boot sector; sizes in bytes.
    case diskImage(size: Int)
    /// This option is only for flat images.
    case optionNeedsFlatImage(String)
    /// `--mode` contradicts the boot protocol of the image.
    case modeOfProtocol(CPUMode, BootImage.Format)
    /// This option is only for guests of a boot protocol.
    case optionNeedsProtocol(String, BootImage.Format)
    /// A command line or the string of a module has so many bytes.
    case textTooLong(Int, longest: Int)
    /// A part of the image that its mode cannot address.
    case outOfReach(Part, CPUMode)
    /// There is no room in RAM for this part besides the others; both sizes in bytes.
    case noRoom(Part.Content, size: UInt64, ramSize: UInt64)
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
        /// The name in elf.h, or in the specification of the header; nil for a segment's bytes.
        public let name: String?
        /// The header of a boot protocol; nil for one of ELF.
        public let header: String?

        /// `programHeader` is the index in the table, from 0.
        public init(programHeader: Int? = nil, _ name: String? = nil, of header: String? = nil) {
            self.programHeader = programHeader
            self.name = name
            self.header = header
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
            /// The interrupt vector table of real mode.
            case vectorTable
            /// The module with this index on the command line.
            case module(Int)
            /// The information structures of a boot protocol.
            case bootInformation
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
            "ELF class \(value) is unknown: it is 1 (32-bit) or 2 (64-bit)"
        case .dataEncoding(let value): "ELF data encoding \(value): x86 is little endian (1)"
        case .machine(let value, let kind): Self.machine(value, kind)
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
        case .entryOutside(let entry, let name):
            "\(name == "e_entry" ? "the entry point" : name) \(hex(entry)) is not in any loaded segment"
        case .entryOutsideImage(let entry, let image): "--entry \(hex(entry)) is not in \(image)"
        case .badHeader(let name, let place, let why): "\(name) at byte \(place): \(why)"
        case .badNote(let index, let why): "program header \(index): a note \(why)"
        case .diskImage(let size):
            "this looks like a disk image (\(size / 512) sectors, the first one a boot sector): the machine has no disk and no "
                + "BIOS to read one"
        case .optionNeedsFlatImage(let option):
            "\(option) is for flat images: an ELF file says itself how it is loaded and entered"
        case .modeOfProtocol(let mode, let format):
            "--mode \(mode.rawValue): this is \(format.article) \(format), which starts in 32-bit protected mode"
        case .optionNeedsProtocol(let option, let format):
            "\(option) is for Multiboot and PVH guests: nothing passes it to this one (\(format))"
        case .textTooLong(let count, let longest):
            "the command line or the string of a module has \(count) bytes; the limit is \(longest)"
        case .outOfReach(let part, let mode):
            "\(part), is not below \(hex(mode.reach)), which is all that a guest in \(mode.text) can address"
        case .noRoom(let content, let size, let ramSize):
            "there is no room for \(content) (\(size) bytes) besides the image in RAM, which ends at \(hex(ramSize))"
        case .outsideRAM(let part, let size): "\(part), does not fit into RAM, which ends at \(hex(size))"
        case .overlap(let part, let other): "\(part), overlaps \(other)"
        case .pastLastPage: "the image extends past the last page of the address space"
        }
    }

    private static func machine(_ value: UInt16, _ kind: ELFClass) -> String {
        let names: [UInt16: String] = [
            2: "SPARC", 3: "80386", 8: "MIPS", 20: "PowerPC", 21: "64-bit PowerPC", 22: "S/390", 40: "ARM",
            43: "64-bit SPARC", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 247: "BPF", 258: "LoongArch",
        ]
        let name = names[value].map { " (\($0))" } ?? ""
        if value == 62 {
            return "ELF machine 62 in an ELF32 file: the x32 ABI; build the guest with -m64 or -m32"
        }
        if value == 3 { return "ELF machine 3 (80386) in an ELF64 file" }
        return "ELF machine \(value)\(name): this is not an x86 file (\(kind == .elf64 ? 62 : 3))"
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
        let place = header ?? programHeader.map { "program header \($0)" }
        return [place, name].compactMap { $0 }.joined(separator: ", ")
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
        case .vectorTable: "the interrupt vector table"
        case .module(let index): "module \(index)"
        case .bootInformation: "the information for the kernel"
        }
    }
}
