// SPDX-License-Identifier: MIT
import SystemPackage

/// The kind of a file, by its name and its first bytes, for the error message of a command that was given another kind.
enum FileKind {
    case litmusTest
    case trace
    case assembly
    case text
    case executable
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
            self = start.starts(with: [0x7f, 0x45, 0x4c, 0x46]) ? .executable : .binary
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
            "A guest is an ELF64 executable or a flat image; `\(program) list` names the built-in ones."
        case .executable, .binary: "To boot it: \(program) run \(path)"
        }
    }

    /// Whether `run` can boot it.
    var isBootable: Bool {
        switch self {
        case .executable, .binary: true
        case .litmusTest, .trace, .assembly, .text: false
        }
    }
}
