// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Files that the command reads.
enum InputFile {
    /// All of a file, or its first bytes. A pipe may keep it waiting, and the wait can be cancelled.
    ///
    /// - Parameter most: bytes after which reading ends; up to a chunk more is returned.
    /// - Returns: nil if it was cancelled.
    static func read(
        _ path: FilePath, most: UInt64, _ cancellation: Cancellation = Cancellation()
    ) throws(Errno) -> [UInt8]? {
        do {
            // Without a writer the opening of a pipe would not come back.
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
