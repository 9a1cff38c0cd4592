// SPDX-License-Identifier: MIT
/// Where everything lies in guest-physical memory before the guest starts.
///
///     0x00001000  GDT
///     0x00002000  boot information page
///     0x00003000  page tables (at the top of RAM where they are too many for here)
///     0x00040000  stacks, 16 KiB a vCPU
///     0x00100000  a flat image; an ELF file lies where it was linked for
///     above       free, from the next 2 MiB boundary where RAM reaches that far
///
/// Where a conversion does not keep contents, all that is not free stays shared. With two aliases the addresses above
/// then lead to the shared alias, and so do CR3 and the page tables' own entries; free RAM is whole pages of 2 MiB, so
/// that one entry never has both.
public struct GuestLayout: Sendable {
    /// Bytes, from address 0.
    public let ramSize: UInt64
    /// How many stacks there are.
    public let vcpus: Int
    /// The bit that makes an access shared; nil with one alias.
    public let sharedBit: Int?
    /// What is not free stays shared.
    public let imageStaysShared: Bool
    /// The image with its last page filled up, first byte to last.
    public let image: PageRange
    /// Guest-physical address of the first instruction; also its linear address, because the tables map
    /// identically.
    public let entry: UInt64
    /// What every vCPU's CR3 leads to at first.
    public let tables: PageTables
    /// Guest-physical addresses that the guest may use as it likes. Empty if image and tables fill RAM.
    public let free: Range<UInt64>

    static let gdt: UInt64 = 0x1000
    static let bootInformation: UInt64 = 0x2000
    static let lowTables: UInt64 = 0x3000
    static let stacks: UInt64 = 0x4_0000
    static let stackSize: UInt64 = 0x4000

    /// The smallest and the largest RAM, in bytes.
    public static let ramBounds: ClosedRange<UInt64> = 1 << 20...1 << 40
    /// The fewest and the most vCPUs.
    public static let vcpuBounds: ClosedRange<Int> = 1...16
    /// Bits that can tell the aliases apart: above the 4 GiB that are always mapped, and within what an identity
    /// mapping of 4 levels reaches.
    public static let sharedBits: ClosedRange<Int> = 32...46

    /// - Parameters:
    ///   - gigabytePages: the CPU has pages of 1 GiB.
    ///   - imageStaysShared: contents do not survive a conversion, so nothing of what is written may be converted.
    /// - Throws: ``MachineError/configuration(_:)`` if RAM, the number of vCPUs or the shared bit is out of
    ///   bounds, or RAM has no room for the page tables; ``MachineError/image(_:)`` if a segment is outside
    ///   RAM or overlaps another part.
    public init(
        ramSize: UInt64, vcpus: Int, sharedBit: Int?, gigabytePages: Bool, image: BootImage,
        imageStaysShared: Bool = false
    ) throws(MachineError) {
        try Self.check(ramSize: ramSize, vcpus: vcpus, sharedBit: sharedBit)
        self.ramSize = ramSize
        self.vcpus = vcpus
        self.sharedBit = sharedBit
        self.imageStaysShared = imageStaysShared
        let hasSharedLow = imageStaysShared && sharedBit != nil
        var tables = PageTables(
            ramSize: ramSize, sharedBit: sharedBit, gigabytePages: gigabytePages, hasSharedLow: hasSharedLow)
        let stacksEnd = Self.stacks + UInt64(vcpus) * Self.stackSize
        var taken = [ImageError.Part(.stacks, start: Self.stacks, end: stacksEnd)]
        var top = ramSize
        if Self.lowTables + tables.size <= Self.stacks {
            tables.place(at: Self.lowTables)
        } else {
            guard tables.size < ramSize / 2 else {
                throw .configuration(.pageTables)
            }
            top = ramSize - tables.size
            tables.place(at: top)
        }
        taken.append(.init(.bootPages, start: Self.gdt, end: Self.lowTables))
        taken.append(.init(.pageTables, start: tables.start, end: tables.start + tables.size))
        let used = try Self.check(image, taken, ramSize: ramSize)
        guard let pages = PageRange.covering(start: used.lowerBound, size: used.upperBound - used.lowerBound)
        else {
            throw .image(.pastLastPage)
        }
        self.image = pages
        entry = image.entry
        let usedEnd = max(pages.end, stacksEnd)
        let aligned = (usedEnd + PageTables.largePage - 1) & ~(PageTables.largePage - 1)
        if hasSharedLow, top < ramSize { top &= ~(PageTables.largePage - 1) }
        let fallback = hasSharedLow ? top : min(usedEnd, top)
        free = (aligned < top ? aligned : fallback)..<top
        if hasSharedLow { tables.privateLow = free }
        self.tables = tables
    }

    /// The top of a vCPU's stack: RSP at entry.
    func stackTop(_ vcpu: Int) -> UInt64 { Self.stacks + UInt64(vcpu + 1) * Self.stackSize }

    /// Checks what needs no image to be known, in words of who configures a machine.
    static func check(ramSize: UInt64, vcpus: Int, sharedBit: Int?) throws(MachineError) {
        guard Self.ramBounds.contains(ramSize), ramSize % pageSize == 0 else {
            throw .configuration(.ramSize(ramSize))
        }
        guard Self.vcpuBounds.contains(vcpus) else { throw .configuration(.vcpus(vcpus)) }
        if let sharedBit, !Self.sharedBits.contains(sharedBit) {
            throw .configuration(.sharedBitTooLow(sharedBit))
        }
        if let sharedBit, ramSize > 1 << UInt64(sharedBit) {
            throw .configuration(.ramReachesAlias(ramSize: ramSize, sharedBit: sharedBit))
        }
    }

    /// Checks that every segment lies in RAM, apart from the others and from what the monitor puts there.
    private static func check(
        _ image: BootImage, _ taken: [ImageError.Part], ramSize: UInt64
    ) throws(MachineError) -> Range<UInt64> {
        var taken = taken
        var low = UInt64.max
        var high: UInt64 = 0
        for segment in image.segments {
            let (end, overflow) = segment.gpa.addingReportingOverflow(segment.size)
            let part = ImageError.Part(segment.content, start: segment.gpa, end: end)
            guard !overflow, end <= ramSize else { throw .image(.outsideRAM(part, ramSize: ramSize)) }
            if let clash = taken.first(where: { $0.start < part.end && part.start < $0.end }) {
                throw .image(.overlap(part, with: clash))
            }
            taken.append(part)
            low = min(low, part.start)
            high = max(high, part.end)
        }
        guard low < high else { throw .image(.nothingToLoad) }
        return low..<high
    }
}

/// Identity-mapping page tables for RAM, the first 4 GiB, and the shared alias of both.
public struct PageTables: Sendable {
    private let ramSize: UInt64
    private let sharedBit: Int?
    private let gigabytePages: Bool
    private let hasSharedLow: Bool
    /// Guest-physical address of the PML4, without the shared bit.
    public private(set) var start: UInt64 = 0
    /// The part of RAM whose low addresses are its own; the others lead to the shared alias. Its bounds are whole
    /// large pages, or the end of RAM. Nil where every address is its own.
    var privateLow: Range<UInt64>?

    static let largePage: UInt64 = 2 << 20
    private static let gigabyte: UInt64 = 1 << 30
    private static let entries: UInt64 = 512

    /// - Parameter hasSharedLow: ``privateLow`` will be set.
    init(ramSize: UInt64, sharedBit: Int?, gigabytePages: Bool, hasSharedLow: Bool = false) {
        self.ramSize = ramSize
        self.sharedBit = sharedBit
        self.gigabytePages = gigabytePages
        self.hasSharedLow = hasSharedLow
    }

    mutating func place(at address: UInt64) { start = address }

    private var aliases: UInt64 { sharedBit == nil ? 1 : 2 }
    private var sharedMask: UInt64 { sharedBit.map { 1 << UInt64($0) } ?? 0 }
    /// Gigabytes mapped in each alias: one PDPT entry each.
    private var gigabytes: UInt64 {
        (max(ramSize, 4 * Self.gigabyte) + Self.gigabyte - 1) / Self.gigabyte
    }
    private var pointerTables: UInt64 { (gigabytes + Self.entries - 1) / Self.entries }
    /// With pages of 1 GiB only those that have both kinds of RAM, one at each end of what is private.
    private var directories: UInt64 {
        gigabytePages ? (hasSharedLow ? 2 : 0) : aliases * gigabytes
    }
    /// Bytes of all tables.
    public var size: UInt64 { (1 + aliases * pointerTables + directories) * pageSize }

    /// What CR3 takes.
    var root: UInt64 { start | tableAlias }
    /// The tables are where the image is.
    private var tableAlias: UInt64 { hasSharedLow ? sharedMask : 0 }

    /// Where a low address leads: itself, or its shared alias.
    private func target(_ address: UInt64) -> UInt64 {
        guard let privateLow, address < ramSize, !privateLow.contains(address) else { return address }
        return address | sharedMask
    }

    /// Whether all of a gigabyte leads through one alias.
    private func isUniform(_ address: UInt64) -> Bool {
        guard let privateLow else { return true }
        return ![privateLow.lowerBound, privateLow.upperBound].contains { bound in
            bound > address && bound < address + Self.gigabyte && bound < ramSize
        }
    }

    /// The tables as 64-bit words, from ``start`` on.
    func words() -> [UInt64] {
        let present: UInt64 = 0b11  // present, writable
        let large: UInt64 = 1 << 7
        var words = [UInt64](repeating: 0, count: Int(size / 8))
        func index(_ address: UInt64) -> Int { Int((address - start) / 8) }
        var next = start + pageSize
        func takeTables(_ count: UInt64) -> UInt64 {
            defer { next += count * pageSize }
            return next
        }
        for alias in 0..<aliases {
            let base = alias == 0 ? 0 : sharedMask
            let pointers = takeTables(pointerTables)
            for table in 0..<pointerTables {
                let slot = (base >> 39) + table
                // With the shared bit below 39 both aliases share the first PML4 entry and its PDPT.
                if words[index(start + slot * 8)] == 0 {
                    words[index(start + slot * 8)] = (pointers + table * pageSize) | tableAlias | present
                }
            }
            for gigabyte in 0..<gigabytes {
                let address = base + gigabyte * Self.gigabyte
                let table = words[index(start + (address >> 39) * 8)] & ~(tableAlias | 0xfff)
                let entry = table + ((address >> 30) % Self.entries) * 8
                if gigabytePages, alias == 1 || isUniform(address) {
                    words[index(entry)] = target(address) | present | large
                    continue
                }
                let directory = takeTables(1)
                words[index(entry)] = directory | tableAlias | present
                for page in 0..<Self.entries {
                    words[index(directory + page * 8)] = target(address + page << 21) | present | large
                }
            }
        }
        return words
    }
}
