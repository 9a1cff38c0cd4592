// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// What `run` recognises, says and refuses.
@Suite(
    "The command: run, images", .enabled(if: Command.isBuilt, Command.missing),
    .enabled(if: Command.runsGuests, Command.noGuests))
struct ImageTests {
    /// mov $42, %al; out %al, $0xf4: the same bytes in every mode.
    private static let code: [UInt8] = [0xb0, 42, 0xe6, 0xf4]

    private func little(_ value: UInt64, _ bytes: Int) -> [UInt8] {
        (0..<bytes).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    /// An ELF32 file with a Multiboot header that exits with 42.
    private var kernel: [UInt8] {
        var elf: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 1, 1, 1] + little(0, 9) + little(2, 2) + little(3, 2)
        elf += little(1, 4) + little(0x10_000c, 4) + little(52, 4) + little(0, 8) + little(52, 2)
        elf += little(32, 2) + little(1, 2) + little(0, 6)
        elf += little(1, 4) + little(84, 4) + little(0x10_0000, 4) + little(0x10_0000, 4)
        elf += little(16, 4) + little(16, 4) + little(7, 4) + little(4096, 4)
        return elf + little(0x1bad_b002, 4) + little(0, 4) + little(0xe452_4ffe, 4) + Self.code
    }

    @Test func theFormatIsSaidAsTextAndAsJSON() throws {
        let scratch = try Scratch()
        let file = try scratch.file("kernel.elf", kernel)
        let result = try Command.run(["run", file])
        #expect(result.status == 42, "\(result.diagnostics)")
        #expect(
            result.diagnostics.hasPrefix("image    ELF32 with a Multiboot 1 header, 32-bit protected mode,"))
        let json = try #require(try Command.run(["run", file, "--json"]).json?["image"] as? [String: Any])
        #expect(json["format"] as? String == "multiboot" && json["mode"] as? String == "protected")
        #expect(json["entry"] as? Int == 0x10_000c)
        #expect((json["description"] as? String)?.contains("entry 0x10000c") == true)
        let builtIn = try Command.run(["run", "hello"])
        #expect(!builtIn.diagnostics.contains("image    "))
        #expect(try Command.run(["run", "hello", "--json"]).json?["image"] is NSNull)
    }

    @Test func flatImagesTakeAModeAnAddressAndRegisters() throws {
        let scratch = try Scratch()
        let flat = try scratch.file("flat.bin", Self.code)
        for (arguments, summary) in [
            (["--mode", "real"], "flat image, real mode, entry 0x7c00"),
            (["--mode", "protected", "--load-address", "0x2000"], "32-bit protected mode, entry 0x2000"),
            (["--load-address", "0"], "64-bit mode, entry 0x0"),
        ] {
            let result = try Command.run(["run", flat] + arguments)
            #expect(result.status == 42 && result.diagnostics.contains(summary), "\(result.diagnostics)")
        }
        let skipping = try scratch.file("skip.bin", [0xf4] + Self.code)
        #expect(try Command.run(["run", skipping, "--entry", "0x100001"]).status == 42)
        // out %al, $0xf4, with AL from the option; a register by each of its names.
        let out = try scratch.file("out.bin", [0xe6, 0xf4])
        for name in ["rax", "EAX", "ax"] {
            #expect(try Command.run(["run", out, "--register", "\(name)=0x11"]).status == 17)
        }
        for wrong in ["rax", "rip=1", "rax=x", "=1", "rax=0x10000000000000000"] {
            #expect(try Command.run(["run", out, "--register", wrong]).status == 64, "\(wrong)")
        }
    }

    @Test func modulesAreReadAndMissingOnesAreNamed() throws {
        let scratch = try Scratch()
        let file = try scratch.file("kernel.elf", kernel)
        let module = try scratch.file("a=b", [1, 2, 3])
        #expect(
            try Command.run(["run", file, "--module", module, "--module", "\(module)=text"]).status == 42)
        let missing = try Command.run(["run", file, "--module", scratch.path("nothing") + "=text"])
        #expect(
            missing.status == 125 && missing.diagnostics.contains("nothing: cannot be read: No such file"))
        let large = try scratch.file("large", [UInt8](repeating: 0, count: 2 << 20))
        let tooLarge = try Command.run(["run", file, "--ram", "1M", "--module", large])
        #expect(tooLarge.status == 125 && tooLarge.diagnostics.contains("larger than the guest's RAM"))
    }

    @Test func optionsThatDoNotGoTogetherAreRefused() throws {
        let scratch = try Scratch()
        let file = try scratch.file("kernel.elf", kernel)
        let flat = try scratch.file("flat.bin", Self.code)
        for (arguments, words) in [
            (["hello", "--mode", "real"], "hello: --mode is for guests from a file"),
            ([flat, "--cmdline", "x"], "--cmdline is for Multiboot and PVH guests"),
            ([file, "--load-address", "0"], "--load-address is for flat images"),
            ([file, "--mode", "real"], "--mode real: this is an ELF32 with a Multiboot 1 header"),
            ([file, "--vcpus", "2"], "such a guest starts on one vCPU"),
            (
                [flat, "--mode", "real", "--vm", "snp"],
                "an SNP or TDX guest starts in 64-bit mode, this image in real mode"
            ),
        ] {
            let result = try Command.run(["run"] + arguments)
            #expect(
                result.status == 125 && result.diagnostics.contains(words), "\(words): \(result.diagnostics)")
        }
    }

    /// Files that are no guests are named, with what to do.
    @Test func otherFilesAreNamed() throws {
        let scratch = try Scratch()
        var linux = [UInt8](repeating: 0, count: 2048)
        linux.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
        var program = [UInt8](repeating: 0, count: 1024)
        program.replaceSubrange(0..<2, with: Array("MZ".utf8))
        program[0x3c] = 0x80
        program.replaceSubrange(0x80..<0x84, with: [0x50, 0x45, 0, 0])
        var arm = kernel
        arm[18] = 40
        var object = kernel
        object[16] = 1
        var dynamic = kernel
        dynamic[16] = 3
        var cd = [UInt8](repeating: 0, count: 0x8800)
        cd.replaceSubrange(0x8001..<0x8006, with: Array("CD001".utf8))
        for (name, bytes, words) in [
            ("vmlinuz", linux, "a Linux kernel with BIOS setup code (bzImage), not a guest"),
            ("loader.efi", program, "a PE program, for UEFI or Windows, not a guest"),
            ("vmlinux.gz", [0x1f, 0x8b, 8, 0, 0], "a file compressed with gzip, not a guest"),
            ("lib.a", Array("!<arch>\n".utf8) + [0, 1], "an archive of object files, not a guest"),
            ("disk.qcow2", [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3], "a disk image (qcow2), not a guest"),
            ("cd.iso", cd, "a disk image (ISO 9660), not a guest"),
            ("arm.elf", arm, "ELF machine 40 (ARM): this is not an x86 file (3)"),
            ("a.o", object, "an object file: link it"),
            ("a.out", dynamic, "link it with -static -no-pie"),
        ] as [(String, [UInt8], String)] {
            let result = try Command.run(["run", try scratch.file(name, bytes)])
            #expect(
                result.status == 125 && result.diagnostics.contains(words), "\(name): \(result.diagnostics)")
        }
    }
}
