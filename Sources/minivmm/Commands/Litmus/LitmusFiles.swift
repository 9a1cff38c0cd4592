// SPDX-License-Identifier: MIT
import Litmus
import SystemPackage

/// Litmus tests in the file system.
enum LitmusFiles {
    static let ending = ".litmus"

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// The name of a test's file without its ending.
    static func shortName(_ path: String) -> String {
        let name = ByteText.visible(ByteText.lastComponent(path))
        return name.hasSuffix(ending) ? String(name.dropLast(ending.count)) : name
    }

    /// The tests of a directory in alphabetical order, or the file itself.
    static func expand(_ path: String) throws(Failure) -> [String] {
        let entries: [DirectoryListing.Entry]
        do throws(Errno) {
            entries = try DirectoryListing.read(path)
        } catch {
            if error == .notDirectory { return [path] }
            let near = error == .noSuchFileOrDirectory ? DirectoryListing.suggestion(for: path) : ""
            throw Failure(description: "\(path): \(error)\(near)")
        }
        let names = entries.map(\.name).filter { $0.hasSuffix(ending) && !$0.hasPrefix(".") }
        guard !names.isEmpty else {
            throw Failure(description: "\(path): the directory has no *\(ending) file")
        }
        return names.map { ByteText.join(path, $0) }
    }

    static func read(_ path: String, most: Int = Source.largestText) throws(Failure) -> [UInt8] {
        do throws(Errno) {
            // Up to one chunk more is read than a test may have; the parser then reports that it is too long.
            return try InputFile.read(FilePath(argument: path), most: UInt64(most)) ?? []
        } catch {
            throw Failure(description: "\(path): cannot be read: \(error)")
        }
    }

    /// The error for a file that is something other than a litmus test, with the command for it.
    ///
    /// - Returns: nil if the file may be meant as a test.
    static func otherKind(_ path: String, _ bytes: [UInt8]) -> String? {
        let start = bytes.prefix(4000)
        let lines = start.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
            .map { $0.drop(while: \.isWhitespace) }
        let first = lines.first { !$0.isEmpty && !$0.hasPrefix("#") }
        guard first?.hasPrefix("test ") != true else { return nil }
        func isNot(_ kind: String, _ advice: String) -> String {
            "\(path) is not a litmus test (\(kind)). \(advice)"
        }
        if first?.hasPrefix("{") == true, first?.contains("\"schema\":\"minivmm.litmus/1\"") == true {
            return isNot(
                "results in JSON", "To print them as a table: \(Arguments.program) litmus --table \(path)")
        }
        let kind = FileKind(path, start + [UInt8(ascii: "\n")])
        switch kind {
        case .litmusTest, .text: return nil
        case .executable, .binary, .linuxKernel, .portableExecutable, .compressed, .archive, .diskImage:
            return isNot("binary file", kind.advice(path))
        case .trace: return isNot("trace", kind.advice(path))
        case .assembly: return isNot("assembly source", kind.advice(path))
        }
    }
}
