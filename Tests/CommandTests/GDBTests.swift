// SPDX-License-Identifier: MIT
import Foundation
import Testing

@Suite("minivmm run --gdb", .enabled(if: Command.isBuilt, Command.missing))
struct GDBTests {
    private static let gdb = URL(fileURLWithPath: "/usr/bin/gdb")
    static let isInstalled = FileManager.default.isExecutableFile(atPath: gdb.path)
    static let notInstalled: Comment = "needs gdb"

    /// Runs a guest, and GDB with these commands.
    private func session(
        _ guest: [String], _ commands: [String]
    ) throws -> (guest: Command.Result, debugger: Command.Result) {
        let directory = try Scratch()
        let path = directory.path("gdb")
        var debugger: Command.Result?
        let guest = try Command.run(
            ["run"] + guest + ["--gdb", path],
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("target remote") || !process.isRunning }
                let words =
                    ["-nx", "-batch", "-ex", "target remote \(path)"] + commands.flatMap { ["-ex", $0] }
                debugger = try? Command.run(words, tool: Self.gdb, seconds: 600)
            })
        return (guest, try #require(debugger))
    }

    @Test(
        .enabled(if: Command.runsGuests, Command.noGuests), .enabled(if: isInstalled, notInstalled),
        arguments: ["soft", "auto"])
    func gdbStepsAndContinues(backend: String) throws {
        let (guest, debugger) = try session(
            ["hello", "--backend", backend],
            [
                "info registers rip", "stepi", "break *0x100007", "continue", "x/2xb 0x100000",
                "info threads",
                "set $rax = 0x1234", "print/x $rax", "print $st0", "delete", "continue",
            ])
        let shown = debugger.output
        for line in [
            "rip            0x100000", "Breakpoint 1, 0x0000000000100007", "0x100000:\t0x49\t0x89",
            "(vCPU 0)", "= 0x1234",
            "<unavailable>", "exited normally",
        ] { #expect(shown.contains(line), "\(line)\n\(shown)\(debugger.diagnostics)") }
        #expect(guest.status == 0 && guest.output.contains("Hello from ring 0."))
        #expect(
            guest.diagnostics.contains("gdb      the guest waits; connect with: gdb -ex 'target remote /"))
    }

    @Test(
        .enabled(if: Command.runsGuests, Command.noGuests), .enabled(if: isInstalled, notInstalled),
        arguments: ["soft", "auto"])
    func gdbSeesACrash(backend: String) throws {
        let (guest, debugger) = try session(["crash", "--backend", backend], ["continue", "continue"])
        #expect(debugger.output.contains("Program received signal SIGILL"))
        #expect(debugger.output.contains("Program terminated with signal SIGILL"))
        #expect(guest.status == 126)
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests), .enabled(if: isInstalled, notInstalled))
    func killAndDetach() throws {
        #expect(try session(["hang", "--backend", "soft"], ["stepi", "kill"]).guest.status == 137)
        #expect(try session(["hello", "--backend", "soft"], ["stepi", "detach"]).guest.status == 0)
    }

    /// The time limit and Ctrl-C end a guest that stands still.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func waitingEnds() throws {
        let directory = try Scratch()
        let path = directory.path("gdb")
        let limited = try Command.run([
            "run", "hello", "--backend", "soft", "--gdb", path, "--timeout", "0.2",
        ])
        #expect(limited.status == 124 && limited.output == "")
        #expect(!FileManager.default.fileExists(atPath: path))
        let interrupted = try Command.run(
            ["run", "hello", "--backend", "soft", "--gdb", path],
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("target remote") || !process.isRunning }
                process.interrupt()
            })
        #expect(interrupted.status == 130)
    }

    @Test(arguments: ["0", "65536", "0.0.0.0:1234", "localhost:1234", ""]) func otherAddressesAreRefused(
        _ address: String
    ) throws {
        let result = try Command.run(["run", "hello", "--gdb", address])
        #expect(result.status == 64 && result.diagnostics.contains("--gdb"), "\(result.diagnostics)")
    }

    @Test func placesThatCannotBeOpened() throws {
        let directory = try Scratch()
        let file = try directory.file("file", [])
        let taken = try Command.run(["run", "hello", "--gdb", file])
        #expect(taken.status == 64 && taken.diagnostics.contains("--gdb \(file): cannot listen: "))
        #expect(
            taken.diagnostics.contains("remove that file") && FileManager.default.fileExists(atPath: file))
        let missing = try Command.run(["run", "hello", "--gdb", directory.path("no/where")])
        #expect(missing.status == 64 && missing.diagnostics.contains("No such file"))
        let long = try Command.run([
            "run", "hello", "--gdb", directory.path(String(repeating: "a", count: 200)),
        ])
        #expect(long.status == 64 && long.diagnostics.contains("File name too long"))
    }

    /// A socket that a killed server has left is replaced.
    @Test(.enabled(if: Command.runsGuests, Command.noGuests)) func staleSocketsAreReplaced() throws {
        let directory = try Scratch()
        let path = directory.path("gdb")
        let arguments = ["run", "hello", "--backend", "soft", "--gdb", path]
        let killed = try Command.run(
            arguments,
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("target remote") || !process.isRunning }
                kill(process.processIdentifier, SIGKILL)
            })
        #expect(killed.status == 137 && FileManager.default.fileExists(atPath: path))
        #expect(try Command.run(arguments + ["--timeout", "0.1"]).status == 124)
    }

    @Test(arguments: ["snp", "tdx"]) func confidentialGuestsAreRefused(_ type: String) throws {
        let directory = try Scratch()
        let path = directory.path("gdb")
        let result = try Command.run(["run", "hello", "--backend", "soft", "--vm", type, "--gdb", path])
        #expect(!FileManager.default.fileExists(atPath: path))
        #expect(
            result.status == 64 && result.diagnostics.contains("cannot see the registers"),
            "\(result.diagnostics)")
    }

    @Test func steppingAndDebuggingExcludeEachOther() throws {
        let result = try Command.run(["run", "hello", "--step", "--gdb", "x"])
        #expect(result.status == 64 && result.diagnostics.contains("leave one of them out"))
    }
}
