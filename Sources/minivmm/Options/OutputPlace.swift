// SPDX-License-Identifier: MIT
import Explain
import Glibc
import SystemPackage

/// Checks before any work is done that an output file can be written.
enum OutputPlace {
    /// Creates nothing. A full disk, for example, is still found only when the file is written.
    ///
    /// - Parameters:
    ///   - path: `-` is standard output.
    ///   - what: the content with its article, such as `the picture`.
    /// - Throws: status 125 after a message on standard error.
    static func check(_ path: String, what: String) throws {
        guard path != "-", let error = error(path) else { return }
        throw stop("\(path): \(what) cannot be written: \(error)", Status.monitorFailed, .file(what, error))
    }

    private static func error(_ path: String) -> Errno? {
        var status = stat()
        let place = FilePath(argument: path)
        let exists = unsafe place.withPlatformString { unsafe stat($0, &status) } == 0
        if exists, status.st_mode & S_IFMT == S_IFDIR { return .isDirectory }
        if !exists, errno != ENOENT { return Errno(rawValue: errno) }
        // A file that does not exist yet is created in its directory.
        let directory = place.removingLastComponent()
        let checked = exists ? place : directory.isEmpty ? FilePath(".") : directory
        let mode = exists ? W_OK : W_OK | X_OK
        return unsafe checked.withPlatformString { unsafe access($0, mode) } == 0
            ? nil : Errno(rawValue: errno)
    }
}

extension PictureOptions {
    /// - Throws: status 125 after a message on standard error, if a picture cannot be written.
    func checkPlaces() throws {
        for path in [html, svg, chrome].compactMap({ $0 }) {
            try OutputPlace.check(path, what: "the picture")
        }
    }
}
