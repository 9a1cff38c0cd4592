// SPDX-License-Identifier: MIT
/// The information structures that EBX points to at the entry of a Multiboot kernel.
enum MultibootInformation {
    /// The types of tags in the information of Multiboot 2.
    static let tags: Set<UInt64> = [1, 2, 3, 4, 6]

    /// The sizes of memory below and above 1 MiB, in KiB.
    private static func sizes(_ handoff: BootHandoff) -> (lower: UInt64, upper: UInt64) {
        let mebibyte: UInt64 = 1 << 20
        return (639, handoff.ramSize > mebibyte ? (handoff.ramSize - mebibyte) / 1024 : 0)
    }

    /// Multiboot Specification 0.6.96, section 3.3: memory sizes, command line, modules, memory map, loader's name.
    static func version1(_ handoff: BootHandoff, at place: UInt64) -> [UInt8] {
        var result = PlacedBytes(at: place)
        let (lower, upper) = sizes(handoff)
        let headerSize = 120
        let flags: UInt64 = 1 << 0 | 1 << 3 | 1 << 6 | 1 << 9 | (handoff.commandLine == nil ? 0 : 1 << 2)
        result.append32(flags, lower, upper)
        while result.bytes.count < headerSize { result.append32(0) }

        let map = result.end
        for entry in MemoryMapEntry.map(ramSize: handoff.ramSize) {
            result.append32(20)  // the size of the rest
            result.append64(entry.start, entry.size)
            result.append32(entry.isUsable ? 1 : 2)
        }
        result.put32(result.end - map, at: 44)
        result.put32(map, at: 48)

        let list = result.end
        for _ in handoff.modules { result.append32(0, 0, 0, 0) }
        for (index, module) in handoff.modules.enumerated() {
            let entry = Int(list - place) + index * 16
            result.put32(module.start, at: entry)
            result.put32(module.start + module.size, at: entry + 4)
            result.put32(result.end, at: entry + 8)
            result.append(module.text)
        }
        result.put32(UInt64(handoff.modules.count), at: 20)
        result.put32(list, at: 24)
        if let commandLine = handoff.commandLine {
            result.put32(result.end, at: 16)
            result.append(commandLine)
        }
        result.put32(result.end, at: 64)
        result.append(BootHandoff.loaderName)
        return result.bytes
    }

    /// Multiboot2 Specification 2.0, section 3.4: the same, as tags.
    static func version2(_ handoff: BootHandoff, at place: UInt64) -> [UInt8] {
        var result = PlacedBytes(at: place)
        result.append32(0, 0)  // total_size, set below
        func tag(_ type: UInt64, _ body: (inout PlacedBytes) -> Void) {
            let start = result.bytes.count
            result.append32(type, 0)
            body(&result)
            result.put32(UInt64(result.bytes.count - start), at: start + 4)
            result.align(to: 8)
        }
        if let commandLine = handoff.commandLine { tag(1) { $0.append(commandLine) } }
        tag(2) { $0.append(BootHandoff.loaderName) }
        for module in handoff.modules {
            tag(3) {
                $0.append32(module.start, module.start + module.size)
                $0.append(module.text)
            }
        }
        let (lower, upper) = sizes(handoff)
        tag(4) { $0.append32(lower, upper) }
        tag(6) {
            $0.append32(24, 0)  // the size and the version of an entry
            for entry in MemoryMapEntry.map(ramSize: handoff.ramSize) {
                $0.append64(entry.start, entry.size)
                $0.append32(entry.isUsable ? 1 : 2, 0)
            }
        }
        tag(0) { _ in }
        result.put32(UInt64(result.bytes.count), at: 0)
        return result.bytes
    }
}

/// `struct hvm_start_info`, version 1, that EBX points to at the entry of a PVH guest
/// (xen/include/public/arch-x86/hvm/start_info.h).
enum PVHInformation {
    private static let magic: UInt64 = 0x336e_c578
    private static let size: UInt64 = 56

    static func bytes(_ handoff: BootHandoff, at place: UInt64) -> [UInt8] {
        let map = MemoryMapEntry.map(ramSize: handoff.ramSize)
        let mapPlace = place + size
        let list = mapPlace + UInt64(map.count) * 24
        var texts = PlacedBytes(at: list + UInt64(handoff.modules.count) * 32)
        let commandLine = handoff.commandLine == nil ? 0 : texts.end
        if let text = handoff.commandLine { texts.append(text) }

        var result = PlacedBytes(at: place)
        result.append32(magic, 1, 0, UInt64(handoff.modules.count))
        result.append64(handoff.modules.isEmpty ? 0 : list, commandLine, 0, mapPlace)
        result.append32(UInt64(map.count), 0)
        for entry in map {
            result.append64(entry.start, entry.size)
            result.append32(entry.isUsable ? 1 : 2, 0)
        }
        for module in handoff.modules {
            result.append64(module.start, module.size, texts.end, 0)
            texts.append(module.text)
        }
        return result.bytes + texts.bytes
    }
}
