// SPDX-License-Identifier: MIT
import MiniVMM
import Testing

struct SymbolTableTests {
    /// An ELF file with a null section, a symbol table and its names.
    private static func file(
        is64: Bool, _ symbols: [(name: String, value: UInt64, info: UInt64, section: UInt64)]
    ) -> [UInt8] {
        func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> (UInt64($0) * 8)) }
        }
        var names: [UInt8] = [0]
        var table: [UInt8] = []
        for symbol in symbols {
            let name = bytes(UInt64(names.count), 4)
            names += Array(symbol.name.utf8) + [0]
            table +=
                is64
                ? name + bytes(symbol.info, 1) + [0] + bytes(symbol.section, 2) + bytes(symbol.value, 8)
                    + bytes(0, 8)
                : name + bytes(symbol.value, 4) + bytes(0, 4) + bytes(symbol.info, 1) + [0]
                    + bytes(symbol.section, 2)
        }
        let word = is64 ? 8 : 4
        let (headerSize, sectionSize) = is64 ? (64, 64) : (52, 40)
        func section(_ type: UInt64, _ offset: Int, _ size: Int, _ link: UInt64) -> [UInt8] {
            bytes(0, 4) + bytes(type, 4) + bytes(0, word) + bytes(0, word) + bytes(UInt64(offset), word)
                + bytes(UInt64(size), word) + bytes(link, 4) + bytes(0, 4) + bytes(0, word) + bytes(0, word)
        }
        let sections = 3 * sectionSize
        let header =
            [0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1] + bytes(0, 9) + bytes(2, 2) + bytes(is64 ? 62 : 3, 2)
            + bytes(1, 4) + bytes(0, word * 2) + bytes(UInt64(headerSize), word) + bytes(0, 4)
            + bytes(UInt64(headerSize), 2) + bytes(0, 4) + bytes(UInt64(sectionSize), 2) + bytes(3, 2)
            + bytes(0, 2)
        let start = headerSize + sections
        return header + section(0, 0, 0, 0) + section(2, start, table.count, 2)
            + section(3, start + table.count, names.count, 0) + table + names
    }

    private static let symbols: [(name: String, value: UInt64, info: UInt64, section: UInt64)] = [
        ("main", 0x10_0000, 2, 1), ("helper", 0x10_0040, 0x12, 1), ("data", 0x10_0044, 1, 1),
        ("undefined", 0x10_0041, 0, 0), ("absolute", 0x10_0042, 0, 0xfff1), ("bad\u{1b}", 0x20_0000, 0, 1),
    ]

    @Test(arguments: [true, false])
    func `the nearest function at or below an address is found`(is64: Bool) {
        let table = SymbolTable(file: Self.file(is64: is64, Self.symbols))
        #expect(table.place(of: 0x10_0000)?.description == "main")
        #expect(table.place(of: 0x10_003f)?.description == "main+0x3f")
        #expect(table.place(of: 0x10_0045)?.description == "helper+0x5")
        #expect(table.place(of: 0xf_ffff) == nil)
        #expect(table.place(of: 0x20_0001)?.description == "bad\\x1b+0x1")
        #expect(table.place(of: 0x40_0000) == nil, "more than 1 MiB away")
    }

    @Test func `a file that is not ELF has no symbols`() {
        for file in [[], [0x7f], Array("not ELF".utf8)] as [[UInt8]] {
            #expect(SymbolTable(file: file).place(of: 0) == nil)
        }
    }

    @Test func `a damaged table is read without a crash`() {
        for is64 in [true, false] {
            let good = Self.file(is64: is64, Self.symbols)
            for length in 0..<good.count {
                _ = SymbolTable(file: Array(good.prefix(length))).place(of: 0x10_0045)
            }
            for index in 4..<good.count {
                for value in [0, 0x7f, 0xff] as [UInt8] {
                    var bad = good
                    bad[index] = value
                    _ = SymbolTable(file: bad).place(of: .max)
                    bad.replaceSubrange(
                        index..<min(index + 8, bad.count),
                        with: repeatElement(value, count: min(8, bad.count - index)))
                    _ = SymbolTable(file: bad).place(of: 0x10_0045)
                }
            }
        }
    }
}
