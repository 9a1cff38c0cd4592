// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// `minivmm run` with guests written to break the software CPU: exit statuses and messages.
@Suite(.enabled(if: Command.runsGuests, Command.noGuests))
struct HostileCommandTests {
    private func run(_ code: [UInt8], _ options: [String] = []) throws -> Command.Result {
        let scratch = try Scratch()
        let file = try scratch.file("guest.bin", code)
        return try Command.run(["run", file, "--backend", "soft"] + options)
    }

    @Test(
        arguments: [
            ([0xff, 0xd8], 126), ([0xff, 0xe8], 126),  // far CALL and JMP through a register
            ([0xf0, 0x0f, 0xa3, 0xc0], 126),  // LOCK BT
            // mov eax, 1; mov dr7, rax; mov al, 7; out 0xf4, al
            ([0xb8, 1, 0, 0, 0, 0x0f, 0x23, 0xf8, 0xb0, 7, 0xe6, 0xf4], 7),
            ([0xb0, 7, 0x40, 0x40, 0xe6, 0xf4], 7), ([0x40, 0x40, 0xf4], 127),
        ] as [([UInt8], Int32)])
    func hostileCodeEndsWithAStatus(code: [UInt8], status: Int32) throws {
        let result = try run(code)
        #expect(result.status == status, "\(result.diagnostics)")
    }

    @Test(.disabled(if: isSanitized, "the address sanitizer itself needs the address space"))
    func addressSpaceLimitIsAHostError() throws {
        let minivmm = try #require(Command.executable)
        let result = try Command.run(
            ["-c", "ulimit -v 900000; exec \"$0\" run hello --backend soft", minivmm.path],
            tool: URL(fileURLWithPath: "/bin/sh"))
        #expect(result.status == 125)
        #expect(result.diagnostics.contains("ulimit -v"), "\(result.diagnostics)")
    }

    /// A host error is not a verdict on the backend.
    @Test(.disabled(if: isSanitized, "the address sanitizer itself needs the address space"))
    func addressSpaceLimitFailsNoTest() throws {
        let minivmm = try #require(Command.executable)
        let scratch = try Scratch()
        let file = try scratch.file(
            "x.litmus",
            Array("test \"x\"\nmemory 1 pages shared\nvcpu0 write 0 0x41\nhost read 0 => 0x41\n".utf8))
        for arguments in [["litmus", file], ["explore"]] {
            let result = try Command.run(
                ["-c", "ulimit -v 900000; exec \"$0\" \"$@\" --backend soft", minivmm.path] + arguments,
                tool: URL(fileURLWithPath: "/bin/sh"))
            #expect(result.status == 125 && result.diagnostics.contains("ulimit -v"), "\(result.diagnostics)")
            #expect(!(result.output + result.diagnostics).contains("failed  "))
        }
    }

    /// The model can return ENOMEM too, so the backend must report that this one came from the host.
    @Test(
        .disabled(if: isSanitized, "the address sanitizer itself needs the address space"),
        arguments: [
            ["host create f 8388608 pages mmap"],
            ["host create f 4194304 pages mmap", "host map f:0..4194303 as v"],
        ])
    func hostMemoryShortageNamesTheStep(steps: [String]) throws {
        let minivmm = try #require(Command.executable)
        let scratch = try Scratch()
        let text = "test \"x\"\nmemory 1 pages shared\n\(steps.joined(separator: "\n"))\nhost read 0 => 0\n"
        let file = try scratch.file("x.litmus", Array(text.utf8))
        // 24 GiB is enough for all but the last step, which needs 32 GiB, or another 16 GiB.
        let result = try Command.run(
            ["-c", "ulimit -v 25165824; exec \"$0\" litmus --backend soft \(file)", minivmm.path],
            tool: URL(fileURLWithPath: "/bin/sh"))
        #expect(result.status == 125, "\(result.output)")
        let lastStep = try #require(steps.last)
        #expect(
            result.diagnostics.contains("the host ran out of a resource: \(lastStep): "),
            "\(result.diagnostics)")
    }

    /// By the time a guest runs, the monitor has dropped the privileges it does not need.
    @Test func monitorIsConfined() throws {
        let observed = Observation()
        let result = try Command.run(["run", "hang", "--backend", "soft", "--timeout", "600"]) { process in
            let path = "/proc/\(process.processIdentifier)/status"
            // At most 60 s, in case of a hang.
            for _ in 0..<6000 where !observed.isConfined {
                let status = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
                observed.isConfined = status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1")
                usleep(10_000)
            }
            process.terminate()
        }
        #expect(observed.isConfined || !Self.hasSeccomp)
        #expect(result.status == 128 + SIGTERM)
    }

    private static let isSanitized = ProcessInfo.processInfo.environment["ASAN_OPTIONS"] != nil

    private final class Observation: @unchecked Sendable {
        var isConfined = false
    }

    private static let hasSeccomp = FileManager.default.fileExists(
        atPath: "/proc/sys/kernel/seccomp/actions_avail")
}
