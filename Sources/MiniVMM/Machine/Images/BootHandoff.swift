// SPDX-License-Identifier: MIT
/// A part of the memory map that a boot protocol hands to the guest.
struct MemoryMapEntry {
    let start, size: UInt64
    /// Type 1, usable RAM; otherwise type 2, reserved.
    let isUsable: Bool

    /// As on a PC: the part from 639 KiB to 1 MiB is reserved.
    static func map(ramSize: UInt64) -> [MemoryMapEntry] {
        let low: UInt64 = 0x9_fc00
        let high: UInt64 = 0x10_0000
        let entries = [
            MemoryMapEntry(start: 0, size: low, isUsable: true),
            MemoryMapEntry(start: low, size: high - low, isUsable: false),
        ]
        return ramSize > high
            ? entries + [MemoryMapEntry(start: high, size: ramSize - high, isUsable: true)] : entries
    }
}

/// The data that a boot protocol hands to the guest; the addresses are final.
struct BootHandoff {
    struct Module {
        let start, size: UInt64
        let text: String
    }
    let ramSize: UInt64
    let commandLine: String?
    let modules: [Module]

    static let loaderName = "minivmm"
}

/// Little-endian bytes with a known address, to which strings and tables are appended.
struct PlacedBytes {
    private let start: UInt64
    private(set) var bytes: [UInt8] = []

    init(at start: UInt64) { self.start = start }

    /// The address of the next byte.
    var end: UInt64 { start &+ UInt64(bytes.count) }

    mutating func append(_ value: UInt64, size: Int) {
        for index in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value >> (UInt64(index) * 8))) }
    }
    mutating func append32(_ values: UInt64...) { for value in values { append(value, size: 4) } }
    mutating func append64(_ values: UInt64...) { for value in values { append(value, size: 8) } }
    mutating func append(_ text: String) { bytes += Array(text.utf8) + [0] }
    mutating func align(to count: Int) {
        while bytes.count % count != 0 { bytes.append(0) }
    }
    mutating func put32(_ value: UInt64, at offset: Int) {
        for index in 0..<4 where offset + index < bytes.count {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (UInt64(index) * 8))
        }
    }
}

extension BootImage {
    /// The longest command line or string of a module, in bytes.
    private static let longestText = 16384
    /// Where the structures of a boot protocol are placed if there is room.
    private static let lowBounds: Range<UInt64> = 0x9000..<0x4_0000

    /// The image with the modules, the command line and the structures of its boot protocol, and with the registers that
    /// the options set.
    ///
    /// - Parameter ramSize: bytes.
    /// - Throws: ``ImageError``: an option does not go with the format, or there is no room.
    public func prepared(_ options: ImageOptions, ramSize: UInt64) throws(ImageError) -> BootImage {
        var image = self
        if format.hasProtocol {
            try image.handOver(options, ramSize)
        } else if let option = options.protocolOnly {
            throw .optionNeedsProtocol(option, format)
        }
        image.registers.merge(options.registers) { _, new in new }
        return image
    }

    private mutating func handOver(_ options: ImageOptions, _ ramSize: UInt64) throws(ImageError) {
        for text in [options.commandLine ?? ""] + options.modules.map(\.text) {
            guard text.utf8.count <= Self.longestText else {
                throw .textTooLong(text.utf8.count, longest: Self.longestText)
            }
        }
        // Without RAM that the segments fit into, GuestLayout reports the reason.
        let end = min(ramSize, 1 << 32)
        let above = segments.reduce(0) { max($0, $1.gpa &+ $1.size) }
        var placement = MemoryPlacement(segments)
        var modules: [BootHandoff.Module] = []
        for (index, module) in options.modules.enumerated() {
            let size = UInt64(module.bytes.count)
            guard let start = placement.lowest(max(size, 1), in: min(above, end)..<end) else {
                throw .noRoom(.module(index), size: size, ramSize: ramSize)
            }
            placement.take(start..<start + max(size, 1))
            modules.append(BootHandoff.Module(start: start, size: size, text: module.text))
            segments.append(
                Segment(gpa: start, bytes: module.bytes, size: size, content: .module(index)))
        }
        let handoff = BootHandoff(ramSize: ramSize, commandLine: options.commandLine, modules: modules)
        // The size does not depend on the address.
        let size = UInt64(information(handoff, at: 0).count)
        guard
            let place = placement.lowest(size, in: Self.lowBounds)
                ?? placement.lowest(size, in: min(above, end)..<end)
        else { throw .noRoom(.bootInformation, size: size, ramSize: ramSize) }
        let bytes = information(handoff, at: place)
        segments.append(Segment(gpa: place, bytes: bytes, size: size, content: .bootInformation))
        registers[.rbx] = place
        switch format {
        case .multiboot: registers[.rax] = MultibootHeader.loaderMagic
        case .multiboot2: registers[.rax] = Multiboot2Header.loaderMagic
        default: break
        }
    }

    private func information(_ handoff: BootHandoff, at place: UInt64) -> [UInt8] {
        switch format {
        case .multiboot: MultibootInformation.version1(handoff, at: place)
        case .multiboot2: MultibootInformation.version2(handoff, at: place)
        default: PVHInformation.bytes(handoff, at: place)
        }
    }
}
