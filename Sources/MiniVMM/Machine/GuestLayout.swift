// SPDX-License-Identifier: MIT
/// The layout of guest-physical memory before the guest starts.
///
///     0x00001000  GDT, and the IDT and handlers of the monitor (not on SNP and TDX)
///     0x00002000  boot information page
///     0x00003000  page tables (at the top of RAM if they do not fit here)
///     0x00040000  stacks, 16 KiB per vCPU
///     0x00100000  a flat image; an ELF file is loaded at the addresses it was linked for
///     above       free, from the next 2 MiB boundary if RAM extends that far
///
/// If conversions lose contents, everything except free RAM stays shared. With two aliases the low addresses of that
/// part then map to the shared alias, and so do CR3 and the page tables' own entries. Free RAM then consists of whole
/// 2 MiB pages, so that no page-table entry covers both kinds.
public struct GuestLayout: Sendable {
    /// Bytes, from address 0.
    public let ramSize: UInt64
    /// The number of stacks.
    public let vcpus: Int
    /// The bit that makes an access shared; nil with one alias.
    public let sharedBit: Int?
    /// Whether everything except free RAM stays shared.
    public let imageStaysShared: Bool
    /// The image, rounded up to whole pages.
    public let image: PageRange
    /// Guest-physical address of the first instruction; also its linear address, because the mapping is
    /// an identity mapping.
    public let entry: UInt64
    /// The page tables with which every vCPU starts.
    public let tables: PageTables
    /// Whether the guest starts with the handlers of ``ExceptionTable``.
    let hasExceptionTable: Bool
    /// Guest-physical addresses that the guest may use freely. Empty if image and tables fill RAM.
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
    /// Bits that can distinguish the aliases: above the 4 GiB that are always mapped, and within the reach of an
    /// identity mapping with 4 levels.
    public static let sharedBits: ClosedRange<Int> = 32...46

    /// - Parameters:
    ///   - gigabytePages: whether the CPU has 1 GiB pages.
    ///   - imageStaysShared: conversions lose contents, so nothing that is written here may be converted.
    /// - Throws: ``MachineError/configuration(_:)`` if RAM, the number of vCPUs or the shared bit is out of
    ///   bounds, or RAM has no room for the page tables; ``MachineError/image(_:)`` if a segment is outside
    ///   RAM or overlaps another part.
    public init(
        ramSize: UInt64, vcpus: Int, sharedBit: Int?, vmType: VMType = .softwareProtected,
        gigabytePages: Bool,
        image: BootImage,
        imageStaysShared: Bool = false
    ) throws(MachineError) {
        try Self.check(ramSize: ramSize, vcpus: vcpus, sharedBit: sharedBit)
        self.ramSize = ramSize
        self.vcpus = vcpus
        self.sharedBit = sharedBit
        self.imageStaysShared = imageStaysShared
        hasExceptionTable = !vmType.isConfidential
        let hasSharedLow = imageStaysShared && sharedBit != nil
        var tables = PageTables(
            ramSize: ramSize, sharedBit: sharedBit, vmType: vmType, gigabytePages: gigabytePages,
            hasSharedLow: hasSharedLow)
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

    /// Checks everything that does not depend on the image, with errors about the configuration.
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

    /// Checks that every segment is in RAM and overlaps neither the other segments nor the monitor's parts.
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
    private let vmType: VMType
    private let gigabytePages: Bool
    private let hasSharedLow: Bool
    /// Guest-physical address of the PML4, without the shared bit.
    public private(set) var start: UInt64 = 0
    /// The part of RAM whose low addresses map to themselves; all others map to the shared alias. Its bounds are
    /// multiples of a large page, or the end of RAM. Nil if every address maps to itself.
    var privateLow: Range<UInt64>?

    static let largePage: UInt64 = 2 << 20
    private static let gigabyte: UInt64 = 1 << 30
    private static let entries: UInt64 = 512

    /// - Parameter hasSharedLow: ``privateLow`` will be set.
    init(
        ramSize: UInt64, sharedBit: Int?, vmType: VMType = .softwareProtected, gigabytePages: Bool,
        hasSharedLow: Bool = false
    ) {
        self.vmType = vmType
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
    /// With 1 GiB pages, only for the gigabytes at the two ends of the private part, which have both kinds of RAM.
    private var directories: UInt64 {
        gigabytePages ? (hasSharedLow ? 2 : 0) : aliases * gigabytes
    }
    /// Size of all tables in bytes.
    public var size: UInt64 { (1 + aliases * pointerTables + directories) * pageSize }

    /// The value for CR3.
    public var root: UInt64 { start | tableAlias }
    /// The tables are reached through the same alias as the image.
    private var tableAlias: UInt64 { hasSharedLow ? sharedMask : 0 }

    /// The address that a low address maps to: itself, or its shared alias.
    private func target(_ address: UInt64) -> UInt64 {
        guard let privateLow, address < ramSize, !privateLow.contains(address) else {
            return encoded(address)
        }
        return encoded(address | sharedMask)
    }

    /// The address as an entry has it: with the C-bit (51) in the private alias on SNP, and the shared bit (47) in the shared one
    /// on TDX. The shared alias begins at the same linear address everywhere.
    private func encoded(_ address: UInt64) -> UInt64 {
        let isShared = address & sharedMask != 0
        switch vmType {
        case .default, .softwareProtected: return address
        case .snp: return address & ~sharedMask | (isShared ? 0 : 1 << 51)
        case .tdx: return address & ~sharedMask | (isShared ? 1 << 47 : 0)
        }
    }

    /// Whether a whole gigabyte is mapped through one alias.
    private func isUniform(_ address: UInt64) -> Bool {
        guard let privateLow else { return true }
        return ![privateLow.lowerBound, privateLow.upperBound].contains { bound in
            bound > address && bound < address + Self.gigabyte && bound < ramSize
        }
    }

    /// The tables as 64-bit words, starting at ``start``.
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
                // With a shared bit below 39 both aliases use the first PML4 entry and its PDPT.
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
