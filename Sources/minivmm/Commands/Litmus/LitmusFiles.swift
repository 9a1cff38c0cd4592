// SPDX-License-Identifier: MIT
import Litmus
import SystemPackage

/// Tests in the file system.
enum LitmusFiles {
    static let ending = ".litmus"

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// The tests of a directory, or the file itself.
    static func expand(_ path: String) throws(Failure) -> [String] {
        let entries: [DirectoryListing.Entry]
        do throws(Errno) {
            entries = try DirectoryListing.read(path)
        } catch {
            if error == .notDirectory { return [path] }
            throw Failure(description: "\(path): \(error)")
        }
        let names = entries.map(\.name).filter { $0.hasSuffix(ending) && !$0.hasPrefix(".") }
        guard !names.isEmpty else {
            throw Failure(description: "\(path): no file in it has a name that ends in \(ending)")
        }
        return names.map { ByteText.join(path, $0) }
    }

    static func read(_ path: String, most: Int = Source.largestText) throws(Failure) -> [UInt8] {
        do throws(Errno) {
            // One byte more than a test may have, and the parser says so.
            return try InputFile.read(FilePath(argument: path), most: UInt64(most)) ?? []
        } catch {
            throw Failure(description: "\(path): cannot be read: \(error)")
        }
    }
}
