// SPDX-License-Identifier: MIT
import Litmus
import SystemPackage

/// Litmus tests in the file system.
enum LitmusFiles {
    static let ending = ".litmus"

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// The tests of a directory in alphabetical order, or the file itself.
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

    /// What a file is that is not a litmus test, and the command for it; nil if it may be meant as a test.
    static func otherKind(_ path: String, _ bytes: [UInt8]) -> String? {
        let start = bytes.prefix(1 << 16)
        func isNot(_ kind: String, _ advice: String) -> String {
            "\(path) is not a litmus test (\(kind)). \(advice)"
        }
        if start.contains(0) || String(validating: start, as: UTF8.self) == nil && start.count == bytes.count
        {
            return isNot("binary file", "To boot it: minivmm run \(path)")
        }
        let lines = start.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
            .map { $0.drop(while: \.isWhitespace) }
        let first = lines.first { !$0.isEmpty && !$0.hasPrefix("#") }
        guard first?.hasPrefix("test") != true else { return nil }
        if let first, first.hasPrefix("{") {
            let text = first.prefix(400).filter { !$0.isWhitespace }
            if text.contains("\"schema\":\"minivmm.trace/1\"") {
                return isNot("trace of a run", "To draw it: minivmm report \(path)")
            }
            if text.contains("\"schema\":\"minivmm.litmus/1\"") {
                return isNot("results in JSON", "To print them as a table: minivmm litmus --table \(path)")
            }
            return isNot("JSON", "A test begins with: test \"what it shows\"")
        }
        let isAssembly =
            [".S", ".s", ".asm"].contains { path.hasSuffix($0) }
            || lines.contains { line in
                [".globl ", ".global ", ".section ", ".text", ".code64", "_start:"].contains {
                    line.hasPrefix($0)
                }
            }
        if isAssembly {
            return isNot(
                "assembly source",
                "To boot it, assemble and link it to an ELF file, then: minivmm run FILE.elf")
        }
        return nil
    }
}
