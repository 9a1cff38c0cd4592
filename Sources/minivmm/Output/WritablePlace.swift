// SPDX-License-Identifier: MIT
import Explain
import Glibc
import SystemPackage

/// Checks before a long run that its results can be written.
enum WritablePlace {
    /// Opens a file for writing and leaves it as it was. A file that does not exist is created and removed again.
    ///
    /// - Parameters:
    ///   - path: `-` is standard output, which is not checked.
    ///   - what: what is to be written, with its article: `the results`.
    /// - Throws: status 125 and a message on standard error, if the file cannot be written.
    static func check(_ path: String?, for what: String) throws {
        guard let path, path != "-" else { return }
        let place = FilePath(argument: path)
        do {
            do {
                // Opening a pipe must not wait for a reader.
                try FileDescriptor.open(place, .writeOnly, options: [.closeOnExec, .nonBlocking]).close()
            } catch Errno.noSuchFileOrDirectory {
                try FileDescriptor.open(
                    place, .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec],
                    permissions: [.ownerReadWrite]
                ).close()
                _ = unsafe place.withPlatformString { unsafe unlink($0) }
            }
        } catch Errno.noSuchAddressOrDevice {
            return
        } catch {
            throw stop(
                "\(path): \(what) cannot be written: \(error)", Status.monitorFailed, .file(what, error))
        }
    }
}

extension PictureOptions {
    /// Checks that every picture can be written.
    ///
    /// - Throws: status 125 and a message on standard error, if one cannot.
    func checkPlaces() throws {
        for path in [html, svg, chrome] { try WritablePlace.check(path, for: "the picture") }
    }
}
