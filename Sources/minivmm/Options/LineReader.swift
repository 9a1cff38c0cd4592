// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Reads standard input line by line. Unlike `readLine()`, waiting can be interrupted.
struct LineReader {
    private static let input = FileDescriptor.standardInput
    private var bytes: [UInt8] = []
    private var hasEnded = false

    /// - Parameter wait: returns true when input is readable, or false to give up.
    /// - Returns: the line without its line end; nil at the end of the input or after giving up.
    mutating func next(_ wait: () -> Bool) -> String? {
        while true {
            if let end = bytes.firstIndex(of: 0x0a) {
                defer { bytes.removeSubrange(...end) }
                return String(decoding: bytes[..<end], as: UTF8.self)
            }
            if hasEnded {
                defer { bytes = [] }
                return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
            }
            guard wait() else { return nil }
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = try? unsafe chunk.withUnsafeMutableBytes { buffer in
                unsafe try Self.input.read(into: buffer)
            }
            guard let count, count > 0 else {
                hasEnded = true
                continue
            }
            bytes += chunk[..<count]
        }
    }
}
