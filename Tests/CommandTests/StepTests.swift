// SPDX-License-Identifier: MIT
import Testing

@testable import minivmm

@Suite("minivmm run --step", .enabled(if: Command.runsGuests, Command.noGuests))
struct StepTests {
    private func step(_ guest: String, _ commands: [String], _ more: [String] = []) throws -> Command.Result {
        try Command.run(
            ["run", guest, "--backend", "soft", "--step"] + more,
            input: commands.map { $0 + "\n" }.joined())
    }

    @Test func eachExitIsShownBeforeAnythingIsDone() throws {
        let result = try step("implicit", ["", "u", "r", "u", "c"])
        #expect(result.status == 0)
        #expect(result.output.contains("One byte through the shared alias"))
        let told = result.diagnostics
        for line in [
            "exit 1, vcpu0  OUT 0xe8: call 0x4d560005", "exit 2, vcpu0  OUT 0x3f8, 0x4f 'O'",
            "exit 36, vcpu0  memory fault at 0x200000, page 512: the access needs it shared (KVM_RUN: EFAULT, flags 0x0)",
            "RIP=0x10009f", "R13=0x8000200000", "at RIP  e7 e8 ", "at RIP  41 c6 45 08 5a ", "RFLAGS=",
            "from 0x200000\n   ^\n",
        ] {
            #expect(told.contains(line) || told.unfolded.contains(line.unfolded), "\(line)")
        }
        // The second fault comes with the page of the first converted.
        let second = told.components(separatedBy: "memory fault at").dropFirst(2).first ?? ""
        #expect(second.contains("sP") || second.contains("sss") || second.contains("sm"), "\(second)")
    }

    @Test(.enabled(if: Capstone.isInstalled, Capstone.missing))
    func instructionsAreShownAsText() throws {
        let told = try step("implicit", ["", "u", "c"]).diagnostics.unfolded
        for line in ["at RIP  e7 e8   outl %eax, $0xe8", "at RIP  41 c6 45 08 5a   movb $0x5a, 8(%r13)"] {
            #expect(told.contains(line.unfolded), "\(line)")
        }
        #expect(!told.contains("Capstone"))
    }

    /// A file that is no library stands where the loader looks first.
    @Test func withoutADisassemblerInstructionsAreBytes() throws {
        let directory = try Scratch()
        for name in ["libcapstone.so.5", "libcapstone.so.4"] { _ = try directory.file(name, [0]) }
        let result = try Command.run(
            ["run", "implicit", "--backend", "soft", "--step"], input: "\n\nc\n",
            environment: ["LD_LIBRARY_PATH": directory.url.path])
        #expect(result.status == 0)
        #expect(result.diagnostics.contains("at RIP  e7 e8 48 83 f8 01 74 13 ..."))
        #expect(result.diagnostics.components(separatedBy: "apt-get install libcapstone4").count == 2)
    }

    /// The loader says which libraries it is asked for.
    @Test func onlyStepsOpenTheDisassembler() throws {
        func opens(_ options: [String]) throws -> Bool {
            try Command.run(
                ["run", "hello", "--backend", "soft"] + options, environment: ["LD_DEBUG": "libs"]
            ).diagnostics.contains("find library=\(Disassembler.names[0])")
        }
        #expect(try opens(["--step"]))
        #expect(try !opens([]))
    }

    @Test func whoStepsConvertsByHand() throws {
        let result = try step(
            "implicit",
            [
                "u", "x 0x200000", "shared 0x200000 1", "x 0x200000 8", "private 0x200000 1 zero",
                "private 5 1",
                "shared 0x200000", "shared 0x20000000 1", "x", "nonsense", "p", "q",
            ])
        #expect(result.status == 130)
        for line in [
            "EFAULT: host read at 0x200000", "the page is private; it must",
            "1 page to shared, contents preserve: done (the ABI's promise)",
            "0x200000:  00 00 20 00 00 00 00 00",
            "1 page to private, contents zero: done (zeroed by the monitor)",
            "ADDRESS is a multiple of 4096", "extends past the end of RAM (0x1000000)",
            "usage: x ADDRESS [BYTES]",
            "no such command: nonsense",
        ] { #expect(result.diagnostics.unfolded.contains(line.unfolded), "\(line)") }
    }

    /// A page converted by hand before the monitor looks is a race like any other: the same instruction completes.
    @Test func whatWasConvertedByHandIsARace() throws {
        let result = try step("implicit", ["u", "shared 0x200000 1", "c"])
        #expect(result.status == 0, "\(result.output)\(result.diagnostics)")
    }

    /// KVM leaves RIP behind some instructions, and the software kernel does not: the same one is shown.
    @Test(.enabled(if: Capstone.isInstalled, Capstone.missing))
    func theInstructionIsFoundWhereverRIPIs() throws {
        func instructions(_ backend: String) throws -> [String] {
            let result = try Command.run(
                ["run", "implicit", "--step", "--backend", backend],
                input: String(repeating: "\n", count: 60) + "u\nu\nc\n")
            #expect(result.status == 0)
            return result.diagnostics.split(separator: "\n").filter { $0.hasPrefix("   at ") }.map { line in
                line.split(separator: " ").dropFirst(2).prefix { $0 != "(RIP" }.joined(separator: " ")
            }
        }
        let soft = try instructions("soft")
        #expect(soft.contains("41 c6 45 08 5a movb $0x5a, 8(%r13)"))
        #expect(soft.contains("e7 e8 outl %eax, $0xe8"))
        #expect(try instructions("auto") == soft)
    }

    @Test func aHypercallAndAHeldPageAreShown() throws {
        let explicit = try step("explicit", ["u", "c"])
        #expect(explicit.diagnostics.contains("KVM_HC_MAP_GPA_RANGE: 1 page from 0x200000 to private"))
        #expect(explicit.diagnostics.contains("at RIP  0f 01 d9 "))
        let pinned = try step("pinned", ["u", "u", "u", "private 0x200000 8", "c"])
        #expect(pinned.diagnostics.contains("sssssHss"))
    }

    /// Nobody waits for Enter after Ctrl-C, with vCPUs that stop one after the other either.
    @Test(arguments: ["implicit", "smp"]) func ctrlCEndsIt(guest: String) throws {
        let terminal = try PseudoTerminal(columns: 40, rows: 24)
        let status = try terminal.run(
            ["run", guest, "--step"], environment: [:], typing: ["u"],
            interruptAfter: "MAP_GPA\u{1}memory fault")
        #expect(status == 130, "\(terminal.text)")
    }

    @Test(arguments: ["soft", "auto"]) func whoQuitsIsAskedNoMore(backend: String) throws {
        let result = try Command.run(
            ["run", "smp", "--step", "--backend", backend], input: "u\nu\nq\nx\nx\nx\n")
        #expect(result.status == 130)
        #expect(!result.diagnostics.contains("usage: x"))
    }

    @Test func theEndOfInputLetsTheGuestGoOn() throws {
        let result = try step("hello", [""])
        #expect(result.status == 0)
        #expect(result.diagnostics.contains("end of input"))
        #expect(try step("smp", ["u", "u", "u", "u", "c"]).status == 0)
    }

    @Test func theEndIsToldAsWell() throws {
        #expect(try step("crash", ["", "", "", "", "", ""]).status == 126)
        let exit = try step("hello", ["c"], ["--quiet"])
        #expect(exit.status == 0)
    }
}
