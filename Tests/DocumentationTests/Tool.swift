// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// Programs used in the examples.
enum Tool {
    static let executable: URL? = {
        let bundles = Bundle.allBundles.map(\.bundleURL) + [Bundle.main.bundleURL]
        let started = CommandLine.arguments.map { URL(fileURLWithPath: $0).deletingLastPathComponent() }
        return (bundles + bundles.map { $0.deletingLastPathComponent() } + started)
            .map { $0.appendingPathComponent("minivmm") }
            .first { FileManager.default.isExecutableFile(atPath: $0.path) }
    }()

    static let runsGuests: Bool =
        (try? minivmm(["run", "hello", "--backend", "soft", "--quiet"]).status) == 0

    /// The documented command for assembling.
    static let assembling =
        "clang -nostdlib -static -fuse-ld=lld -Wl,-N,--image-base=0x100000,-Ttext=0x100000 -o my.elf my.S"

    /// A temporary directory with the litmus tests in it; its owner removes it.
    final class Directory {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent(
            "minivmm-\(UUID().uuidString)")

        init() throws {
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
            for name in ["docs", "litmus"] {
                try FileManager.default.createSymbolicLink(
                    at: url.appendingPathComponent(name),
                    withDestinationURL: Document.root.appendingPathComponent(name))
            }
        }

        deinit { try? FileManager.default.removeItem(at: url) }

        func write(_ name: String, _ text: String) throws {
            try text.write(to: url.appendingPathComponent(name), atomically: true, encoding: .utf8)
        }

        func read(_ name: String) throws -> String {
            try String(contentsOf: url.appendingPathComponent(name), encoding: .utf8)
        }
    }

    static func minivmm(_ arguments: [String], in directory: Directory? = nil) throws -> (
        status: Int32, output: String
    ) {
        try run(try #require(executable).path, arguments, in: directory?.url)
    }

    static func shell(_ line: String, in directory: Directory) throws -> (status: Int32, output: String) {
        try run("/bin/bash", ["-c", line], in: directory.url)
    }

    /// Runs a program to its end and returns both outputs.
    static func run(
        _ program: String, _ arguments: [String], in directory: URL? = nil
    ) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        if let directory { process.currentDirectoryURL = directory }
        process.standardInput = FileHandle.nullDevice
        // Box-drawing characters, as in the documents.
        process.environment = ProcessInfo.processInfo.environment.merging(["LC_ALL": "C.UTF-8"]) { $1 }
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}
