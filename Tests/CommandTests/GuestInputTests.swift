// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import minivmm

@Suite("The command: run, with input")
struct GuestInputTests {
    @Test func `Ctrl-A is the escape`() {
        var keys = EscapedKeys()
        #expect(keys.take([0x61, 0x01]) == ([0x61], false))
        #expect(keys.take([0x01]) == ([0x01], false))
        #expect(keys.take([0x01, 0x61, 0x01, 0x7a, 0x62]) == ([0x01, 0x62], false))
        #expect(keys.take([0x63, 0x01, 0x78, 0x64]) == ([0x63], true))
    }

    /// Echoes its input, and ends with status 7 at a `q`.
    private static let echo: [UInt8] = [
        0xba, 0xfd, 0x03, 0x00, 0x00,  // mov $0x3fd, %edx
        0xec, 0xa8, 0x01, 0x74, 0xfb,  // 1: in %dx, %al; test $1, %al; jz 1b
        0xba, 0xf8, 0x03, 0x00, 0x00,  // mov $0x3f8, %edx
        0xec, 0x3c, 0x71, 0x74, 0x03,  // in %dx, %al; cmp $'q', %al; je 2f
        0xee, 0xeb, 0xe9,  // out %al, %dx; jmp to the start
        0xb0, 0x07, 0xe6, 0xf4,  // 2: mov $7, %al; out %al, $0xf4
    ]

    /// A script in which $0 is minivmm.
    private func shell(_ script: String) throws -> Command.Result {
        let minivmm = try #require(Command.executable)
        return try Command.run(["-c", script, minivmm.path], tool: URL(fileURLWithPath: "/bin/sh"))
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests))
    func `a guest reads standard input, and leaves the rest of it`() throws {
        let scratch = try Scratch()
        let guest = try scratch.file("echo.bin", Self.echo)
        let result = try shell("printf 'one\\ntwo q' | { \"$0\" run -q \(guest) --timeout 60; echo \"$?\"; }")
        #expect(result.output == "one\ntwo 7\n")
        // hello reads nothing.
        let rest = try shell("printf 'rest\\n' | { \"$0\" run -q hello >/dev/null; cat; }")
        #expect(rest.output == "rest\n")
    }

    @Test(.enabled(if: Command.runsGuests, Command.noGuests))
    func `HLT has a status of its own, and port 0xf4 can have QEMU's meaning`() throws {
        let scratch = try Scratch()
        let halt = try Command.run(["run", "-q", try scratch.file("halt.bin", [0xf4])])
        #expect(halt.status == 127 && halt.diagnostics.contains("port 0xf4"), "\(halt.diagnostics)")
        for (value, status) in [(0, 1), (3, 7), (0x7f, 0xff), (0xff, 0xff)] as [(UInt8, Int32)] {
            // mov $VALUE, %al; out %al, $0xf4
            let guest = try scratch.file("exit.bin", [0xb0, value, 0xe6, 0xf4])
            #expect(try Command.run(["run", "-q", guest, "--exit-code", "qemu"]).status == status)
            let json = try #require(try Command.run(["run", guest, "--exit-code", "qemu", "--json"]).json)
            #expect(json["status"] as? Int == Int(status))
        }
        #expect(try Command.run(["run", "hello", "--exit-code", "kvm"]).status == 64)
    }
}
