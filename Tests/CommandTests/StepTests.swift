import Testing

@Suite("minivmm run --step", .enabled(if: Command.runsGuests, Command.noGuests))
struct StepTests {
    private func step(_ guest: String, _ commands: [String], _ more: [String] = []) throws -> Command.Result {
        try Command.run(
            ["run", guest, "--kernel", "soft", "--step"] + more,
            input: commands.map { $0 + "\n" }.joined())
    }

    @Test func eachExitIsShownBeforeAnythingIsDone() throws {
        let result = try step("implicit", ["", "u", "r", "u", "c"])
        #expect(result.status == 0)
        #expect(result.output.contains("One byte through the shared door"))
        let told = result.diagnostics
        for line in [
            "exit 1, vcpu0  OUT 0xe8: call 0x4d560005", "exit 2, vcpu0  OUT 0x3f8, 0x4f 'O'",
            "exit 35, vcpu0  memory fault at 0x200000, page 512: wants it shared (KVM_RUN: EFAULT, flags 0x0)",
            "RIP=0x10009f", "R13=0x8000200000", "out %eax, $0xe8",
        ] { #expect(told.contains(line), "\(line)") }
        // The second fault comes with the page of the first converted.
        let second = told.components(separatedBy: "memory fault at").dropFirst(2).first ?? ""
        #expect(second.contains("sP") || second.contains("sss") || second.contains("sm"), "\(second)")
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
            "the page is private; it must be converted",
            "1 pages to shared: done, contents: the ABI's promise",
            "0x200000:  00 00 20 00 00 00 00 00",
            "1 pages to private: done, contents: zeroed by the monitor",
            "an address of whole pages", "leaves RAM, which ends at 0x1000000", "x ADDRESS [BYTES]: numbers",
            "no such command: nonsense",
        ] { #expect(result.diagnostics.contains(line), "\(line)") }
    }

    /// A page converted by hand before the monitor looks is a race like any other: the same instruction completes.
    @Test func whatWasConvertedByHandIsARace() throws {
        let result = try step("implicit", ["u", "shared 0x200000 1", "c"])
        #expect(result.status == 0, "\(result.output)\(result.diagnostics)")
    }

    @Test func theEndOfInputLetsTheGuestGoOn() throws {
        let result = try step("hello", [""])
        #expect(result.status == 0)
        #expect(result.diagnostics.contains("the input ends here"))
        #expect(try step("smp", ["u", "u", "u", "u", "c"]).status == 0)
    }

    @Test func theEndIsToldAsWell() throws {
        #expect(try step("crash", ["", "", "", "", "", ""]).status == 126)
        let exit = try step("hello", ["c"], ["--quiet"])
        #expect(exit.status == 0)
    }
}
