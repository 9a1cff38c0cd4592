// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// A reversible mapping of arbitrary bytes to a string: a path is bytes, while a Swift string is Unicode.
///
/// A byte that is not part of valid UTF-8 becomes a scalar in a private use area. So does each byte of those scalars
/// themselves. All other text is unchanged.
enum ByteText {
    private static let base: UInt32 = 0x10_ff00
    private static let stand: ClosedRange<UInt32> = 0x10_ff80...0x10_ffff

    static func string(_ bytes: some Collection<UInt8>) -> String {
        let bytes = Array(bytes)
        if let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0xf4) { return text }
        var text = ""
        var position = 0
        while position < bytes.count {
            let length = [1, 2, 3, 4].first { length in
                position + length <= bytes.count
                    && String(validating: bytes[position..<position + length], as: UTF8.self) != nil
            }
            if let length,
                let piece = String(validating: bytes[position..<position + length], as: UTF8.self),
                let scalar = piece.unicodeScalars.first, !stand.contains(scalar.value)
            {
                text.unicodeScalars.append(scalar)
                position += length
            } else {
                if let scalar = Unicode.Scalar(base + UInt32(bytes[position])) {
                    text.unicodeScalars.append(scalar)
                }
                position += 1
            }
        }
        return text
    }

    /// The byte that a scalar stands for; nil for an ordinary scalar.
    static func byte(_ scalar: Unicode.Scalar) -> UInt8? {
        stand.contains(scalar.value) ? UInt8(truncatingIfNeeded: scalar.value) : nil
    }

    static func bytes(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        for scalar in text.unicodeScalars {
            if let byte = byte(scalar) { bytes.append(byte) } else { bytes += Array(String(scalar).utf8) }
        }
        return bytes
    }

    /// The text for printing: one line, control characters escaped, `\xff` for a byte that is not UTF-8.
    static func visible(_ text: String) -> String {
        var visible = ""
        for scalar in text.unicodeScalars {
            if let byte = byte(scalar) {
                visible += "\\x" + String(byte, radix: 16)
            } else if VisibleText.isHidden(scalar) || Terminal.isMarker(scalar) {
                visible += VisibleText.escape(scalar)
            } else {
                visible.unicodeScalars.append(scalar)
            }
        }
        return visible
    }

    /// The path of a file in a directory.
    static func join(_ directory: String, _ name: String) -> String {
        directory.isEmpty || directory.hasSuffix("/") ? directory + name : directory + "/" + name
    }

    /// The path without its last part, and without the slashes before that; empty if there is no directory in it.
    static func directory(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "" }
        let end = path[..<slash].lastIndex { $0 != "/" }
        return end.map { String(path[...$0]) } ?? "/"
    }

    /// The last part of a path.
    static func lastComponent(_ path: String) -> String {
        path.split(separator: "/").last.map(String.init) ?? path
    }
}

extension FilePath {
    /// The path with exactly the bytes that were typed.
    init(argument: String) {
        let bytes = ByteText.bytes(argument).map { CChar(bitPattern: $0) } + [0]
        self = unsafe bytes.withUnsafeBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return FilePath() }
            return unsafe FilePath(platformString: start)
        }
    }
}

/// The command line.
enum Arguments {
    /// The program as it was typed if that was a path, so that commands which are printed can be typed again; else
    /// `minivmm`.
    static var program: String {
        guard CommandLine.argc > 0, let argument = unsafe CommandLine.unsafeArgv[0] else { return "minivmm" }
        let typed = unsafe ByteText.visible(string(argument))
        return typed.contains("/") && typed.utf8.count <= 40 ? typed : "minivmm"
    }

    /// The arguments after the program. `CommandLine.arguments` replaces bytes that are not UTF-8.
    static var all: [String] {
        var arguments: [String] = []
        for index in 1..<max(1, Int(CommandLine.argc)) {
            guard let argument = unsafe CommandLine.unsafeArgv[index] else { break }
            unsafe arguments.append(string(argument))
        }
        return arguments
    }

    /// From a C string.
    static func string(_ text: UnsafePointer<CChar>) -> String {
        let bytes = unsafe UnsafeBufferPointer(start: text, count: strlen(text))
        return unsafe ByteText.string(bytes.map { UInt8(bitPattern: $0) })
    }
}
