/// What is put into RAM before the guest starts.
public struct BootImage: Sendable {
    /// Bytes for one place, followed by zeros up to `size`.
    public struct Segment: Sendable {
        /// Guest-physical address of the first byte.
        public let gpa: UInt64
        public let bytes: [UInt8]
        /// Bytes in RAM, at least `bytes.count`.
        public let size: UInt64
        /// How an error names it.
        public let name: String
    }
    public let segments: [Segment]
    /// Where the vCPUs start.
    public let entry: UInt64

    /// Where a flat image is loaded and entered.
    public static let flatBase: UInt64 = 0x10_0000

    /// A flat image: loaded at 1 MiB, entered at its first byte.
    public static func flat(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        guard !bytes.isEmpty else { throw ImageError("the image is empty") }
        let segment = Segment(gpa: flatBase, bytes: bytes, size: UInt64(bytes.count), name: "the image")
        return BootImage(segments: [segment], entry: flatBase)
    }

    /// An ELF64 static executable, or a flat image if the file does not begin like ELF.
    public static func parse(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        if bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) { return try elf(bytes) }
        // A file that begins like ELF but ends within its magic is a truncated one, not four bytes of code.
        if bytes.count < 4, !bytes.isEmpty, [0x7f, 0x45, 0x4c, 0x46].starts(with: bytes) {
            throw ImageError("the file ends at byte \(bytes.count), inside the ELF magic")
        }
        return try flat(bytes)
    }

    private static func elf(_ bytes: [UInt8]) throws(ImageError) -> BootImage {
        let file = Reader(bytes: bytes)
        let kind = try file.byte(4, "EI_CLASS")
        guard kind == 2 else {
            throw ImageError(
                "ELF class \(kind) (\(kind == 1 ? "32-bit" : "unknown")): the guest runs in 64-bit mode")
        }
        let order = try file.byte(5, "EI_DATA")
        guard order == 1 else { throw ImageError("ELF data encoding \(order): x86-64 is little endian (1)") }
        let machine = try file.half(18, "e_machine")
        guard machine == 62 else { throw ImageError("ELF machine \(machine): this is no x86-64 file (62)") }
        let type = try file.half(16, "e_type")
        guard type == 2 else {
            let cause =
                switch type {
                case 1: "an object file: link it"
                case 3: "position independent or a shared library: link it with -static -no-pie"
                case 4: "a core dump"
                default: "unknown"
                }
            throw ImageError("ELF type \(type), \(cause); a static executable has type 2")
        }
        let entry = try file.word(24, "e_entry")
        let table = try file.word(32, "e_phoff")
        let entrySize = UInt64(try file.half(54, "e_phentsize"))
        let count = try file.half(56, "e_phnum")
        guard entrySize >= 56 else {
            throw ImageError("e_phentsize is \(entrySize), less than a program header")
        }
        var segments: [Segment] = []
        for index in 0..<UInt64(count) {
            let (start, overflow) = table.addingReportingOverflow(index * entrySize)
            guard !overflow, start < UInt64(bytes.count) else {
                throw ImageError(
                    "program header \(index) lies past the end of the file (\(bytes.count) bytes)")
            }
            if let segment = try programHeader(file, start, index) { segments.append(segment) }
        }
        guard !segments.isEmpty else {
            throw ImageError("the ELF file has nothing to load (no PT_LOAD segment)")
        }
        guard segments.contains(where: { $0.gpa <= entry && entry - $0.gpa < $0.size }) else {
            throw ImageError("the entry point 0x\(String(entry, radix: 16)) lies in no loaded segment")
        }
        return BootImage(segments: segments, entry: entry)
    }

    private static func programHeader(
        _ file: Reader, _ at: UInt64, _ index: UInt64
    ) throws(ImageError) -> Segment? {
        let name = "program header \(index)"
        let type = try file.half32(at, "\(name), p_type")
        if type == 3 { throw ImageError("\(name) asks for an interpreter: link the guest with -static") }
        guard type == 1 else { return nil }
        let offset = try file.word(at + 8, "\(name), p_offset")
        let virtual = try file.word(at + 16, "\(name), p_vaddr")
        let physical = try file.word(at + 24, "\(name), p_paddr")
        let fileSize = try file.word(at + 32, "\(name), p_filesz")
        let size = try file.word(at + 40, "\(name), p_memsz")
        guard size > 0 else { return nil }
        guard virtual == physical else {
            throw ImageError(
                "\(name) is linked for 0x\(String(virtual, radix: 16)) but loads at "
                    + "0x\(String(physical, radix: 16)): the guest runs identity mapped")
        }
        guard fileSize <= size else {
            throw ImageError("\(name) has \(fileSize) bytes in the file for \(size) in memory")
        }
        guard !physical.addingReportingOverflow(size).overflow else {
            throw ImageError("\(name) wraps around the address space")
        }
        let content = try file.slice(offset, fileSize, name)
        return Segment(gpa: physical, bytes: content, size: size, name: "segment \(index)")
    }

    /// Little-endian fields at checked offsets.
    private struct Reader {
        let bytes: [UInt8]

        func slice(_ offset: UInt64, _ count: UInt64, _ field: String) throws(ImageError) -> [UInt8] {
            let (end, overflow) = offset.addingReportingOverflow(count)
            guard !overflow, end <= UInt64(bytes.count) else {
                throw ImageError(
                    "the file is truncated: \(field) needs bytes \(offset) to \(overflow ? .max : end), "
                        + "the file has \(bytes.count)")
            }
            return Array(bytes[Int(offset)..<Int(end)])
        }
        func number(_ offset: UInt64, _ count: UInt64, _ field: String) throws(ImageError) -> UInt64 {
            try slice(offset, count, field).reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        func byte(_ offset: UInt64, _ field: String) throws(ImageError) -> UInt8 {
            UInt8(truncatingIfNeeded: try number(offset, 1, field))
        }
        func half(_ offset: UInt64, _ field: String) throws(ImageError) -> UInt16 {
            UInt16(truncatingIfNeeded: try number(offset, 2, field))
        }
        func half32(_ offset: UInt64, _ field: String) throws(ImageError) -> UInt32 {
            UInt32(truncatingIfNeeded: try number(offset, 4, field))
        }
        func word(_ offset: UInt64, _ field: String) throws(ImageError) -> UInt64 {
            try number(offset, 8, field)
        }
    }
}

/// An image that cannot be booted, and where it is wrong.
public struct ImageError: Error, Sendable, Equatable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
