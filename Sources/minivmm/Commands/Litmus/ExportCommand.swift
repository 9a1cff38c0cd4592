// SPDX-License-Identifier: MIT
import ArgumentParser
import Export
import Litmus
import MiniVMM

extension CProgram.Form: ExpressibleByArgument {}

/// Writes litmus tests as C programs.
struct ExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Writes litmus tests as C programs that need nothing but a C compiler.",
        discussion: """
            Each program is one file for the C library and POSIX threads. It prints KTAP, and its verdict is that of minivmm \
            litmus --backend linux: it exits with 0 if the test passed, 1 if it failed, and 4 if it was skipped because the \
            kernel lacks what the test needs.

            A program for a test with a parallel block starts its threads at random times, then preempts each by each other \
            one at places all over its steps, and prints how often it saw each outcome. Its argument is the number of \
            random runs (default: 200).

            One test is written to standard output or to the file of --output; several are written to the directory of \
            --output, one file each. An existing file is an error without --force.

            Exit status: 0 a program was written, and each test that cannot become one is named on standard error; 4 none \
            was; 64 usage, or a file is not a test; 125 a file cannot be written.
            """)

    @Argument(
        help: "Test files, or directories with *.litmus files.", completion: .file(extensions: ["litmus"]))
    var paths: [String]
    @Option(
        name: .customLong("as"),
        help: ArgumentHelp(
            "c for a program of its own; selftest for a test of the kernel's tools/testing/selftests/kvm/x86, with the helpers of that directory.",
            valueName: "form"))
    var form = CProgram.Form.c
    @Option(
        name: [.short, .long],
        help: ArgumentHelp(
            "The C file of one test, or the directory for several, which is created. (default: standard output, for one test)",
            valueName: "path"),
        completion: .file())
    var output: String?
    @Flag(help: "Replace existing files.")
    var force = false

    func run() throws {
        let items = try LitmusCommand.Item.read(paths)
        var programs: [(name: String, text: String)] = []
        for item in items {
            do throws(ExportProblem) {
                let program = try CProgram(
                    item.source, file: ByteText.visible(ByteText.lastComponent(item.path)),
                    name: item.shortName, form: form)
                programs.append((item.shortName, program.text))
            } catch {
                Terminal.diagnostics.print("\(item.path): not exported: \(error)")
            }
        }
        guard !programs.isEmpty else { throw Status.skipped }
        try write(programs, isOne: items.count == 1)
    }

    private func write(_ programs: [(name: String, text: String)], isOne: Bool) throws {
        let isDirectory = output.map { (try? DirectoryListing.read($0)) != nil } ?? false
        guard let output, output != "-" else {
            guard isOne else {
                throw stop("several tests need --output with a directory for their programs", Status.usage)
            }
            return Terminal.output.put(Array(programs[0].text.utf8))
        }
        if isOne, !isDirectory { return try write(programs[0].text, to: output) }
        try TextFile.makeDirectory(output, for: "the programs")
        for program in programs { try write(program.text, to: ByteText.join(output, program.name + ".c")) }
        Terminal.diagnostics.print("\(programs.count) programs in \(output)")
    }

    private func write(_ text: String, to path: String) throws {
        guard try TextFile.write(text, to: path, what: "the program", isNew: !force) else {
            throw stop(
                "\(path): the file exists; choose another name, or replace it with --force",
                Status.monitorFailed)
        }
    }
}
