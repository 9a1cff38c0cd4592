// SPDX-License-Identifier: MIT
import Foundation
import Testing

@Suite(
    "The command: a crash of a guest", .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Command.runsGuests, Command.noGuests))
struct CrashTests {
    /// `_start` calls `work`, which calls `middle`, which calls `divide`, which divides by 0.
    private static let code: [UInt8] = [
        0x31, 0xed,  // _start: xor %ebp, %ebp
        0xe8, 0x23, 0x00, 0x00, 0x00, 0xf4,  // call work; hlt
        0x89, 0xf8, 0x99,  // 08 divide: mov %edi, %eax; cltd
        0xf7, 0xfe, 0xc3,  // 0b idiv %esi; ret
        0x55, 0x48, 0x89, 0xe5,  // 0e middle: push %rbp; mov %rsp, %rbp
        0x48, 0x83, 0xec, 0x10,  // sub $16, %rsp
        0xc7, 0x45, 0xfc, 0x00, 0x00, 0x00, 0x00,  // movl $0, -4(%rbp)
        0x8b, 0x75, 0xfc,  // mov -4(%rbp), %esi
        0xe8, 0xe3, 0xff, 0xff, 0xff,  // 20 call divide
        0x83, 0xc0, 0x01, 0xc9, 0xc3,  // add $1, %eax; leave; ret
        0x55, 0x48, 0x89, 0xe5,  // 2a work: push %rbp; mov %rsp, %rbp
        0xbf, 0x05, 0x00, 0x00, 0x00,  // mov $5, %edi
        0xe8, 0xd6, 0xff, 0xff, 0xff, 0x5d, 0xc3,  // 33 call middle; pop %rbp; ret
    ]
    private static let symbols: [(name: String, offset: UInt64)] = [
        ("_start", 0), ("divide", 8), ("middle", 0xe), ("work", 0x2a),
    ]

    /// A static ELF64 executable at 1 MiB with these symbols.
    private static var executable: [UInt8] {
        func little(_ value: UInt64, _ bytes: Int) -> [UInt8] {
            (0..<bytes).map { UInt8(truncatingIfNeeded: value >> (UInt64($0) * 8)) }
        }
        let base: UInt64 = 0x10_0000
        var names: [UInt8] = [0]
        var table: [UInt8] = []
        for symbol in symbols {
            // A function in section 1.
            table += little(UInt64(names.count), 4) + [0x12, 0] + little(1, 2)
            table += little(base + symbol.offset, 8) + little(0, 8)
            names += Array(symbol.name.utf8) + [0]
        }
        let (header, sections) = (120, 4 * 64)
        let codeAt = header + sections
        let (tableAt, namesAt) = (codeAt + code.count, codeAt + code.count + table.count)
        func section(_ type: UInt64, _ address: UInt64, _ offset: Int, _ size: Int, _ link: UInt64) -> [UInt8]
        {
            little(0, 4) + little(type, 4) + little(0, 8) + little(address, 8) + little(UInt64(offset), 8)
                + little(UInt64(size), 8) + little(link, 4) + little(0, 20)
        }
        var elf =
            [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + little(0, 9) + little(2, 2) + little(62, 2) + little(1, 4)
        elf += little(base, 8) + little(64, 8) + little(UInt64(header), 8) + little(0, 4) + little(64, 2)
        elf += little(56, 2) + little(1, 2) + little(64, 2) + little(4, 2) + little(0, 2)
        elf += little(1, 4) + little(7, 4) + little(UInt64(codeAt), 8) + little(base, 8) + little(base, 8)
        elf += little(UInt64(code.count), 8) + little(UInt64(code.count), 8) + little(4096, 8)
        elf += section(0, 0, 0, 0, 0) + section(1, base, codeAt, code.count, 0)
        elf += section(2, 0, tableAt, table.count, 3) + section(3, 0, namesAt, names.count, 0)
        return elf + code + table + names
    }

    @Test(arguments: ["soft", "auto"])
    func `the instruction, its function and the callers are named`(backend: String) throws {
        let scratch = try Scratch()
        let guest = try scratch.file("calls.elf", Self.executable)
        let text = try Command.run(["run", "-q", guest, "--backend", backend])
        #expect(text.status == 126)
        #expect(text.diagnostics.contains("divide error (#DE, vector 0)"), "\(text.diagnostics)")
        #expect(text.diagnostics.contains("f7 fe"))
        #expect(text.diagnostics.contains("in divide+0x3"))
        let json = try #require(try Command.run(["run", guest, "--backend", backend, "--json"]).json)
        let crash = try #require(json["crash"] as? [String: Any])
        #expect(crash["vector"] as? Int == 0 && crash["rip"] as? Int == 0x10_000b)
        #expect(crash["code"] as? String == "f7fe" && crash["symbol"] as? String == "divide+0x3")
        // A backend that hides private memory from the host cannot show the stack.
        let callers = crash["callers"] as? [String]
        #expect(callers == ["middle+0x17", "work+0xe", "_start+0x7"] || backend == "auto" && callers == nil)
    }

    @Test func `without symbols a crash has the address alone`() throws {
        let scratch = try Scratch()
        let result = try Command.run(["run", try scratch.file("code.bin", Self.code), "--json"])
        let crash = try #require(result.json?["crash"] as? [String: Any])
        #expect(crash["symbol"] == nil && crash["callers"] == nil && crash["rip"] as? Int == 0x10_000b)
    }
}
