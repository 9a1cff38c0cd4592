// SPDX-License-Identifier: MIT
import Explain
import Glibc
import SystemPackage

/// Text files that the command writes.
enum TextFile {
    /// - Parameters:
    ///   - what: the content with its article, such as `the results`.
    ///   - isNew: whether to keep an existing file.
    /// - Returns: false if `isNew` and the file exists.
    /// - Throws: status 125 after a message on standard error, if the file cannot be written.
    @discardableResult
    static func write(_ text: String, to path: String, what: String, isNew: Bool = false) throws -> Bool {
        do {
            var options: FileDescriptor.OpenOptions = [.create, .truncate, .closeOnExec]
            if isNew { options = [.create, .exclusiveCreate, .closeOnExec] }
            let file = try FileDescriptor.open(
                FilePath(argument: path), .writeOnly, options: options,
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
            try file.closeAfter { _ = try file.writeAll(text.utf8) }
            return true
        } catch {
            if isNew, error as? Errno == .fileExists { return false }
            throw stop(
                "\(path): \(what) cannot be written: \(error)", Status.monitorFailed, .file(what, error))
        }
    }

    /// Creates a directory.
    ///
    /// - Returns: false if something of that name exists.
    /// - Throws: status 125 after a message on standard error.
    static func makeNewDirectory(_ path: String, for what: String) throws -> Bool {
        let place = FilePath(argument: path)
        guard unsafe place.withPlatformString({ unsafe mkdir($0, 0o755) }) != 0 else { return true }
        let error = Errno(rawValue: errno)
        guard error != .fileExists else { return false }
        throw stop(
            "\(path): the directory for \(what) cannot be created: \(error)", Status.monitorFailed,
            .file(what, error))
    }

    /// Creates a directory unless it exists.
    ///
    /// - Throws: status 125 after a message on standard error.
    static func makeDirectory(_ path: String, for what: String) throws {
        let place = FilePath(argument: path)
        guard unsafe place.withPlatformString({ unsafe mkdir($0, 0o755) }) != 0 else { return }
        let number = errno
        var status = stat()
        if number == EEXIST, unsafe place.withPlatformString({ unsafe stat($0, &status) }) == 0,
            status.st_mode & S_IFMT == S_IFDIR
        {
            return
        }
        let error = Errno(rawValue: number == EEXIST ? ENOTDIR : number)
        throw stop(
            "\(path): the directory for \(what) cannot be created: \(error)", Status.monitorFailed,
            .file(what, error))
    }
}
