import Explain
import Glibc
import SystemPackage

/// Files that the command writes.
enum TextFile {
    /// - Parameter what: what it is, with its article: `the results`.
    /// - Throws: status 125 and a message on standard error, where it cannot be written.
    static func write(_ text: String, to path: String, what: String) throws {
        do {
            let file = try FileDescriptor.open(
                FilePath(path), .writeOnly, options: [.create, .truncate, .closeOnExec],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
            try file.closeAfter { _ = try file.writeAll(text.utf8) }
        } catch {
            throw stop(
                "\(path): \(what) cannot be written: \(error)", Status.monitorFailed, .file(what, error))
        }
    }

    /// A directory; one that is there already will do.
    ///
    /// - Throws: status 125 and a message on standard error, where there can be none.
    static func makeDirectory(_ path: String, for what: String) throws {
        guard unsafe mkdir(path, 0o755) != 0 else { return }
        let number = errno
        var status = stat()
        if number == EEXIST, unsafe stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { return }
        let error = Errno(rawValue: number == EEXIST ? ENOTDIR : number)
        throw stop(
            "\(path): a directory for \(what) cannot be made: \(error)", Status.monitorFailed,
            .file(what, error))
    }
}
