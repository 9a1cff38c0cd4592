// SPDX-License-Identifier: MIT
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
