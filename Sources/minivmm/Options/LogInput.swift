// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Standard input, line by line, with bounded memory: of a very long line only the two ends are kept.
struct LogInput {
    private static let longest = 64 << 10
    private static let kept = 16 << 10

    private var chunk: [UInt8] = []
    private var position = 0
    private var hasEnded = false
    /// The errno of a read that failed; nil at the end of the input.
    private(set) var failure: Errno?

    /// - Returns: the line without its end; nil at the end of the input, or if reading failed.
    mutating func next() -> String? {
        var line: [UInt8] = []
        while true {
            if let end = chunk[position...].firstIndex(of: 0x0a) {
                line += chunk[position..<end]
                position = end + 1
                return String(decoding: line, as: UTF8.self)
            }
            line += chunk[position...]
            if line.count > Self.longest {
                line = Array(line.prefix(Self.kept)) + [0x20] + Array(line.suffix(Self.kept))
            }
            position = chunk.count
            guard read() else { return line.isEmpty ? nil : String(decoding: line, as: UTF8.self) }
        }
    }

    /// - Returns: false at the end of the input, or if reading failed.
    private mutating func read() -> Bool {
        guard !hasEnded else { return false }
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        do {
            let count = try unsafe buffer.withUnsafeMutableBytes { bytes in
                try unsafe FileDescriptor.standardInput.read(into: bytes)
            }
            chunk = Array(buffer[..<count])
        } catch {
            failure = (error as? Errno) ?? .ioError
            chunk = []
        }
        position = 0
        hasEnded = chunk.isEmpty
        return !hasEnded
    }
}
