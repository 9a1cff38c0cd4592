// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// The entries of a directory.
enum DirectoryListing {
    struct Entry {
        let name: String
        let isDirectory: Bool
    }

    /// Sorted by name, without `.` and `..`.
    ///
    /// - Throws: `ENOTDIR` for a file; else the errors of `opendir(3)`.
    static func read(_ path: String) throws(Errno) -> [Entry] {
        let opened = unsafe FilePath(argument: path).withPlatformString { unsafe opendir($0) }
        guard let directory = unsafe opened else { throw Errno(rawValue: errno) }
        defer { unsafe closedir(directory) }
        var entries: [Entry] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) {
                    unsafe Arguments.string($0)
                }
            }
            guard name != ".", name != ".." else { continue }
            entries.append(Entry(name: name, isDirectory: unsafe entry.pointee.d_type == UInt8(DT_DIR)))
        }
        return entries.sorted { $0.name < $1.name }
    }

    /// The end of an error message for a path that does not exist: the most similar name in its directory, as
    /// `; did you mean litmus/all-or-nothing.litmus?`. Empty if none is similar.
    static func suggestion(for path: String) -> String {
        let name = ByteText.lastComponent(path)
        let directory = String(path.dropLast(name.count))
        let names = ((try? read(directory.isEmpty ? "." : directory)) ?? []).map(\.name)
        return NearWords.nearest(to: name, among: names, limit: 1).first.map {
            "; did you mean \(ByteText.join(directory, $0))?"
        } ?? ""
    }
}
