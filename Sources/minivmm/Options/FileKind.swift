// SPDX-License-Identifier: MIT
import SystemPackage

/// The kind of a file, by its name and its first bytes, for the error message of a command that was given another kind.
enum FileKind {
    case litmusTest
    case trace
    case assembly
    case text
    case executable
    /// A Linux kernel for the boot protocol of the BIOS, with its setup code (`bzImage`).
    case linuxKernel
    /// A program for UEFI or Windows.
    case portableExecutable
    /// Compressed, by the name of the method.
    case compressed(String)
    /// An archive of object files (`.a`).
    case archive
    /// A CD image, or an image in the format of an emulator, by the name of the format.
    case diskImage(String)
    /// Anything else: a flat image, possibly.
    case binary

    private static let examined = 4096

    /// - Returns: nil if the file cannot be read.
    init?(named path: String) {
        guard let bytes = try? InputFile.read(FilePath(argument: path), most: 1 << 16), !bytes.isEmpty else {
            return nil
        }
        self.init(path, bytes)
    }

    init(_ path: String, _ bytes: [UInt8]) {
        let start = bytes.prefix(Self.examined)
        guard Self.isText(start) else {
            self = Self.binaryKind(bytes)
            return
        }
        let text = String(decoding: start, as: UTF8.self)
        let lines = text.split(whereSeparator: \.isNewline).map { $0.drop(while: \.isWhitespace) }
            .filter { !$0.isEmpty && !$0.hasPrefix("#") }
        let directives = [".globl", ".global", ".text", ".section", ".code16", ".code32", ".code64", ".org"]
        if text.contains("\"schema\":\"minivmm.trace/") {
            self = .trace
        } else if path.hasSuffix(".litmus") || lines.first?.hasPrefix("test ") == true {
            self = .litmusTest
        } else if [".S", ".s", ".asm"].contains(where: path.hasSuffix)
            || lines.contains(where: { line in directives.contains { line.hasPrefix($0) } })
        {
            self = .assembly
        } else {
            self = .text
        }
    }

    private static func binaryKind(_ bytes: [UInt8]) -> FileKind {
        func has(_ text: String, at offset: Int) -> Bool {
            bytes.dropFirst(offset).starts(with: Array(text.utf8))
        }
        let compressions: [(name: String, magic: [UInt8])] = [
            ("gzip", [0x1f, 0x8b]), ("xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]),
            ("zstd", [0x28, 0xb5, 0x2f, 0xfd]), ("bzip2", Array("BZh".utf8)),
        ]
        if bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) { return .executable }
        if has("HdrS", at: 0x202) { return .linuxKernel }
        if has("MZ", at: 0), bytes.count >= 0x40 {
            let place = bytes[0x3c..<0x40].reversed().reduce(0) { $0 << 8 | Int($1) }
            if has("PE\0\0", at: place) { return .portableExecutable }
        }
        if let method = compressions.first(where: { bytes.starts(with: $0.magic) }) {
            return .compressed(method.name)
        }
        if has("!<arch>\n", at: 0) { return .archive }
        if bytes.starts(with: [0x51, 0x46, 0x49, 0xfb]) { return .diskImage("qcow2") }
        if has("CD001", at: 0x8001) { return .diskImage("ISO 9660") }
        return .binary
    }

    /// UTF-8 with at least one line end and no control characters; a multi-byte character may be cut off at the end.
    private static func isText(_ bytes: ArraySlice<UInt8>) -> Bool {
        guard bytes.contains(0x0a),
            bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7f || (0x09...0x0d).contains($0) })
        else { return false }
        return (0...3).contains { String(validating: bytes.dropLast($0), as: UTF8.self) != nil }
    }

    /// With its article.
    var name: String {
        switch self {
        case .litmusTest: "a litmus test"
        case .trace: "a trace"
        case .assembly: "assembly source"
        case .text: "a text file"
        case .executable: "an executable"
        case .linuxKernel: "a Linux kernel with BIOS setup code (bzImage)"
        case .portableExecutable: "a PE program, for UEFI or Windows"
        case .compressed(let method): "a file compressed with \(method)"
        case .archive: "an archive of object files"
        case .diskImage(let format): "a disk image (\(format))"
        case .binary: "a binary file"
        }
    }

    /// The command that the user probably meant, as a sentence.
    func advice(_ path: String) -> String {
        let program = Arguments.program
        return switch self {
        case .litmusTest: "To run it: \(program) litmus \(path)"
        case .trace: "To draw it: \(program) report \(path) --html out.html"
        case .assembly:
            "Assemble it first: clang -nostdlib -static -fuse-ld=lld -Wl,-N,--image-base=0x100000,-Ttext=0x100000 "
                + "-o guest.elf \(path)"
        case .text:
            "A guest is an ELF executable or a flat image; `\(program) list` names the built-in ones."
        case .linuxKernel:
            "The setup code needs a BIOS. The ELF file inside (vmlinux, by the kernel's scripts/extract-vmlinux) has a PVH entry point if "
                + "the kernel has CONFIG_PVH, but Linux also needs interrupts, which this machine does not have."
        case .portableExecutable:
            "It needs UEFI, which this machine does not have. Link the guest as a static ELF executable."
        case .compressed(let method):
            "Decompress it first: \(method == "gzip" ? "gunzip" : method == "bzip2" ? "bunzip2" : "un\(method)") \(path)"
        case .archive: "Link its objects first: ld -N -Ttext=0x100000 -o guest.elf --whole-archive \(path)"
        case .diskImage:
            "The machine has no disk. Take the kernel out of the image; GRUB loads Multiboot kernels, which \(program) run boots."
        case .executable, .binary: "To boot it: \(program) run \(path)"
        }
    }

    /// Whether `run` can boot it.
    var isBootable: Bool {
        switch self {
        case .executable, .binary: true
        case .litmusTest, .trace, .assembly, .text, .linuxKernel, .portableExecutable, .compressed, .archive,
            .diskImage:
            false
        }
    }
}
