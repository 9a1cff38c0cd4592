// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite(
    "The command: run", .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Command.runsGuests, Command.noGuests))
struct RunTests {
    @Test func exitStatusIsTheGuestsOrADocumentedOne() throws {
        for (arguments, status) in [
            (["hello"], 0), (["fault-loop"], 126), (["crash"], 126), (["hang", "--timeout", "0.3"], 124),
            (["hello", "--vcpus", "16", "--regions", "3", "--ram", "8M", "--chunk", "64K"], 0),
            (["implicit", "--vcpus", "2"], 0),
        ] as [([String], Int32)] {
            let result = try Command.run(["run"] + arguments)
            #expect(result.status == status, "\(arguments): \(result.diagnostics)")
            #expect(result.diagnostics.contains("backend  ") && result.diagnostics.contains("end     "))
            #expect(result.diagnostics.contains("counts  "))
        }
    }

    @Test func flatImageAndELFRun() throws {
        let scratch = try Scratch()
        let code: [UInt8] = [0xb0, 42, 0xe6, 0xf4]  // mov $42, %al; out %al, $0xf4
        #expect(try Command.run(["run", try scratch.file("flat.bin", code)]).status == 42)
        func little(_ value: UInt64, _ bytes: Int) -> [UInt8] {
            (0..<bytes).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        }
        var elf: [UInt8] =
            [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + little(0, 9) + little(2, 2) + little(62, 2) + little(1, 4)
        elf +=
            little(0x20_0000, 8) + little(64, 8) + little(0, 8) + little(0, 4) + little(64, 2) + little(56, 2)
        elf += little(1, 2) + little(0, 6)
        elf += little(1, 4) + little(5, 4) + little(120, 8) + little(0x20_0000, 8) + little(0x20_0000, 8)
        elf += little(4, 8) + little(4, 8) + little(4096, 8) + code
        #expect(try Command.run(["run", try scratch.file("guest.elf", elf)]).status == 42)
        // A path is a file, even if its last component is the name of a built-in guest.
        #expect(try Command.run(["run", try scratch.file("crash", code)]).status == 42)
    }

    @Test func standardOutputIsTheConsoleOnly() throws {
        let loud = try Command.run(["run", "hello"])
        let quiet = try Command.run(["run", "hello", "--quiet"])
        #expect(loud.output == quiet.output && loud.output.contains("\n"))
        #expect(quiet.diagnostics == "")
        #expect(!loud.output.contains("backend  "))
        #expect(try Command.run(["run", "crash", "--quiet"]).diagnostics.contains("invalid opcode (#UD,"))
    }

    @Test func jsonIsOneObjectWithTheConsole() throws {
        for (payload, outcome, status) in [("hello", "exited", 0), ("crash", "crashed", 126)] {
            let result = try Command.run(["run", payload, "--json"])
            let json = try #require(result.json, "\(result.output)")
            #expect(result.output.split(separator: "\n").count == 1 && result.diagnostics == "")
            #expect(json["schema"] as? String == "minivmm.run/1" && json["guest"] as? String == payload)
            #expect(json["outcome"] as? String == outcome && json["status"] as? Int == status)
            #expect(Int(result.status) == status)
            #expect(
                ["LinuxKVM", "PerVMAttributesKVM", "MemslotTrapKVM", "SoftKVM"].contains(
                    json["backend"] as? String ?? ""))
            #expect(json["host"] as? String != "" && json["reason"] as? String != "")
            #expect((json["statistics"] as? [String: Any])?.count == 8)
            #expect((json["elapsed_ns"] as? Int ?? 0) > 0)
            if payload == "hello" { #expect((json["console"] as? String)?.isEmpty == false) }
        }
    }

    @Test func probeNamesTheBackendThatAutoPicks() throws {
        let json = try #require(try Command.run(["probe", "--json"]).json)
        #expect(json["schema"] as? String == "minivmm.probe/1")
        let backends = try #require(json["backends"] as? [[String: Any]])
        #expect(
            backends.compactMap { $0["name"] as? String } == [
                "linux", "per-vm-attributes", "memslot-trap", "soft",
            ])
        let auto = try #require(json["auto"] as? [String: Any])
        let run = try #require(try Command.run(["run", "hello", "--json"]).json)
        #expect(run["reason"] as? String == auto["reason"] as? String)
        #expect(try Command.run(["probe"]).status == 0)
        // For a guest that needs its contents, auto picks a backend that preserves them.
        let explicit = try Command.run(["run", "explicit", "--json"])
        #expect(explicit.status == 0, "\(explicit)")
    }

    /// Each backend either runs each of these guests or reports why it cannot, with status 4.
    @Test(arguments: ["linux", "per-vm-attributes", "memslot-trap", "soft"])
    func backendRunsGuestOrReportsWhyNot(backend: String) throws {
        let probe = try #require(try Command.run(["probe", "--json"]).json)
        let sections = try #require(probe["backends"] as? [[String: Any]])
        let section = try #require(sections.first { $0["name"] as? String == backend })
        let findings = section["findings"] as? [[String: Any]] ?? []
        let runs = findings.contains { $0["key"] as? String == "guest" && $0["verdict"] as? String == "yes" }
        for guest in ["hello", "explicit", "forget", "contents"] {
            let result = try Command.run(["run", guest, "--backend", backend, "--json"])
            if result.status == 4 {
                #expect(result.json?["outcome"] as? String == "unsupported")
                let why = result.json?["description"] as? String ?? ""
                #expect(
                    ["no VM type", "preserve contents", "tell private from shared", "cannot convert"].contains
                    {
                        why.contains($0)
                    })
                #expect(!runs || guest == "explicit" || guest == "forget", "\(backend) \(guest): \(why)")
            } else if runs {
                #expect(result.status == 0, "\(backend) \(guest): \(result)")
            }
        }
    }

    /// If the contents cannot be preserved, the status is 4; it is 125 if the backend is not available.
    @Test func preservationIsARequirement() throws {
        let scratch = try Scratch()
        let file = try scratch.file("flat.bin", [0xb0, 42, 0xe6, 0xf4])
        for options in [["--contents", "preserve"], ["--contents", "zero"], []] {
            #expect(try Command.run(["run", file] + options).status == 42)
        }
        let result = try Command.run([
            "run", file, "--backend", "per-vm-attributes", "--contents", "preserve",
        ])
        #expect([4, 125].contains(result.status), "\(result)")
    }

    // MARK: traces

    @Test func traceIsJSONLinesWithTheSchemaFirst() throws {
        let scratch = try Scratch()
        let path = scratch.path("trace.jsonl")
        #expect(try Command.run(["run", "explicit", "--quiet", "--trace", path]).status == 0)
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map { line in
            try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(line)")
        }
        #expect(lines.first?["schema"] as? String == "minivmm.trace/1")
        let events = lines.dropFirst().compactMap { $0["event"] as? String }
        #expect(events.count == lines.count - 1)
        #expect(events.first == "boot" && events.last == "stop")
        #expect(events.contains("set-memory-attributes2") && events.contains("hypercall"))
        let times = lines.compactMap { $0["t"] as? UInt64 }
        #expect(times == times.sorted() && times.count == lines.count)
    }

    @Test func traceFormatFollowsTheOptionOrFileName() throws {
        let scratch = try Scratch()
        for (name, options, first) in [
            ("a.json", [], "{"), ("a.txt", [], "#"), ("a.txt", ["--trace-format", "json"], "{"),
            ("a.json", ["--trace-format", "text"], "#"),
        ] as [(String, [String], Character)] {
            let path = scratch.path(name)
            #expect(try Command.run(["run", "hello", "--quiet", "--trace", path] + options).status == 0)
            #expect(try String(contentsOfFile: path, encoding: .utf8).first == first)
        }
        #expect(try Command.run(["run", "hello", "--trace", "-"]).diagnostics.contains("# trace of"))
    }

    @Test func unwritableTraceIsAnError() throws {
        let result = try Command.run([
            "run", "explicit", "--quiet", "--trace", "/dev/full", "--trace-format", "json",
        ])
        #expect(result.status == 125)
        #expect(result.diagnostics.contains("the trace") && result.diagnostics.contains("ENOSPC"))
    }

    // MARK: terminals and signals

    @Test func noColourWithoutATerminal() throws {
        for environment in [[:], ["NO_COLOR": "1"], ["TERM": "dumb"], ["TERM": "xterm-256color"]] {
            let result = try Command.run(["run", "hello"], environment: environment)
            #expect(!(result.output + result.diagnostics).contains("\u{1b}"))
        }
    }

    @Test(arguments: [(SIGINT, 130), (SIGTERM, 143), (SIGHUP, 129)] as [(Int32, Int32)])
    func signalEndsTheGuestWithASummary(_ signal: Int32, _ status: Int32) throws {
        let result = try Command.run(
            ["run", "hang", "--timeout", "0"],
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("backend  ") }
                kill(process.processIdentifier, signal)
            })
        #expect(result.status == status)
        #expect(result.diagnostics.contains("interrupted by signal \(signal)"), "\(result.diagnostics)")
    }

    // MARK: time limits and signals outside the guest

    /// Makes 16,777,216 calls before the guest starts.
    private static let longBoot = ["run", "hello", "--backend", "soft", "--ram", "64G", "--chunk", "4096"]

    @Test func timeLimitAppliesDuringSetup() throws {
        let result = try Command.run(Self.longBoot + ["--timeout", "0.5"])
        #expect(result.status == 124 && result.diagnostics.contains("the time limit of 0.5 s was reached"))
        #expect(
            try Command.run(Self.longBoot + ["--timeout", "0.5", "--json"]).json?["status"] as? Int == 124)
    }

    @Test func signalIsHandledDuringSetup() throws {
        let result = try Command.run(
            Self.longBoot + ["--timeout", "0"],
            watching: { process, diagnostics in
                Command.wait { diagnostics().contains("backend  ") }
                kill(process.processIdentifier, SIGTERM)
            })
        #expect(result.status == 143 && result.diagnostics.contains("interrupted by signal 15"))
    }

    /// The guest makes a hypercall that zeroes 4 GiB.
    @Test func timeLimitAppliesInsideAHypercall() throws {
        let scratch = try Scratch()
        let code: [UInt8] = [
            0xbb, 0x00, 0x00, 0x20, 0x00, 0xb9, 0x00, 0xfe, 0x0f, 0x00, 0xba, 0x00, 0x02, 0x00, 0x00,
            0xb8, 0x0c, 0x00, 0x00, 0x00, 0xe7, 0xe8, 0xbb, 0x00, 0x00, 0x20, 0x00, 0xb9, 0x00, 0xfe,
            0x0f, 0x00, 0xba, 0x00, 0x02, 0x00, 0x00, 0xb8, 0x0c, 0x00, 0x00, 0x00, 0xe7, 0xe8, 0x88,
            0xc0, 0xe6, 0xf4,
        ]
        let guest = try scratch.file("zero.bin", code)
        let result = try Command.run(
            ["run", guest, "--backend", "soft", "--ram", "4G", "--timeout", "0.5"])
        #expect(result.status == 124, "\(result.status) \(result.diagnostics)")
    }

    /// Opening a pipe without a writer blocks. The time limit applies there too.
    @Test func timeLimitAppliesWhileReadingTheGuest() throws {
        let scratch = try Scratch()
        let pipe = scratch.path("guest")
        #expect(mkfifo(pipe, 0o600) == 0)
        let result = try Command.run(["run", pipe, "--timeout", "0.3"])
        #expect(result.status == 124 && result.diagnostics.contains("while reading the file"))
    }

    @Test(arguments: ["1e-300", "nan", "inf", "-inf", "1e300", "-1", "", "x"])
    func invalidTimesAreUsageErrors(_ text: String) throws {
        for command in [["run", "hello"], ["litmus", "."], ["explore"]] {
            let result = try Command.run(command + ["--timeout=" + text])
            #expect(result.status == 64 && result.output.isEmpty, "\(command) \(text)")
            #expect(result.diagnostics.contains("--timeout"))
        }
        #expect(try Command.run(["run", "hello", "--deadline=" + text]).status == 64)
    }

    /// `minivmm run … | head -0`.
    @Test func closedStandardOutputEndsTheCommand() throws {
        for arguments in [["run", "ping-pong"], ["list"], ["run", "hello", "--json"]] {
            let process = Process()
            process.executableURL = Command.executable
            process.arguments = arguments
            let pipe = Pipe()
            process.standardOutput = pipe
            process.standardError = FileHandle.nullDevice
            try pipe.fileHandleForReading.close()
            let ended = DispatchSemaphore(value: 0)
            process.terminationHandler = { _ in ended.signal() }
            try process.run()
            if ended.wait(timeout: .now() + 300) == .timedOut {
                kill(process.processIdentifier, SIGKILL)
                Issue.record("\(arguments) hangs")
                continue
            }
            // Like any filter whose reader has exited.
            #expect(process.terminationReason == .uncaughtSignal && process.terminationStatus == SIGPIPE)
        }
    }
}
