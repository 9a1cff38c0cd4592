// SPDX-License-Identifier: MIT
import Foundation
import Testing

@Suite("minivmm export", .enabled(if: Command.isBuilt, Command.missing), .timeLimit(.minutes(120)))
struct ExportCommandTests {
    private static let test = "test \"one\"\nmemory 1 pages shared\nhost read 0 => 0\n"
    private static let soft = "test \"two\"\nkernel runs 4\nmemory 1 pages shared\nhost read 0 => 0\n"

    @Test func oneTestIsWrittenToStandardOutputOrToAFile() throws {
        let scratch = try Scratch()
        let file = try scratch.file("one.litmus", Array(Self.test.utf8))
        let printed = try Command.run(["export", file])
        #expect(printed.status == 0)
        #expect(printed.output.hasPrefix("// SPDX-License-Identifier: MIT\n/* one.\n"))
        #expect(printed.output.hasSuffix("}\n"))
        #expect(try Command.run(["export", file, "--output", scratch.path("a.c")]).status == 0)
        #expect(try String(contentsOfFile: scratch.path("a.c"), encoding: .utf8) == printed.output)
    }

    @Test func severalTestsAreWrittenToADirectory() throws {
        let scratch = try Scratch()
        _ = try scratch.file("one.litmus", Array(Self.test.utf8))
        _ = try scratch.file("two.litmus", Array(Self.soft.utf8))
        _ = try scratch.file("three.litmus", Array(Self.test.utf8))
        #expect(try Command.run(["export", scratch.url.path]).status == 64)
        let written = try Command.run(["export", scratch.url.path, "--output", scratch.path("c")])
        #expect(written.status == 0)
        #expect(
            written.diagnostics.contains(
                "two.litmus: not exported: `kernel runs 4` configures the software kernel"))
        #expect(written.diagnostics.contains("2 programs in "))
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: scratch.path("c")).sorted() == [
                "one.c", "three.c",
            ])
    }

    @Test func anExistingFileIsKeptUnlessForced() throws {
        let scratch = try Scratch()
        let file = try scratch.file("one.litmus", Array(Self.test.utf8))
        let place = try scratch.file("old.c", Array("old".utf8))
        let refused = try Command.run(["export", file, "--output", place])
        #expect(refused.status == 125)
        #expect(
            refused.diagnostics.contains("the file exists; choose another name, or replace it with --force"))
        #expect(try String(contentsOfFile: place, encoding: .utf8) == "old")
        #expect(try Command.run(["export", file, "--output", place, "--force"]).status == 0)
        #expect(try String(contentsOfFile: place, encoding: .utf8).contains("int main"))
    }

    @Test func whatCannotBeWrittenOrReadIsNamed() throws {
        let scratch = try Scratch()
        let file = try scratch.file("one.litmus", Array(Self.test.utf8))
        let nowhere = try Command.run(["export", file, "--output", "/nonexistent/a.c"])
        #expect(nowhere.status == 125)
        #expect(nowhere.diagnostics.contains("/nonexistent/a.c: the program cannot be written"))
        let full = try Command.run(["export", file, "--output", "/dev/full", "--force"])
        #expect(full.status == 125)
        #expect(try Command.run(["export", "/nonexistent.litmus"]).status == 64)
        let broken = try scratch.file("broken.litmus", Array("test \"x\"\nhost jump\n".utf8))
        #expect(try Command.run(["export", broken]).status == 64)
        let soft = try scratch.file("soft.litmus", Array(Self.soft.utf8))
        let none = try Command.run(["export", soft])
        #expect(none.status == 4)
        #expect(none.output.isEmpty)
    }
}
