// SPDX-License-Identifier: MIT
/// The layout of guest-physical memory before the guest starts.
///
///     0x00000000  interrupt vector table (real mode, boot protocols), 1 KiB
///     0x00000400  BIOS data area (real mode, boot protocols), 256 bytes
///     0x00001000  GDT, and the IDT and handlers of the monitor (not on SNP and TDX)
///     0x00002000  boot information page
///     0x00003000  page tables (64-bit mode; at the top of RAM if they do not fit here)
///     0x00007c00  a boot sector
///     0x00009000  what a boot protocol hands to the guest
///     0x00040000  stacks, 16 KiB per vCPU
///     0x000f0000  handlers for the vectors (real mode, boot protocols), 1 KiB
///     0x00100000  a flat image; an ELF file is loaded at the addresses it was linked for
///     above       modules of a boot protocol, then free, from the next 2 MiB boundary if RAM extends that far
///
/// If an image is loaded over the monitor's parts, these move to the highest free addresses. Those of a BIOS are left out if the
/// image is there.
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
    /// The mode at ``entry``.
    public let mode: CPUMode
    /// The page tables with which every vCPU starts. Not in RAM if ``mode`` has no paging.
    public let tables: PageTables
    /// The handlers with which the guest starts: in 64-bit mode, unless its registers are hidden.
    let exceptions: ExceptionTable?
    /// Guest-physical addresses that the guest may use freely. Empty if image and tables fill RAM.
    public let free: Range<UInt64>
    /// Guest-physical addresses of the GDT, of the boot information page and of the stacks. Not used in real mode.
    let gdt, bootInformation, stacks: UInt64
    /// Whether the vector table and its handlers are there.
    let hasVectorTable: Bool
    /// Whether ``BIOSData`` is there.
    let hasBIOSData: Bool

    /// The addresses of the monitor's parts, unless the image is there.
    enum Low {
        static let gdt: UInt64 = 0x1000
        static let bootInformation: UInt64 = 0x2000
        static let tables: UInt64 = 0x3000
        static let stacks: UInt64 = 0x4_0000
    }
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
    ///   RAM or overlaps another one, or RAM has no room for the monitor's parts besides the image.
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
        mode = image.mode
        entry = image.entry
        let hasSharedLow = imageStaysShared && sharedBit != nil
        var tables = PageTables(
            ramSize: ramSize, sharedBit: sharedBit, vmType: vmType, gigabytePages: gigabytePages,
            hasSharedLow: hasSharedLow)
        let used = try Self.check(image, ramSize: ramSize)
        guard let pages = PageRange.covering(start: used.lowerBound, size: used.upperBound - used.lowerBound)
        else {
            throw .image(.pastLastPage)
        }
        self.image = pages
        let placement = MemoryPlacement(image.segments)
        let parts = try Parts(mode, tables, vcpus: vcpus, ramSize: ramSize, placement)
        (gdt, bootInformation, stacks) = (parts.gdt, parts.bootInformation, parts.stacks)
        exceptions = mode == .long && !vmType.isConfidential ? ExceptionTable(page: parts.gdt) : nil
        let hasFirmware = mode == .real || image.format.hasProtocol
        hasVectorTable =
            hasFirmware && placement.isFree(FirmwareTrap.table) && placement.isFree(FirmwareTrap.handlers)
        hasBIOSData = hasFirmware && placement.isFree(BIOSData.place)
        tables.place(at: parts.tables)
        var top = parts.top
        let usedEnd = max(pages.end, parts.lowEnd, hasVectorTable ? FirmwareTrap.end : 0)
        let aligned = (usedEnd + PageTables.largePage - 1) & ~(PageTables.largePage - 1)
        if hasSharedLow, top < ramSize { top &= ~(PageTables.largePage - 1) }
        let fallback = hasSharedLow ? top : min(usedEnd, top)
        free = (aligned < top ? aligned : fallback)..<top
        if hasSharedLow { tables.privateLow = free }
        self.tables = tables
    }

    /// The top of a vCPU's stack: RSP at entry.
    func stackTop(_ vcpu: Int) -> UInt64 { stacks + UInt64(vcpu + 1) * Self.stackSize }

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

    /// Checks that every segment is in RAM and overlaps no other one.
    private static func check(_ image: BootImage, ramSize: UInt64) throws(MachineError) -> Range<UInt64> {
        var taken: [ImageError.Part] = []
        var low = UInt64.max
        var high: UInt64 = 0
        for segment in image.segments {
            let (end, overflow) = segment.gpa.addingReportingOverflow(segment.size)
            let part = ImageError.Part(segment.content, start: segment.gpa, end: end)
            guard !overflow, end <= ramSize else { throw .image(.outsideRAM(part, ramSize: ramSize)) }
            guard end <= image.mode.reach else { throw .image(.outOfReach(part, image.mode)) }
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

/// The addresses of the monitor's parts: low if they are free, otherwise as high as possible.
private struct Parts {
    var gdt = GuestLayout.Low.gdt
    var bootInformation = GuestLayout.Low.bootInformation
    var tables = GuestLayout.Low.tables
    var stacks = GuestLayout.Low.stacks
    /// One past the last low part.
    var lowEnd: UInt64 = 0
    /// The first address of the parts at the top of RAM, or the end of RAM.
    var top: UInt64

    init(
        _ mode: CPUMode, _ pageTables: PageTables, vcpus: Int, ramSize: UInt64, _ placement: MemoryPlacement
    ) throws(MachineError) {
        top = ramSize
        guard mode != .real else { return }
        var placement = placement
        let tablesSize = mode == .long ? pageTables.size : 0
        let stacksSize = UInt64(vcpus) * GuestLayout.stackSize
        let areTablesLow = tables + tablesSize <= stacks
        guard areTablesLow || tablesSize < ramSize / 2 else { throw .configuration(.pageTables) }
        let end = min(ramSize, mode.reach)
        let lowPages = gdt..<tables + (areTablesLow ? tablesSize : 0)
        if placement.isFree(lowPages), placement.isFree(stacks..<stacks + stacksSize) {
            placement.take(lowPages)
            placement.take(stacks..<stacks + stacksSize)
            lowEnd = stacks + stacksSize
        } else {
            // GDT, boot information page and stacks.
            let size = 2 * pageSize + stacksSize + (areTablesLow ? tablesSize : 0)
            guard let place = placement.highest(size, in: pageSize..<end) else {
                throw .image(.noRoom(.bootPages, size: size, ramSize: ramSize))
            }
            placement.take(place..<place + size)
            gdt = place
            bootInformation = place + pageSize
            tables = place + 2 * pageSize
            stacks = tables + (areTablesLow ? tablesSize : 0)
            reach(place..<place + size, ramSize)
        }
        guard !areTablesLow else { return }
        guard let place = placement.highest(tablesSize, in: pageSize..<end) else {
            throw .image(.noRoom(.pageTables, size: tablesSize, ramSize: ramSize))
        }
        tables = place
        reach(place..<place + tablesSize, ramSize)
    }

    /// Notes a part that is not at its low address.
    private mutating func reach(_ part: Range<UInt64>, _ ramSize: UInt64) {
        if (part.upperBound + pageSize - 1) & ~(pageSize - 1) == top {
            top = part.lowerBound
        } else {
            lowEnd = max(lowEnd, part.upperBound)
        }
    }
}
