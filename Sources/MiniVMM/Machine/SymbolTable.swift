// SPDX-License-Identifier: MIT
/// The symbols of an ELF file, 32-bit or 64-bit, little-endian (System V ABI, chapter 4).
///
/// Nothing is read before the first lookup. A file without symbols, or with a damaged table, has none.
public struct SymbolTable: Sendable {
    private let file: [UInt8]

    /// - Parameter file: the whole file; anything but ELF has no symbols.
    public init(file: [UInt8]) { self.file = file }

    /// The nearest symbol at or below an address.
    public struct Place: Sendable, Hashable, CustomStringConvertible {
        /// The name, with control characters made visible.
        public let name: String
        /// Bytes from the symbol to the address.
        public let offset: UInt64

        /// `main+0x1c`.
        public var description: String { offset == 0 ? name : "\(name)+\(hex(offset))" }
    }

    private static let longestName = 255
    /// Symbols further away say nothing about an address.
    private static let farthest: UInt64 = 1 << 20

    /// The nearest function, or label of an assembler file, at or below an address, at most 1 MiB away.
    public func place(of address: UInt64) -> Place? {
        guard file.starts(with: [0x7f, 0x45, 0x4c, 0x46]), let is64 = number(4, 1).map({ $0 == 2 }),
            let sections = number(is64 ? 40 : 32, is64 ? 8 : 4), let size = number(is64 ? 58 : 46, 2),
            let count = number(is64 ? 60 : 48, 2)
        else { return nil }
        func section(_ index: UInt64) -> (type: UInt64, offset: UInt64, size: UInt64, link: UInt64)? {
            guard index < count, let start = Self.sum(sections, index &* size),
                let type = field(start, 4, 4),
                let offset = is64 ? field(start, 24, 8) : field(start, 16, 4),
                let length = is64 ? field(start, 32, 8) : field(start, 20, 4),
                let link = is64 ? field(start, 40, 4) : field(start, 24, 4)
            else { return nil }
            return (type, offset, length, link)
        }
        let symbolTable: UInt64 = 2
        for index in 0..<count {
            guard let table = section(index), table.type == symbolTable, let names = section(table.link)
            else {
                continue
            }
            return nearest(to: address, is64, table.offset, table.size, names.offset, names.size)
        }
        return nil
    }

    private func nearest(
        to address: UInt64, _ is64: Bool, _ start: UInt64, _ size: UInt64, _ names: UInt64,
        _ namesSize: UInt64
    ) -> Place? {
        let entrySize: UInt64 = is64 ? 24 : 16
        var best: (value: UInt64, name: UInt64)?
        // The table cannot be longer than the file.
        for index in 0..<min(size, UInt64(file.count)) / entrySize {
            guard let entry = Self.sum(start, index * entrySize), let name = field(entry, 0, 4),
                let information = field(entry, is64 ? 4 : 12, 1),
                let section = field(entry, is64 ? 6 : 14, 2),
                let value = is64 ? field(entry, 8, 8) : field(entry, 4, 4)
            else { break }
            let (isDefined, type) = (section != 0 && section < 0xff00, information & 0xf)
            let isCode = type == 0 || type == 2
            guard isDefined, isCode, name != 0, name < namesSize, value <= address,
                address - value < Self.farthest
            else { continue }
            if best.map({ $0.value < value }) ?? true { best = (value, name) }
        }
        guard let best, let first = Self.sum(names, best.name), first < UInt64(file.count) else { return nil }
        let bytes = file[Int(first)...].prefix(Self.longestName).prefix { $0 != 0 }
        guard !bytes.isEmpty else { return nil }
        return Place(
            name: VisibleText.escaped(String(decoding: bytes, as: UTF8.self)), offset: address - best.value)
    }

    private static func sum(_ one: UInt64, _ other: UInt64) -> UInt64? {
        let (sum, overflow) = one.addingReportingOverflow(other)
        return overflow ? nil : sum
    }

    private func field(_ start: UInt64, _ offset: UInt64, _ count: UInt64) -> UInt64? {
        Self.sum(start, offset).flatMap { number($0, count) }
    }

    /// A little-endian number; nil outside the file.
    private func number(_ offset: UInt64, _ count: UInt64) -> UInt64? {
        guard let end = Self.sum(offset, count), end <= UInt64(file.count) else { return nil }
        return file[Int(offset)..<Int(end)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
