// SPDX-License-Identifier: MIT
import Foundation
import Litmus
import MiniVMM
import Testing

@testable import Export

/// Compiles programs, and runs them on this machine's KVM. `make programs` compiles all of them.
@Suite(
    "Compiled programs", .enabled(if: Compiler.all.isEmpty == false, "needs a C compiler"),
    .timeLimit(.minutes(120)))
struct CompiledTests {
    /// One test in so many is compiled.
    private static let step = 20
    static let sample =
        Library.names.enumerated().filter { $0.offset % step == 0 }.map(\.element) + [
            "converting-keeps-the-byte"
        ]

    @Test(arguments: sample, Compiler.all) func aProgramHasNoWarning(_ name: String, _ compiler: String)
        throws
    {
        guard let text = try? Library.program(name) else { return }
        let scratch = try Directory()
        let (status, output) = try scratch.compile(text, name, compiler)
        #expect(status == 0, "\(output)")
    }

    /// The program of a test ends with the status of `minivmm litmus`. Both are processes of their own: in this one, another
    /// test may open a file with the number of a descriptor that a race has just closed.
    @Test(
        .enabled(if: (try? LinuxKVM()) != nil, "needs /dev/kvm"),
        arguments: Library.names.filter { (try? Library.source($0).test.vm) == .default })
    func theVerdictIsTheRunners(_ name: String) throws {
        let source = try Library.source(name)
        let scratch = try Directory()
        let compiler = try #require(Compiler.all.first)
        let (status, output) = try scratch.compile(CProgram(source, name: name).text, name, compiler)
        try #require(status == 0, "\(output)")
        let (seen, text) = try scratch.run(scratch.path(name), [])
        let command = try #require(Self.command, "needs the minivmm executable next to the test bundle")
        let test = Library.directory.appendingPathComponent(name + ".litmus").path
        let (expected, report) = try scratch.run(
            command.path, ["litmus", "--backend", "linux", "--runs", "20", test])
        #expect([0, 1, 4].contains(expected), "\(report)")
        #expect(seen == expected, "\(text)\(report)")
    }

    /// `minivmm`, next to the test bundle.
    private static let command: URL? = {
        let bundles = Bundle.allBundles.map(\.bundleURL) + [Bundle.main.bundleURL]
        let started = CommandLine.arguments.map { URL(fileURLWithPath: $0).deletingLastPathComponent() }
        return (bundles + bundles.map { $0.deletingLastPathComponent() } + started)
            .map { $0.appendingPathComponent("minivmm") }
            .first { FileManager.default.isExecutableFile(atPath: $0.path) }
    }()

    /// The bytes of the guest's accesses are those of the instructions in the comments above them.
    @Test func theGuestsBytesAreItsInstructions() throws {
        let lines = CRuntime.program.pieces.flatMap { $0.text.split(separator: "\n") }
        #expect(lines.contains("enum { PORT_BYTE = 0xf4, PORT_DONE, PORT_CHECKED };"))
        let array = "\tstatic const unsigned char code[] = { "
        var accesses = 0
        for (comment, line) in zip(lines, lines.dropFirst()) where line.hasPrefix(array) {
            accesses += 1
            let instructions = comment.trimmingCharacters(in: CharacterSet(charactersIn: "\t/* "))
            let bytes = line.dropFirst(array.count).prefix { $0 != "}" }
            let text = """
                #define PORT_BYTE 0xf4
                #define PORT_DONE 0xf5
                #define PORT_CHECKED 0xf6
                .code32
                \(instructions)
                .byte \(bytes)

                """
            let scratch = try Directory()
            try text.write(toFile: scratch.path("x.S"), atomically: true, encoding: .utf8)
            let (status, output) = try scratch.run(
                "/usr/bin/env",
                [
                    try #require(Compiler.all.first), "-nostdlib", "-static", "-o", scratch.path("x"),
                    "-Wl,--oformat=binary,--build-id=none,-Ttext=0,-e,0", scratch.path("x.S"),
                ])
            try #require(status == 0, "\(output)")
            let image = try Data(contentsOf: URL(fileURLWithPath: scratch.path("x")))
            #expect(image.count == 8 && image.prefix(4) == image.suffix(4), "\(instructions)")
        }
        #expect(accesses == 4)
    }

    @Test(.enabled(if: (try? LinuxKVM()) != nil, "needs /dev/kvm"))
    func aWrongExpectationFailsAndIsNamed() throws {
        let source = try Source(
            parsing: "test \"x\"\nvm default\nmemory 1 pages shared\nhost write 0 0x41\nhost read 0 => 0x42\n"
        )
        let scratch = try Directory()
        let compiler = try #require(Compiler.all.first)
        let (status, output) = try scratch.compile(CProgram(source, name: "x").text, "x", compiler)
        try #require(status == 0, "\(output)")
        let (seen, text) = try scratch.run(scratch.path("x"), [])
        guard seen != 4 else { return }
        #expect(seen == 1)
        #expect(text.contains("read_byte(ram_view, 0)\n# seen 0x41, expected 0x42\nnot ok 1 - x\n"))
    }
}

/// The C compilers of this machine.
enum Compiler {
    static let all = ["gcc", "clang"].filter { name in
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").contains {
            FileManager.default.isExecutableFile(atPath: "\($0)/\(name)")
        }
    }
}

/// A directory that is deleted with this object.
private final class Directory {
    private let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("export-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(_ name: String) -> String { url.appendingPathComponent(name).path }

    func compile(_ text: String, _ name: String, _ compiler: String) throws -> (status: Int32, output: String)
    {
        try text.write(toFile: path(name + ".c"), atomically: false, encoding: .utf8)
        return try run(
            "/usr/bin/env",
            [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", path(name), path(name + ".c")])
    }

    func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
        let output = path("output-\(UUID().uuidString)")
        _ = FileManager.default.createFile(atPath: output, contents: nil)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: output))
        (process.standardOutput, process.standardError) = (file, file)
        try process.run()
        process.waitUntilExit()
        return (process.terminationStatus, try String(contentsOfFile: output, encoding: .utf8))
    }
}
