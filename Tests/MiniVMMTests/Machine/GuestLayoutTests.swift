// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

/// One combination of the options that determine a guest's layout.
struct LayoutCase: Sendable, CustomTestStringConvertible {
    let ram: UInt64
    let sharedBit: Int?
    let gigabytePages: Bool

    var testDescription: String {
        "\(ram >> 20) MiB, \(sharedBit.map { "shared bit \($0)" } ?? "one alias"), "
            + (gigabytePages ? "1 GiB pages" : "2 MiB pages")
    }

    static let all: [LayoutCase] = {
        let sizes: [UInt64] = [
            1 << 20, 1 << 20 | 4096, 2 << 20, 16 << 20, 1 << 30, 1 << 32, 1 << 32 | 4096, 5 << 30 | 4096,
            64 << 30, 256 << 30, 1 << 39, 1 << 39 | 1 << 30, 1 << 40 - 4096, 1 << 40,
        ]
        var cases: [LayoutCase] = []
        for ram in sizes {
            for bit in [nil, 35, 38, 39, 45, 46] where bit.map({ ram <= 1 << UInt64($0) }) ?? true {
                for gigabytePages in [true, false] {
                    cases.append(LayoutCase(ram: ram, sharedBit: bit, gigabytePages: gigabytePages))
                }
            }
        }
        return cases
    }()
}

@Suite("Guest layout and page tables")
struct GuestLayoutTests {
    /// Translates an address as an x86-64 CPU does; nil for a fault.
    ///
    /// - Parameter tableAlias: bits that must be set in every entry that points to a table.
    private func walk(
        _ words: [UInt64], start: UInt64, _ address: UInt64, tableAlias: UInt64 = 0
    ) -> UInt64? {
        var table = start
        for level in stride(from: 39, through: 12, by: -9) as StrideThrough<UInt64> {
            let index = table - start + (address >> level & 511) * 8
            guard index / 8 < UInt64(words.count) else { return nil }
            let entry = words[Int(index / 8)]
            // Present and writable, and no reserved bit of a 52-bit address set.
            guard entry & 3 == 3, entry >> 52 == 0 else { return nil }
            if level == 12 || entry & 0x80 != 0 {
                guard level < 39, entry & 0x000f_ffff_ffff_e000 & ((1 << level) - 1) == 0 else { return nil }
                return entry & 0x000f_ffff_ffff_f000 & ~((1 << level) - 1) | address & ((1 << level) - 1)
            }
            guard entry & tableAlias == tableAlias else { return nil }
            table = entry & 0x000f_ffff_ffff_f000 & ~tableAlias
            guard table >= start else { return nil }
        }
        return nil
    }

    @Test(arguments: LayoutCase.all)
    func everyAddressOfBothAliasesIsMappedToItself(_ machine: LayoutCase) throws {
        let layout = try GuestLayout(
            ramSize: machine.ram, vcpus: 16, sharedBit: machine.sharedBit,
            gigabytePages: machine.gigabytePages, image: try lowImage())
        let words = layout.tables.words()
        #expect(UInt64(words.count) * 8 == layout.tables.size)

        var generator = Generator(seed: machine.ram)
        let span = max(machine.ram, 1 << 32)
        var samples: [UInt64] = [0, 4095, 4096, 1 << 20, machine.ram - 1, span - 1, layout.tables.start]
        for _ in 0..<64 { samples.append(generator.next() % span) }
        for gigabyte in stride(from: 0, to: span, by: 1 << 30) { samples += [gigabyte, gigabyte + 1 << 21] }
        let aliases = [0] + (machine.sharedBit.map { [1 << UInt64($0)] } ?? []) as [UInt64]
        for sample in samples where sample < span {
            for alias in aliases {
                let address = alias + sample
                let found = walk(words, start: layout.tables.start, address)
                #expect(found == address, "0x\(String(address, radix: 16))")
            }
        }
        // Nothing is mapped beyond them: a stray pointer faults.
        let end = (span + (1 << 30) - 1) & ~((1 << 30) - 1)
        if machine.sharedBit == nil { #expect(walk(words, start: layout.tables.start, end) == nil) }
    }

    /// If the image stays shared: each low address of RAM maps to its own byte, free RAM through the private alias
    /// and everything else through the shared alias, including the tables.
    @Test(arguments: LayoutCase.all.filter { $0.sharedBit != nil })
    func sharedPartsAreReachedThroughTheSharedAlias(_ machine: LayoutCase) throws {
        let mask: UInt64 = 1 << UInt64(machine.sharedBit ?? 0)
        for image in machine.ram > 4 << 20
            ? [try lowImage(), try .flat([UInt8](repeating: 1, count: 3 << 20))]
            : [
                try lowImage()
            ]
        {
            let layout = try GuestLayout(
                ramSize: machine.ram, vcpus: 16, sharedBit: machine.sharedBit,
                gigabytePages: machine.gigabytePages, image: image, imageStaysShared: true)
            let words = layout.tables.words()
            #expect(UInt64(words.count) * 8 == layout.tables.size)
            #expect(layout.tables.root == layout.tables.start | mask)
            #expect(layout.free.isEmpty || layout.free.lowerBound % (2 << 20) == 0)
            for taken in [
                layout.image.start..<layout.image.end, layout.gdt..<layout.stackTop(15),
                layout.tables.start..<layout.tables.start + layout.tables.size,
            ] { #expect(layout.free.isEmpty || !layout.free.overlaps(taken)) }

            var generator = Generator(seed: machine.ram)
            let span = max(machine.ram, 1 << 32)
            var samples: [UInt64] = [
                0, 4095, 1 << 20, layout.image.end - 1, layout.tables.start,
                layout.tables.start + layout.tables.size - 1,
                machine.ram - 1, layout.free.lowerBound, layout.free.upperBound, layout.free.lowerBound &- 1,
                layout.free.upperBound - 1,
            ]
            for _ in 0..<64 { samples.append(generator.next() % machine.ram) }
            for gigabyte in stride(from: 0, to: machine.ram, by: 1 << 30) { samples.append(gigabyte) }
            for sample in samples where sample < machine.ram {
                let alias = layout.free.contains(sample) ? 0 : mask
                #expect(
                    walk(words, start: layout.tables.start, sample, tableAlias: mask) == sample | alias,
                    "0x\(String(sample, radix: 16))")
            }
            for _ in 0..<64 { samples.append(generator.next() % span) }
            for sample in samples where sample < span {
                #expect(
                    walk(words, start: layout.tables.start, mask | sample, tableAlias: mask) == mask | sample)
            }
        }
    }

    @Test(arguments: LayoutCase.all)
    func nothingOverlapsAndTheRestIsFree(_ machine: LayoutCase) throws {
        for vcpus in [1, 16] {
            let layout = try GuestLayout(
                ramSize: machine.ram, vcpus: vcpus, sharedBit: machine.sharedBit,
                gigabytePages: machine.gigabytePages,
                image: machine.ram > 2 << 20 ? try .flat([UInt8](repeating: 1, count: 5000)) : lowImage())
            let stacks = layout.stacks..<layout.stackTop(vcpus - 1)
            let tables = layout.tables.start..<layout.tables.start + layout.tables.size
            let taken = [
                layout.gdt..<layout.gdt + 0x1000,
                layout.bootInformation..<layout.bootInformation + 0x1000,
                tables, stacks, layout.image.start..<layout.image.end,
            ]
            for (index, one) in taken.enumerated() {
                #expect(one.upperBound <= machine.ram)
                for other in taken.dropFirst(index + 1) { #expect(!one.overlaps(other), "\(one) \(other)") }
                #expect(layout.free.isEmpty || !one.overlaps(layout.free), "\(one) \(layout.free)")
            }
            #expect(layout.free.upperBound <= machine.ram)
            #expect(layout.free.lowerBound % pageSize == 0 && layout.free.upperBound % pageSize == 0)
            if machine.ram > 4 << 20 {
                #expect(layout.free.lowerBound == 2 << 20)
                #expect(layout.free.count > 0)
            }
        }
    }

    private func lowImage() throws -> BootImage {
        var elf = ELFBuilder()
        elf.segments = [.init(virtual: 0x9_0000, content: [0xf4])]
        elf.entry = 0x9_0000
        return try BootImage.parse(elf.bytes)
    }

    @Test func impossibleSizes() throws {
        func complaint(_ ram: UInt64, _ vcpus: Int = 1, _ bit: Int? = nil) -> String? {
            do {
                let image = try BootImage.flat([0xf4])
                _ = try GuestLayout(
                    ramSize: ram, vcpus: vcpus, sharedBit: bit, gigabytePages: false, image: image)
                return nil
            } catch {
                return "\(error)"
            }
        }
        let sizes: [UInt64] = [0, 1, 4096, 1 << 20 - 4096, 2 << 20 | 1, 1 << 40 | 4096, 1 << 63, .max]
        for ram in sizes {
            #expect(complaint(ram)?.contains("from 1 MiB to 1 TiB") == true, "\(ram)")
        }
        for vcpus in [Int.min, -1, 0, 17, Int.max] {
            #expect(complaint(4 << 20, vcpus)?.contains("use 1 to 16") == true, "\(vcpus)")
        }
        #expect(complaint(64 << 30, 1, 35)?.contains("shared alias") == true)
        // Shared bits that a broken CPUID could lead to.
        for bit in [Int.min, -1, 0, 11, 20, 31, 47, 63, 64, 255] {
            #expect(complaint(4 << 20, 1, bit)?.contains("physical address") == true, "\(bit)")
        }
        // A flat image at 1 MiB needs more than 1 MiB.
        #expect(complaint(1 << 20)?.contains("does not fit into RAM") == true)
    }
}
