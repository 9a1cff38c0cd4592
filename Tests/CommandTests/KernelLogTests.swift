// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// The announcements of `litmus` and `explore`, the reports that they read, and the command of lab/check that reads a
/// console.
@Suite("the kernel's log", .enabled(if: Command.isBuilt, Command.missing)) struct KernelLogCommandTests {
    private static let test = "test \"x\"\nmemory 1 pages shared\nhost read 0 => 0x0\n"
    private static let warning = [
        "WARNING: virt/kvm/guest_memfd.c:228 at kvm_gmem_fallocate+0x1a2/0x2c0, CPU#0: litmus/71",
        "---[ end trace 0000000000000000 ]---",
    ]

    @Test func eachTestIsAnnounced() throws {
        let scratch = try Scratch()
        _ = try scratch.file("x.litmus", Array(Self.test.utf8))
        let result = try Command.run(
            ["litmus", "--backend", "soft", "--announce", "log", "x.litmus", "x.litmus"], in: scratch.url)
        #expect(result.status == 0, "\(result.diagnostics)")
        let log = try String(contentsOfFile: scratch.path("log"), encoding: .utf8)
        let lines = log.split(separator: "\n")
        #expect(lines.count == 12 && lines.first == "minivmm: test" && lines.last == "minivmm: end")
        #expect(lines.contains("minivmm: | host      read 0                              => 0x0"))
    }

    @Test(arguments: [
        (["--announce", "/nowhere/log"], "--announce /nowhere/log: cannot be written"),
        (["--announce", "/dev/full"], "--announce /dev/full: cannot be written"),
        (["--kernel-log", "/nowhere/log"], "--kernel-log /nowhere/log: cannot be read"),
    ]) func aFileThatCannotBeUsedIsAnError(_ options: [String], _ message: String) throws {
        let scratch = try Scratch()
        _ = try scratch.file("x.litmus", Array(Self.test.utf8))
        for command in [
            ["litmus", "x.litmus"], ["explore", "--depth", "1", "--tests", "1", "--parallel", "0"],
        ] {
            let result = try Command.run(command + ["--backend", "soft"] + options, in: scratch.url)
            #expect(result.status == 125, "\(command)")
            #expect(result.diagnostics.contains(message), "\(result.diagnostics)")
        }
    }

    /// A named pipe in place of /dev/kmsg, which is read after the test.
    @Test func aReportFailsATest() throws {
        let scratch = try Scratch()
        _ = try scratch.file("x.litmus", Array(Self.test.utf8))
        try #require(mkfifo(scratch.path("log"), 0o600) == 0)
        let descriptor = open(scratch.path("log"), O_RDWR)
        let writer = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        let records = Self.warning.enumerated().map { "4,\($0.offset),100,-;\($0.element)\n" }.joined()
        try writer.write(contentsOf: Data(records.utf8))
        let result = try Command.run(
            [
                "litmus", "--backend", "soft", "--kernel-log", "log", "--format", "ktap", "x.litmus",
                "x.litmus",
            ], in: scratch.url)
        #expect(result.status == 1)
        #expect(result.output.contains("# the kernel reported a bug of its own:\n# \(Self.warning[0])\n"))
        #expect(result.output.contains("not ok 1 x\n") && result.output.contains("ok 2 x\n"))
    }

    @Test(arguments: [
        (["--from", "0"], "--from 0: give a number from 1"),
        (["--without", "host raed"], "did you mean host read"),
    ]) func badOptionsOfExplore(_ options: [String], _ message: String) throws {
        let result = try Command.run(["explore", "--backend", "soft"] + options)
        #expect(
            result.status == 64 && result.diagnostics.lowercased().contains(message), "\(result.diagnostics)")
    }

    @Test func aConsoleIsReadForReports() throws {
        let console = (["Linux version 7.3.4-lab"] + Self.warning).map { "[    1.234567] \($0)\n" }.joined()
        let bad = try Command.run(["lab-reports"], input: "lab/boot: note: a note\n" + console)
        #expect(bad.status == 1 && bad.output == Self.warning.joined(separator: "\n") + "\n")
        let good = try Command.run(
            ["lab-reports"], input: "[    1.000000] kvm: fine\nWARNING: CPU: 0 no time stamp\n")
        #expect(good.status == 0 && good.output == "")
    }
}
