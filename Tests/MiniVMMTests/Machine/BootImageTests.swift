// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

@Suite("Boot images")
struct BootImageTests {
    private func complaint(_ change: (inout ELFBuilder) -> Void) -> String? {
        var elf = ELFBuilder()
        change(&elf)
        return complaint(about: elf.bytes)
    }

    private func complaint(about bytes: [UInt8]) -> String? {
        do throws(ImageError) {
            _ = try BootImage.parse(bytes)
            return nil
        } catch {
            return error.description
        }
    }

    @Test func aValidExecutableIsParsed() throws {
        var elf = ELFBuilder()
        elf.segments = [
            .init(virtual: 0x20_0000, content: [1, 2, 3]),
            .init(type: 4, virtual: 0x1234, content: [9, 9]),  // a note is not loaded
            .init(virtual: 0x30_0123, content: [4, 5], size: 0x2000),
            .init(virtual: 0x40_0000, content: [], size: 0x1000),  // .bss alone
            .init(virtual: 0x50_0000, content: []),  // nothing at all
        ]
        elf.entry = 0x20_0002
        let image = try BootImage.parse(elf.bytes)
        #expect(image.entry == 0x20_0002)
        #expect(image.segments.map(\.gpa) == [0x20_0000, 0x30_0123, 0x40_0000])
        #expect(image.segments.map(\.bytes) == [[1, 2, 3], [4, 5], []])
        #expect(image.segments.map(\.size) == [3, 0x2000, 0x1000])
        #expect(image.segments.map(\.content) == [.segment(0), .segment(2), .segment(3)])
    }

    @Test func programHeadersMayBeLargerThanNeeded() throws {
        var elf = ELFBuilder()
        elf.entrySize = 64
        #expect(try BootImage.parse(elf.bytes).segments.count == 1)
    }

    @Test func aFlatImageIsLoadedAtOneMegabyte() throws {
        let image = try BootImage.parse([0x90, 0xf4])
        #expect(image.entry == 0x10_0000)
        #expect(image.segments.map(\.gpa) == [0x10_0000])
        #expect(image.segments.map(\.bytes) == [[0x90, 0xf4]])
        // Four bytes with another beginning are code, however short.
        #expect(try BootImage.parse([0x7f, 0x45, 0x4c, 0x47]).entry == 0x10_0000)
    }

    @Test func emptyAndTruncatedMagic() {
        #expect(complaint(about: []) == "the image is empty")
        #expect(complaint(about: [0x7f]) == "the file ends at byte 1, inside the ELF magic")
        #expect(complaint(about: [0x7f, 0x45, 0x4c]) == "the file ends at byte 3, inside the ELF magic")
    }

    /// Each wrong field, and the words of its message.
    @Test func everyWrongFieldIsReported() {
        let cases: [(String, (inout ELFBuilder) -> Void)] = [
            ("class 0 is unknown", { $0.kind = 0 }),
            ("class 3 is unknown", { $0.kind = 3 }),
            ("encoding 2", { $0.order = 2 }),
            ("machine 3 (80386) in an ELF64 file", { $0.machine = 3 }),
            ("machine 183 (AArch64): this is not an x86 file", { $0.machine = 183 }),
            ("machine 9999: this", { $0.machine = 9999 }),
            ("an object file: link it", { $0.type = 1 }),
            ("-static -no-pie", { $0.type = 3 }),
            ("a core dump", { $0.type = 4 }),
            ("ELF type 65024, unknown", { $0.type = 0xfe00 }),
            ("e_phentsize is 0", { $0.entrySize = 0 }),
            ("e_phentsize is 55", { $0.entrySize = 55 }),
            ("program header 0 starts past the end", { $0.tableOffset = 1 << 40 }),
            ("program header 0 starts past the end", { $0.tableOffset = .max }),
            ("program header 0, p_type needs bytes", { $0.tableOffset = 122 }),
            (
                "program header 0, p_vaddr needs bytes",
                {
                    $0.tableOffset = 120
                    $0.segments[0].content = [1] + [UInt8](repeating: 0, count: 15)
                }
            ),
            ("program header 2", { $0.count = 3 }),
            ("an ELF file needs a PT_LOAD segment", { $0.count = 0 }),
            ("an ELF file needs a PT_LOAD segment", { $0.segments[0].type = 6 }),
            ("program header 0 asks for an interpreter", { $0.segments[0].type = 3 }),
            (
                "program header 0 is linked for 0x200000 but loads at 0x300000",
                { $0.segments[0].physical = 0x30_0000 }
            ),
            ("program header 0 has 4 bytes in the file for 3 in memory", { $0.segments[0].size = 3 }),
            (
                "program header 0 wraps around the address space",
                {
                    $0.segments[0].virtual = .max - 1
                    $0.entry = .max - 1
                }
            ),
            (
                "program header 0 needs bytes 120 to 1120",
                {
                    $0.segments[0].fileSize = 1000
                    $0.segments[0].size = 1000
                }
            ),
            ("program header 0 needs bytes", { $0.segments[0].offset = .max }),
            ("entry point 0x1fffff is not in any loaded segment", { $0.entry = 0x1f_ffff }),
            ("entry point 0x200004 is not in any loaded segment", { $0.entry = 0x20_0004 }),
        ]
        for (words, change) in cases {
            let message = complaint(change)
            #expect(message?.contains(words) == true, "\(words): \(message ?? "accepted")")
        }
    }

    @Test func everyTruncationOfAValidExecutableIsRefused() {
        let bytes = ELFBuilder().bytes
        for length in 0..<bytes.count {
            let message = complaint(about: Array(bytes.prefix(length)))
            #expect(message != nil, "\(length) of \(bytes.count) bytes")
        }
        #expect(complaint(about: bytes) == nil)
    }

    // MARK: valid addresses of segments

    private func layout(_ segments: [ELFBuilder.Segment], ram: UInt64 = 16 << 20) -> String? {
        var elf = ELFBuilder()
        elf.segments = segments
        elf.entry = segments[0].virtual
        do {
            _ = try GuestLayout(
                ramSize: ram, vcpus: 2, sharedBit: nil, gigabytePages: true,
                image: try BootImage.parse(elf.bytes))
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// An image over the GDT, the boot information page, the page tables or the stacks moves them to the end of RAM.
    @Test func theMonitorsPartsMakeRoomForTheImage() throws {
        for at in [
            0, 0x0ff8, 0x1000, 0x2ff8, 0x3000, 0x4ff0, 0x3_fff8, 0x4_0000, 0x4_7fff, 0x0ff0, 0x5000, 0x4_8000,
        ] as [UInt64] {
            var elf = ELFBuilder()
            elf.segments = [.init(virtual: at, content: [UInt8](repeating: 0x90, count: 16))]
            elf.entry = at
            let layout = try GuestLayout(
                ramSize: 16 << 20, vcpus: 2, sharedBit: nil, gigabytePages: true,
                image: try BootImage.parse(elf.bytes))
            let image = at..<at + 16
            let parts = [
                layout.gdt..<layout.gdt + pageSize,
                layout.bootInformation..<layout.bootInformation + pageSize,
                layout.tables.start..<layout.tables.start + layout.tables.size,
                layout.stacks..<layout.stackTop(1), image,
            ]
            for (index, part) in parts.enumerated() {
                for other in parts.dropFirst(index + 1) { #expect(!part.overlaps(other), "\(at)") }
                #expect(part.upperBound <= layout.ramSize && !part.overlaps(layout.free), "\(at)")
            }
            #expect((layout.gdt == 0x1000) == [0, 0x0ff0, 0x5000, 0x4_8000].contains(at), "\(at)")
        }
    }

    @Test func anImageThatFillsRAMLeavesNoRoom() {
        let code = [UInt8](repeating: 0x90, count: 16)
        let message = layout([.init(virtual: 0, content: code, size: 2 << 20)], ram: 2 << 20)
        #expect(message?.contains("there is no room for the GDT") == true, "\(message ?? "accepted")")
        // Exactly enough: GDT, information page, two pages of tables, two stacks.
        #expect(layout([.init(virtual: 0, content: code, size: 2 << 20 - 0xc000)], ram: 2 << 20) == nil)
        #expect(layout([.init(virtual: 0, content: code, size: 2 << 20 - 0xb000)], ram: 2 << 20) != nil)
    }

    @Test func segmentsMayNotOverlapEachOther() {
        let code = [UInt8](repeating: 0x90, count: 16)
        let message = layout([
            .init(virtual: 0x20_0000, content: code), .init(virtual: 0x20_000f, content: code),
        ])
        #expect(message?.contains("segment 1") == true && message?.contains("overlaps segment 0") == true)
        #expect(
            layout([.init(virtual: 0x20_0000, content: code), .init(virtual: 0x20_0010, content: code)])
                == nil)
    }

    @Test func segmentsMustBeInRAM() {
        let code = [UInt8](repeating: 0x90, count: 16)
        #expect(layout([.init(virtual: 0xff_fff0, content: code)]) == nil)
        #expect(layout([.init(virtual: 0xff_fff1, content: code)])?.contains("does not fit into RAM") == true)
        #expect(layout([.init(virtual: 1 << 60, content: code)])?.contains("does not fit into RAM") == true)
        #expect(
            layout([.init(virtual: 0x20_0000, content: code, size: 1 << 62)])?.contains(
                "does not fit into RAM")
                == true)
    }
}
