// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Files that the command reads.
enum InputFile {
    /// Reads a file, or its first bytes. Waiting for a pipe can be cancelled.
    ///
    /// - Parameter most: the number of bytes after which reading stops; up to 64 KiB more are returned.
    /// - Returns: nil if cancelled.
    static func read(
        _ path: FilePath, most: UInt64, _ cancellation: Cancellation = Cancellation()
    ) throws(Errno) -> [UInt8]? {
        do {
            // A blocking open of a pipe without a writer would not return.
            let file = try FileDescriptor.open(path, .readOnly, options: [.closeOnExec, .nonBlocking])
            defer { try? file.close() }
            var bytes: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 1 << 16)
            while UInt64(bytes.count) <= most {
                while !isReadable(file, within: .milliseconds(20)) {
                    if cancellation.isCancelled { return nil }
                }
                if cancellation.isCancelled { return nil }
                let count: Int
                do {
                    count = try unsafe chunk.withUnsafeMutableBytes { buffer in
                        try unsafe file.read(into: buffer)
                    }
                } catch Errno.resourceTemporarilyUnavailable {
                    continue
                }
                if count == 0 { break }
                bytes.append(contentsOf: chunk[..<count])
            }
            return bytes
        } catch {
            throw (error as? Errno) ?? .ioError
        }
    }
}
