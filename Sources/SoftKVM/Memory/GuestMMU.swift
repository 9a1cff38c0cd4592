// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import SystemPackage

/// Guest-physical addresses of SoftKVM.
enum GuestPhysical {
    /// Width, as CPUID 0x80000008 reports it.
    static let bits = KernelModel.guestPhysicalBits
}

/// A leaf entry of the guest's page tables.
struct GuestPage {
    /// Linear address of the page.
    let linear: UInt64
    /// Guest-physical address of the page, including the shared bit.
    let gpa: UInt64
    /// 4 KiB, 2 MiB or 1 GiB, bytes.
    let size: UInt64
    let writable: Bool
    let executable: Bool
}

/// The kind of an access to a linear address.
struct AccessKind {
    let isWrite: Bool
    let isFetch: Bool
    /// From ring 3.
    let isUser: Bool
}

/// Why a linear address does not resolve.
enum WalkFailure: Error {
    /// An exception in the guest: a page fault or a general protection fault.
    case exception
    /// A memory fault on a page of the guest's page tables.
    case fault(MemoryFault?)
}

extension SoftVM {
    // The model's lock is held.
    func target(of address: UInt64) -> Target { model.kernel.target(number, of: address) }
    func errno(of fault: MemoryFault) -> Errno { Errno(model.kernel.error(number, of: fault)) }
    func withoutSharedBit(_ address: UInt64) -> UInt64 { model.kernel.withoutSharedBit(number, address) }
    func isReadable(_ gpa: UInt64) -> Bool { model.kernel.isReadableByKVM(number, gpa) }

    /// The host address of guest memory. The following bytes are valid up to the end of the page; nil if there is
    /// no memory.
    func bytes(in slot: MemslotInfo, at address: UInt64) -> UnsafeMutableRawPointer? {
        let offset = withoutSharedBit(address) - slot.range.start
        return unsafe model.memory(of: slot.file)?.bytes(at: slot.fileOffset + offset)
    }

    /// Walks the guest's 4-level page tables in guest memory, as a CPU does. Accessed and dirty bits are not
    /// written.
    ///
    /// - Parameter isReadable: whether the walker can read the entry at a guest-physical address. An unreadable
    ///   entry is an exception.
    func walk(
        _ linear: UInt64, _ access: AccessKind, _ registers: ckvm_sregs,
        through isReadable: ((UInt64) -> Bool)? = nil
    ) throws(WalkFailure) -> GuestPage {
        let canonical = Int64(bitPattern: linear) >> 47
        guard canonical == 0 || canonical == -1 else { throw .exception }
        var table = registers.cr3 & PageEntry.addressMask
        var writable = true
        var user = true
        var executable = true
        for level in [39, 30, 21, 12] {
            let place = table + (linear >> level & 0x1ff) * 8
            if let isReadable, !isReadable(place) { throw .exception }
            let entry = PageEntry(rawValue: try tableEntry(at: place))
            guard entry.isPresent,
                !entry.hasReservedBit(level: level, noExecute: registers.efer & 1 << 11 != 0)
            else { throw .exception }
            writable = writable && entry.isWritable
            user = user && entry.isUser
            executable = executable && !entry.isNoExecute
            guard level == 12 || entry.isLarge && level != 39 else {
                table = entry.address
                continue
            }
            let size = UInt64(1) << level
            // With CR0.WP clear, ring 0 may write read-only pages.
            let mayWrite = writable || (!access.isUser && registers.cr0 & 1 << 16 == 0)
            guard !access.isWrite || mayWrite, !access.isFetch || executable, !access.isUser || user else {
                throw .exception
            }
            return GuestPage(
                linear: linear & ~(size - 1), gpa: entry.address & ~(size - 1), size: size,
                writable: mayWrite,
                executable: executable)
        }
        throw .exception
    }

    private func tableEntry(at address: UInt64) throws(WalkFailure) -> UInt64 {
        switch target(of: address) {
        case .memory(let slot, _):
            _ = model.kernel.noteGuestTouch(number, at: address, isWrite: false)
            guard let bytes = unsafe bytes(in: slot, at: address) else { throw .exception }
            return unsafe bytes.load(as: UInt64.self)
        case .mmio: throw .exception
        case .fault(let fault): throw .fault(fault)
        }
    }
}

/// An entry of a guest page table.
private struct PageEntry {
    let rawValue: UInt64

    static let addressMask: UInt64 = (1 << GuestPhysical.bits - 1) & ~0xfff

    var isPresent: Bool { rawValue & 1 << 0 != 0 }
    var isWritable: Bool { rawValue & 1 << 1 != 0 }
    var isUser: Bool { rawValue & 1 << 2 != 0 }
    var isLarge: Bool { rawValue & 1 << 7 != 0 }
    var isNoExecute: Bool { rawValue & 1 << 63 != 0 }
    var address: UInt64 { rawValue & Self.addressMask }

    func hasReservedBit(level: Int, noExecute: Bool) -> Bool {
        let tooHigh = rawValue & (UInt64(1) << 52 - 1) & ~(UInt64(1) << GuestPhysical.bits - 1) != 0
        return tooHigh || (isLarge && level == 39) || (isNoExecute && !noExecute)
    }
}
