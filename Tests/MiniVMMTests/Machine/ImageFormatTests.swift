// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

@Suite("Formats of images")
struct ImageFormatTests {
    private func complaint(_ bytes: [UInt8], _ options: ImageOptions = ImageOptions()) -> String? {
        do throws(ImageError) {
            _ = try BootImage.parse(bytes, options).prepared(options, ramSize: 16 << 20)
            return nil
        } catch {
            return error.description
        }
    }

    private let code: [UInt8] = [0xfa, 0xf4]
    private let base = UInt64(ForeignGuest.base)

    @Test func everyFormatIsRecognised() throws {
        let multiboot = ForeignGuest.multibootCode()
        let multiboot2 = ForeignGuest.multiboot2Header() + ForeignGuest.multiboot2
        let note = ForeignGuest.note(entry: base)
        let cases: [([UInt8], String, String)] = [
            (ForeignGuest.elf(code), "elf32", "ELF32, 32-bit protected mode, entry 0x100000"),
            (ForeignGuest.elf(code, wide: true), "elf64", "ELF64, 64-bit mode, entry 0x100000"),
            (
                ForeignGuest.elf(multiboot, entry: base + 12), "multiboot",
                "ELF32 with a Multiboot 1 header, 32-bit protected mode, entry 0x10000c"
            ),
            (
                ForeignGuest.multibootFlat(), "multiboot",
                "flat image with a Multiboot 1 header, 32-bit protected mode, entry 0x100020"
            ),
            (
                ForeignGuest.elf(multiboot2, entry: base + 24, wide: true), "multiboot2",
                "ELF64 with a Multiboot 2 header, 32-bit protected mode, entry 0x100018"
            ),
            (
                ForeignGuest.elf(code, note: note), "pvh",
                "ELF32 with a PVH entry point, 32-bit protected mode, entry 0x100000"
            ),
            (ForeignGuest.bootSector, "boot-sector", "boot sector, real mode, entry 0x7c00"),
            (code, "flat", "flat image, 64-bit mode, entry 0x100000"),
        ]
        for (bytes, name, summary) in cases {
            let image = try BootImage.parse(bytes)
            #expect(image.format.name == name && image.summary == summary)
        }
        #expect(try BootImage.parse(ForeignGuest.bootSector).registers == [.rdx: 0x80])
        // A boot sector with an option is a flat image. So is a file whose Multiboot header is not to be used.
        var options = ImageOptions(mode: .protected)
        #expect(try BootImage.parse(ForeignGuest.bootSector, options).format == .flat)
        options.loadAddress = 0x1234
        options.entry = 0x1236
        let image = try BootImage.parse(ForeignGuest.multibootFlat(), options)
        #expect(image.segments.map(\.gpa) == [0x1234] && image.entry == 0x1236 && image.mode == .protected)
        #expect(try BootImage.parse(code, ImageOptions(mode: .real)).entry == 0x7c00)
    }

    /// The order in which QEMU asks, too: Multiboot before PVH.
    @Test func multibootComesBeforePVH() throws {
        let file = ForeignGuest.elf(
            ForeignGuest.multibootCode(), entry: base + 12, note: ForeignGuest.note(entry: base))
        #expect(try BootImage.parse(file).format == .multiboot(.elf32))
    }

    /// A kernel that is linked high and loaded low enters at the physical address of its entry.
    @Test func entryOfAHigherHalfKernelIsPhysical() throws {
        var elf = ELFBuilder()
        elf.segments = [
            .init(virtual: 0xc010_0000, physical: base, content: ForeignGuest.multibootCode())
        ]
        elf.entry = 0xc010_000c
        #expect(try BootImage.parse(elf.bytes32).entry == base + 12)
        elf.entry = base + 12
        #expect(try BootImage.parse(elf.bytes32).entry == base + 12)
        elf.entry = 0xc020_0000
        #expect(complaint(elf.bytes32)?.contains("entry point 0xc0200000 is not in any loaded") == true)
    }

    @Test func optionsThatDoNotGoWithTheFormat() {
        let elf = ForeignGuest.elf(code)
        let multiboot = ForeignGuest.elf(ForeignGuest.multibootCode(), entry: base + 12)
        let cases: [([UInt8], (inout ImageOptions) -> Void, String)] = [
            (elf, { $0.loadAddress = 1 }, "--load-address is for flat images"),
            (elf, { $0.entry = 1 }, "--entry is for flat images"),
            (
                elf, { $0.commandLine = "x" },
                "--cmdline is for Multiboot and PVH guests: nothing passes it to this one"
            ),
            (
                code, { $0.modules = [.init(name: "m", bytes: [1], text: "m")] },
                "--module is for Multiboot and PVH"
            ),
            (ForeignGuest.bootSector, { $0.commandLine = "" }, "--cmdline is for Multiboot and PVH guests"),
            (multiboot, { $0.mode = .long }, "--mode long: this is an ELF32 with a Multiboot 1 header"),
            (code, { $0.entry = 0xf_ffff }, "--entry 0xfffff is not in the image, [0x100000, 0x100002)"),
            (code, { $0.entry = 0x10_0002 }, "--entry 0x100002 is not in the image"),
            (code, { $0.loadAddress = .max }, "extends past the last page"),
            (code, { ($0.mode, $0.loadAddress) = (.real, 0xf_ffff) }, "is not below 0x100000"),
            (code, { ($0.mode, $0.loadAddress) = (.protected, 0xffff_ffff) }, "is not below 0x100000000"),
            (
                multiboot, { $0.commandLine = String(repeating: "x", count: 20_000) },
                "20000 bytes; the limit is 16384"
            ),
            (
                multiboot,
                { $0.modules = [.init(name: "m", bytes: .init(repeating: 0, count: 16 << 20), text: "m")] },
                "there is no room for module 0 (16777216 bytes)"
            ),
        ]
        for (bytes, change, words) in cases {
            var options = ImageOptions()
            change(&options)
            let message = complaint(bytes, options)
            #expect(message?.contains(words) == true, "\(words): \(message ?? "accepted")")
        }
    }

    @Test func lyingMultibootHeaders() {
        func elf(_ code: [UInt8]) -> [UInt8] { ForeignGuest.elf(code, entry: base + 12) }
        var checksum = ForeignGuest.multibootCode()
        checksum[8] ^= 1
        let cut = Array(ForeignGuest.multibootCode().prefix(10))
        let b = ForeignGuest.base
        let cases: [([UInt8], String)] = [
            (
                elf(checksum),
                "the Multiboot header at byte 88: its checksum is 0xe4524fff and should be 0xe4524ffe"
            ),
            (elf(ForeignGuest.multibootCode(flags: 8)), "it requires features that do not exist (flags 0x8)"),
            (ForeignGuest.multibootCode(), "it has no load addresses (flag 16), and the file is not ELF"),
            (cut, "the Multiboot header, checksum needs bytes 8 to 12, the file has 10"),
            (
                Array(ForeignGuest.multibootFlat().prefix(30)),
                "the Multiboot header, entry_addr needs bytes 28 to 32"
            ),
            (ForeignGuest.multibootFlat(load: b + 4), "load_addr 0x100004 is above header_addr 0x100000"),
            (ForeignGuest.multibootFlat(load: b - 4), "load_addr 0xffffc is before the start of the file"),
            (ForeignGuest.multibootFlat(loadEnd: b), "load_end_addr 0x100000 is not above load_addr"),
            (ForeignGuest.multibootFlat(loadEnd: b + 4096), "it loads 4096 bytes, of which the file has"),
            (ForeignGuest.multibootFlat(zeroEnd: b + 1), "bss_end_addr 0x100001 is below the end"),
            (ForeignGuest.multibootFlat(entry: b - 1), "entry_addr 0xfffff is outside of [0x100000, 0x"),
            (ForeignGuest.multibootFlat(entry: .max), "entry_addr 0xffffffff is outside of [0x100000, 0x"),
        ]
        for (bytes, words) in cases {
            let message = complaint(bytes)
            #expect(message?.contains(words) == true, "\(words): \(message ?? "accepted")")
        }
    }

    @Test func lyingMultiboot2Headers() {
        func elf(_ header: [UInt8]) -> [UInt8] {
            ForeignGuest.elf(header + ForeignGuest.multiboot2, entry: base + UInt64(header.count))
        }
        func header(_ tags: (UInt16, UInt16, [UInt32])...) -> [UInt8] { ForeignGuest.multiboot2Header(tags) }
        func with(_ word: UInt32, at offset: Int) -> [UInt8] {
            var bytes = header()
            bytes.replaceSubrange(offset..<offset + 4, with: ELFBuilder.little(word))
            return bytes
        }
        /// With a checksum that is right for the length.
        func length(_ length: UInt32) -> [UInt8] {
            var bytes = with(length, at: 8)
            bytes.replaceSubrange(12..<16, with: ELFBuilder.little(0 &- 0xe852_50d6 &- length as UInt32))
            return bytes
        }
        let b = ForeignGuest.base
        let cases: [([UInt8], String)] = [
            (elf(with(0, at: 12)), "its checksum is 0x0 and should be"),
            (elf(length(20)), "it has no end tag in its 20 bytes"),
            (elf(with(7, at: 20)), "has 7 bytes, which is too few or too many"),
            (elf(with(0xffff_fff0, at: 20)), "has 4294967280 bytes, which is too few or too many"),
            (elf(header((5, 0, [1024, 768, 32]))), "it requires a framebuffer"),
            (elf(header((4, 0, [1]))), "it requires a text console"),
            (elf(header((1, 0, [4, 14]))), "it requires information of type 14"),
            (elf(header((77, 0, []))), "it requires the feature of tag 77"),
            (elf(header((3, 0, []))), "is too short"),
            (elf(header((2, 0, [b, b, 0, 0]))), "it has an address tag but no entry address tag"),
            (
                elf(header((3, 0, [5]))),
                "entry_addr of the Multiboot 2 header 0x5 is not in any loaded segment"
            ),
            (header() + ForeignGuest.multiboot2, "it has no address tag, and the file is not ELF"),
            (Array(header().prefix(14)), "the Multiboot 2 header, checksum needs bytes 12 to 16"),
        ]
        for (bytes, words) in cases {
            let message = complaint(bytes)
            #expect(message?.contains(words) == true, "\(words): \(message ?? "accepted")")
        }
        // Optional and harmless tags are left out.
        for tags in [
            [(5, 1, [1024, 768, 32])], [(77, 1, [])], [(1, 1, [14])], [(1, 0, [1, 3, 6])], [(6, 0, [])],
            [(4, 0, [2])],
        ] as [[(UInt16, UInt16, [UInt32])]] {
            #expect(complaint(elf(ForeignGuest.multiboot2Header(tags))) == nil, "\(tags)")
        }
    }

    @Test func lyingNotes() throws {
        func elf(_ note: [UInt8]) -> [UInt8] { ForeignGuest.elf(code, note: note) }
        var long = ForeignGuest.note(entry: base)
        long[4] = 0xff
        let cases: [([UInt8], String)] = [
            (
                elf(ForeignGuest.note(entry: 0x5000)),
                "XEN_ELFNOTE_PHYS32_ENTRY 0x5000 is not in any loaded segment"
            ),
            (elf(long), "program header 1: a note extends past the end of its segment"),
            (elf(ForeignGuest.note(entry: base, size: 2) + [0, 0]), "program header 1: a note has 2 bytes"),
            (elf(ForeignGuest.note(entry: 1 << 32, size: 8)), "has the entry point 0x100000000, above 4 GiB"),
        ]
        for (bytes, words) in cases {
            let message = complaint(bytes)
            #expect(message?.contains(words) == true, "\(words): \(message ?? "accepted")")
        }
        // Other notes come before it, and a file with other notes alone is a plain executable.
        let other = ForeignGuest.note(entry: 7, type: 6)
        #expect(try BootImage.parse(elf(other + ForeignGuest.note(entry: base))).format == .pvh(.elf32))
        #expect(try BootImage.parse(elf(other)).format == .elf(.elf32))
    }

    @Test func filesThatAreNoGuestsOfThisMachine() {
        let disk = ForeignGuest.bootSector + [UInt8](repeating: 0, count: 1024)
        #expect(complaint(disk)?.contains("looks like a disk image (3 sectors") == true)
        var elf = ELFBuilder()
        elf.machine = 40
        #expect(complaint(elf.bytes32)?.contains("ELF machine 40 (ARM): this is not an x86 file (3)") == true)
        elf.machine = 62
        #expect(
            complaint(elf.bytes32.enumerated().map { $0.offset == 18 ? 62 : $0.element })?.contains("x32")
                == true)
    }

    @Test func everyTruncationIsRefusedOrAFlatImage() {
        for file in [
            ForeignGuest.elf(ForeignGuest.multibootCode(), entry: base + 12), ForeignGuest.multibootFlat(),
            ForeignGuest.elf(code, note: ForeignGuest.note(entry: base)),
        ] {
            for length in 0..<file.count
            where file.count - length > ForeignGuest.multiboot.count || file[0] == 0x7f {
                let cut = Array(file.prefix(length))
                #expect(complaint(cut) != nil || (try? BootImage.parse(cut).format) == .flat, "\(length)")
            }
        }
    }

    // MARK: what is handed over

    /// The structures and the modules are in RAM, overlap nothing, and are where EBX and the structure say.
    @Test func structuresAndModulesHavePlacesOfTheirOwn() throws {
        for place in [0, 0x9000, 0x1_0000, 0x10_0000, 0x80_0000] as [UInt64] {
            var elf = ELFBuilder()
            elf.segments = [
                .init(virtual: place, content: ForeignGuest.multibootCode(), size: 0x5_0000),
                .init(virtual: place + 0x20_0000, content: [1], size: 3),
            ]
            elf.entry = place + 12
            var options = ImageOptions()
            options.modules = (1...5).map {
                .init(name: "m", bytes: .init(repeating: 7, count: $0 * 3000), text: "m")
            }
            let ram: UInt64 = 16 << 20
            let image = try BootImage.parse(elf.bytes32, options).prepared(options, ramSize: ram)
            let layout = try GuestLayout(
                ramSize: ram, vcpus: 1, sharedBit: nil, gigabytePages: false, image: image)
            #expect(image.segments.count == 8 && image.registers[.rax] == 0x2bad_b002)
            #expect(image.registers[.rbx] == image.segments.last?.gpa)
            let parts =
                image.segments.map { $0.gpa..<$0.gpa + $0.size }
                + [layout.gdt..<layout.gdt + 2 * pageSize, layout.stacks..<layout.stackTop(0)]
            for (index, part) in parts.enumerated() {
                #expect(part.upperBound <= ram)
                for other in parts.dropFirst(index + 1) {
                    #expect(!part.overlaps(other), "\(place): \(part) \(other)")
                }
            }
            #expect(image.segments.dropFirst(2).allSatisfy { $0.gpa % pageSize == 0 })
        }
    }

    @Test func confidentialGuestsAreOf64Bits() throws {
        var configuration = MachineConfiguration()
        configuration.setType(.snp)
        let image = try BootImage.parse(ForeignGuest.bootSector)
        #expect(throws: MachineError.self) {
            _ = try Machine(
                backend: FakeBackend(), configuration: configuration, image: image, console: Console(nil))
        }
        var two = MachineConfiguration()
        two.vcpus = 2
        do throws(MachineError) {
            _ = try Machine(backend: FakeBackend(), configuration: two, image: image, console: Console(nil))
            Issue.record("two vCPUs start a boot sector")
        } catch {
            #expect(error.description.contains("boot sector: such a guest starts on one vCPU"))
        }
    }
}
