// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// Finds the page that stopped a vCPU where the kernel reports no address: the code at RIP, or a page
/// table on the way to it, reached through the wrong alias.
///
/// Used only after the kernel gave up, by the thread that runs the vCPU.
struct GuestWalk {
    private let special: ckvm_sregs
    private let rip: UInt64

    /// The longest x86 instruction, in bytes.
    private static let instructionLength: UInt64 = 15

    init(_ vcpu: any KVMVCPU) throws(Errno) {
        special = try vcpu.specialRegisters()
        rip = try vcpu.registers().rip
    }

    /// Some CPUs (AMD) reset themselves at a triple fault. Then there is nothing to examine or to retry.
    var isReset: Bool { special.cr0 & 1 == 0 }

    /// The page of the code at RIP, or of a page table on the way to it, that is reached through the wrong alias.
    func fault(fetchingFrom memory: borrowing TrapMemory) -> MemoryFault? {
        let start = special.cs.l != 0 ? rip : (special.cs.base &+ rip) & 0xffff_ffff
        if let fault = memory.fault(fetching: start, special) { return fault }
        // The instruction may extend into the next page.
        let last = start &+ (Self.instructionLength - 1)
        return last / pageSize == start / pageSize ? nil : memory.fault(fetching: last, special)
    }

    /// The page-table page that an instruction's data access needed, if its #PF had no handler. The data
    /// page itself is never the cause, because an access to it leaves as MMIO.
    func fault(walkingTo linear: UInt64, from memory: borrowing TrapMemory) -> MemoryFault? {
        if case .stopped(let fault) = memory.translate(linear, special) { fault } else { nil }
    }

    /// CR2.
    var lastPageFault: UInt64 { special.cr2 }
}

extension CarvedMemory where File == TrapFile {
    fileprivate enum Translation {
        case address(UInt64)
        /// A page table is reached through the wrong alias.
        case stopped(MemoryFault)
        /// Not present, not in RAM, or an unsupported paging mode.
        case unknown
    }

    fileprivate func fault(fetching linear: UInt64, _ special: ckvm_sregs) -> MemoryFault? {
        switch translate(linear, special) {
        case .stopped(let fault): fault
        case .unknown: nil
        case .address(let address): place(of: address, length: 1).flatMap { fault(at: $0, length: 1) }
        }
    }

    /// Walks the guest's page tables: 4 or 5 levels in long mode, none without paging.
    fileprivate func translate(_ linear: UInt64, _ special: ckvm_sregs) -> Translation {
        guard special.cr0 & 1 << 31 != 0 else { return .address(linear) }
        guard special.efer & 1 << 10 != 0 else { return .unknown }
        let addressBits: UInt64 = 0x000f_ffff_ffff_f000
        var table = special.cr3 & addressBits
        var level: UInt64 = special.cr4 & 1 << 12 != 0 ? 5 : 4
        while true {
            let shift = 12 + 9 * (level - 1)
            guard let place = place(of: table + (linear >> shift & 511) * 8, length: 8) else {
                return .unknown
            }
            if let fault = fault(at: place, length: 8) { return .stopped(fault) }
            guard let entry = read(place), entry & 1 != 0 else { return .unknown }
            let isLeaf = level == 1 || (level <= 3 && entry & 1 << 7 != 0)
            if isLeaf {
                let within = (1 << shift) - 1 as UInt64
                return .address(entry & addressBits & ~within | linear & within)
            }
            table = entry & addressBits
            level -= 1
        }
    }

    private func read(_ place: Target) -> UInt64? {
        var entry: UInt64 = 0
        let count = unsafe withUnsafeMutableBytes(of: &entry) { bytes in
            unsafe try? place.file.kernelMapping.read(at: place.offset, into: bytes)
        }
        return count == 8 ? entry : nil
    }
}
