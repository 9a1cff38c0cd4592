import Glibc
import Synchronization
// SPDX-License-Identifier: MIT
public import SystemPackage

/// The log of the running kernel, read for reports about its own bugs.
public final class KernelLog: Sendable {
    private let file: FileDescriptor
    /// The part of the log that has been read, guarded by its lock.
    private let parser = Mutex(KernelReportParser())

    /// Opens the log behind its last record.
    ///
    /// - Parameter path: /dev/kmsg, or a file in its format.
    /// - Throws: the errno of `open(2)`: `EPERM` without the privilege to read the log.
    public init(_ path: FilePath = "/dev/kmsg") throws(Errno) {
        do {
            file = try FileDescriptor.open(path, .readOnly, options: [.nonBlocking, .closeOnExec])
        } catch {
            throw (error as? Errno) ?? .ioError
        }
        // A pipe has no position.
        _ = try? file.seek(offset: 0, from: .end)
    }

    deinit { try? file.close() }

    /// The reports since the last call, in order. One that is still being printed ends at the last line so far.
    public func newReports() -> [KernelReport] {
        parser.withLock { parser in
            var reports: [KernelReport] = []
            while let records = nextRecords() {
                for record in records.split(separator: "\n") {
                    guard let message = Self.message(of: record) else { continue }
                    if let report = parser.add(message) { reports.append(report) }
                }
            }
            if let report = parser.finish() { reports.append(report) }
            return reports
        }
    }

    /// The next bytes of the log: one record of /dev/kmsg. Nil at the end, and empty if records were lost.
    private func nextRecords() -> String? {
        let most = 8192
        var bytes = [UInt8](repeating: 0, count: most)
        let count: Int
        do {
            count = try unsafe bytes.withUnsafeMutableBytes { try unsafe file.read(into: $0) }
        } catch Errno.brokenPipe {
            return ""
        } catch {
            return nil
        }
        return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }

    /// The message of a record: `PRIORITY,NUMBER,MICROSECONDS,FLAGS;MESSAGE`. Nil for a line of a dictionary.
    private static func message(of record: Substring) -> Substring? {
        guard let semicolon = record.firstIndex(of: ";"), record.first?.isNumber == true else { return nil }
        return record[record.index(after: semicolon)...]
    }
}
