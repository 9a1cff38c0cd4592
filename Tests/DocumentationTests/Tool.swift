import Foundation
import Testing

/// Programs that examples use.
enum Tool {
    static let executable: URL? = {
        let bundles = Bundle.allBundles.map(\.bundleURL) + [Bundle.main.bundleURL]
        let started = CommandLine.arguments.map { URL(fileURLWithPath: $0).deletingLastPathComponent() }
        return (bundles + bundles.map { $0.deletingLastPathComponent() } + started)
            .map { $0.appendingPathComponent("minivmm") }
            .first { FileManager.default.isExecutableFile(atPath: $0.path) }
    }()

    static let runsGuests: Bool = (try? minivmm(["run", "hello", "--kernel", "soft", "--quiet"]).status) == 0

    static func minivmm(_ arguments: [String], in directory: URL? = nil) throws -> (
        status: Int32, output: String
    ) {
        try run(try #require(executable).path, arguments, in: directory)
    }

    /// Runs a program to its end; what it prints, on both outputs.
    static func run(
        _ program: String, _ arguments: [String], in directory: URL? = nil
    ) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        if let directory { process.currentDirectoryURL = directory }
        process.standardInput = FileHandle.nullDevice
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}
