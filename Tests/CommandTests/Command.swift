// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// Runs the built `minivmm` in a separate process.
enum Command {
    struct Result {
        /// The exit status, or 128 + the signal that ended it.
        let status: Int32
        let output: String
        let diagnostics: String

        /// Standard output as one JSON object.
        var json: [String: Any]? {
            (try? JSONSerialization.jsonObject(with: Data(output.utf8))) as? [String: Any]
        }
    }

    static let executable = built("minivmm")

    /// An executable of this package, found next to the test bundle.
    static func built(_ name: String) -> URL? {
        let bundles = Bundle.allBundles.map(\.bundleURL) + [Bundle.main.bundleURL]
        let started = CommandLine.arguments.map { URL(fileURLWithPath: $0).deletingLastPathComponent() }
        let places = (bundles + bundles.map { $0.deletingLastPathComponent() } + started)
        return places.map { $0.appendingPathComponent(name) }
            .first { FileManager.default.isExecutableFile(atPath: $0.path) }
    }

    static var isBuilt: Bool { executable != nil }
    static let missing: Comment = "needs the minivmm executable next to the test bundle"

    /// Whether the backend that `auto` picks on this machine runs guests.
    static let runsGuests: Bool = {
        guard isBuilt, let result = try? run(["run", "hello", "--quiet"]) else { return false }
        return result.status == 0
    }()
    static let noGuests: Comment = "needs a backend that runs guests"

    /// Waits until the condition is true, for at most 300 s.
    static func wait(until condition: () -> Bool) {
        let end = Date(timeIntervalSinceNow: 300)
        while !condition(), Date() < end { usleep(10_000) }
    }

    /// Whether /dev/kvm can be opened and has no per-VM attributes.
    static let lacksAttributes: Bool = {
        guard isBuilt, FileManager.default.isWritableFile(atPath: "/dev/kvm") else { return false }
        guard let result = try? run(["run", "hello", "--backend", "per-vm-attributes", "--quiet"]) else {
            return false
        }
        return result.status == 4
    }()

    /// Runs the command to its end. After `seconds` it is killed, and the test fails.
    ///
    /// - Parameters:
    ///   - tool: the executable; minivmm by default.
    ///   - input: standard input, empty by default.
    static func run(
        _ arguments: [String], tool: URL? = executable, input: String? = nil,
        in place: URL? = nil, environment: [String: String] = [:], seconds: Double = 3600,
        afterStart: ((Process) -> Void)? = nil,
        watching: ((Process, _ diagnostics: () -> String) -> Void)? = nil
    ) throws -> Result {
        let process = Process()
        let executable: URL = try #require(tool, missing)
        process.executableURL = executable
        process.arguments = arguments
        if let place { process.currentDirectoryURL = place }
        // The tester's environment is not passed on, except for options of sanitizers.
        let own = ProcessInfo.processInfo.environment.filter { $0.key.hasSuffix("SAN_OPTIONS") }
        process.environment = ["PATH": "/usr/bin:/bin", "LANG": "C"].merging(own) { $1 }.merging(environment)
        { $1 }
        // Files instead of pipes, which would have to be read while the command runs.
        let directory = try Scratch()
        process.standardInput = FileHandle.nullDevice
        var handles: [FileHandle] = []
        if let input {
            let file = try directory.file("in", Array(input.utf8))
            handles.append(try FileHandle(forReadingFrom: URL(fileURLWithPath: file)))
            process.standardInput = handles[0]
        }
        let output = directory.path("out")
        let diagnostics = directory.path("err")
        for path in [output, diagnostics] { _ = FileManager.default.createFile(atPath: path, contents: nil) }
        for (path, key) in [(output, \Process.standardOutput), (diagnostics, \Process.standardError)] {
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            process[keyPath: key] = handle
            handles.append(handle)
        }
        let ended = DispatchSemaphore(value: 0)
        process.terminationHandler = { _ in ended.signal() }
        try process.run()
        // Foundation keeps them open as long as the Process lives, and crashes with more than 1,300 descriptors.
        for handle in handles { try? handle.close() }
        afterStart?(process)
        watching?(process) { (try? String(contentsOfFile: diagnostics, encoding: .utf8)) ?? "" }
        if ended.wait(timeout: .now() + seconds) == .timedOut {
            kill(process.processIdentifier, SIGKILL)
            ended.wait()
            Issue.record("minivmm \(arguments.joined(separator: " ")) did not end within \(seconds) s")
        }
        return Result(
            status: process.terminationReason == .uncaughtSignal
                ? 128 + process.terminationStatus : process.terminationStatus,
            output: try String(contentsOfFile: output, encoding: .utf8),
            diagnostics: try String(contentsOfFile: diagnostics, encoding: .utf8))
    }
}

/// A temporary directory, deleted when its owner releases it.
final class Scratch {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("minivmm-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(_ name: String) -> String { url.appendingPathComponent(name).path }

    func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        try Data(bytes).write(to: url.appendingPathComponent(name))
        return path(name)
    }
}
