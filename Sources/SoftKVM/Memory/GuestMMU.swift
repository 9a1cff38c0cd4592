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
    /// #GP: the address is not canonical.
    case nonCanonical
    /// #PF, with the bits of its error code that describe the page.
    case pageFault(CPUException.PageFaultCode)
    /// A memory fault on a page of the guest's page tables.
    case fault(MemoryFault?)
    /// An exception that a page of the guest's page tables raises, because it is not validated or accepted.
    case raised(GuestException, gpa: UInt64)
    /// `KVM_RUN` fails.
    case failed(ErrorNumber)
}

/// The bit of a page-table entry that decides whether an access is private: the C-bit of SNP or the shared bit of TDX.
struct EncryptionBit {
    let mask: UInt64
    /// SNP: an access is private if the bit is set. TDX: if it is clear.
    let isPrivateIfSet: Bool

    /// Bit 51 on SNP, and bit 47 on TDX, where the guest-physical address width is 48.
    init?(_ type: VMType) {
        switch type {
        case .snp: (mask, isPrivateIfSet) = (1 << 51, true)
        case .tdx: (mask, isPrivateIfSet) = (1 << 47, false)
        case .default, .softwareProtected: return nil
        }
    }
}

extension SoftVM {
    // The model's lock is held.
    func resolve(_ address: UInt64, isWrite: Bool) -> KernelModel.Resolution {
        defer { if encryptionBit != nil { model.applyEffects() } }
        return model.kernel.resolve(number, address, toWrite: isWrite)
    }

    /// The model's address for one with the guest's own bit: in the model a bit of the address is set for a shared access.
    func modelAddress(_ address: UInt64, isPrivateAnyway: Bool = false) -> UInt64 {
        guard let encryptionBit, let sharedBit else { return address }
        let isSet = address & encryptionBit.mask != 0
        let isPrivate = isPrivateAnyway || isSet == encryptionBit.isPrivateIfSet
        return address & ~encryptionBit.mask | (isPrivate ? 0 : 1 << UInt64(sharedBit))
    }

    /// The address as the guest writes it, for one of the model's.
    func guestAddress(_ address: UInt64) -> UInt64 {
        guard let encryptionBit, let sharedBit else { return address }
        let isShared = address & (1 << UInt64(sharedBit)) != 0
        return withoutSharedBit(address) | (isShared != encryptionBit.isPrivateIfSet ? encryptionBit.mask : 0)
    }

    func errno(of fault: MemoryFault) -> Errno { Errno(model.kernel.error(number, of: fault)) }
    func withoutSharedBit(_ address: UInt64) -> UInt64 { model.kernel.withoutSharedBit(number, address) }
    func isReadable(_ gpa: UInt64) -> Bool { model.kernel.isReadableByKVM(number, gpa) }

    /// The host address of guest memory. The following bytes are valid up to the end of the page; nil if there is
    /// no memory.
    func bytes(in backing: KernelModel.Backing, at address: UInt64) -> UnsafeMutableRawPointer? {
        let offset = withoutSharedBit(address) - backing.pages.start
        return unsafe model.memory(of: backing.file)?.bytes(at: backing.fileOffset + offset)
    }

    /// Translates a linear address as a CPU does: by the guest's page tables in guest memory, or without them as it is if
    /// paging is off. Accessed and dirty bits are not written.
    ///
    /// - Parameter isReadable: whether the walker can read the entry at a guest-physical address. An unreadable
    ///   entry is an exception.
    func walk(
        _ linear: UInt64, _ access: AccessKind, _ registers: ckvm_sregs,
        through isReadable: ((UInt64) -> Bool)? = nil
    ) throws(WalkFailure) -> GuestPage {
        guard let mode = PagingMode(registers) else {
            // Protected mode without paging, and real mode.
            guard linear >> 32 == 0 else { throw .nonCanonical }
            let block = linear & ~(1 << 30 - 1)
            return GuestPage(linear: block, gpa: block, size: 1 << 30, writable: true, executable: true)
        }
        let canonical = Int64(bitPattern: linear) >> 47
        guard canonical == 0 || canonical == -1 else { throw .nonCanonical }
        // The tables of an SNP guest are private, whatever their addresses say.
        let own = encryptionBit?.mask ?? 0
        func address(_ entry: UInt64, isTable: Bool) -> UInt64 {
            modelAddress(
                entry & (PageEntry.addressMask | own),
                isPrivateAnyway: isTable && encryptionBit?.isPrivateIfSet == true)
        }
        var table = address(registers.cr3 & mode.rootMask, isTable: true)
        if mode == .physicalAddressExtension { table |= registers.cr3 & 0xfe0 }
        var writable = true
        var user = true
        var executable = true
        for level in mode.levels {
            let place = table + (linear >> level & mode.indexMask) * mode.entrySize
            if let isReadable, !isReadable(place) { throw .pageFault([]) }
            let entry = PageEntry(rawValue: try tableEntry(at: place, size: mode.entrySize))
            let isPointer = mode == .physicalAddressExtension && level == 30
            guard entry.isPresent else { throw .pageFault([]) }
            guard
                isPointer
                    || !entry.hasReservedBit(
                        level: level, noExecute: registers.efer & 1 << 11 != 0, besides: own)
            else { throw .pageFault([.present, .reserved]) }
            if !isPointer {
                writable = writable && entry.isWritable
                user = user && entry.isUser
                executable = executable && !entry.isNoExecute
            }
            guard level == 12 || entry.isLarge && mode.hasLargePages(level, registers) else {
                table = address(entry.rawValue, isTable: true)
                continue
            }
            let size = UInt64(1) << level
            // With CR0.WP clear, ring 0 may write read-only pages.
            let mayWrite = writable || (!access.isUser && registers.cr0 & 1 << 16 == 0)
            guard !access.isWrite || mayWrite, !access.isFetch || executable, !access.isUser || user else {
                throw .pageFault(.present)
            }
            // An SNP guest fetches from private memory only.
            let gpa = modelAddress(
                entry.address(isWide: mode == .twoLevels && level != 12) & (PageEntry.addressMask | own),
                isPrivateAnyway: access.isFetch && encryptionBit?.isPrivateIfSet == true)
            return GuestPage(
                linear: linear & ~(size - 1), gpa: gpa & ~(size - 1), size: size,
                writable: mayWrite,
                executable: executable)
        }
        throw .pageFault([])
    }

    /// - Parameter size: bytes, 4 or 8.
    private func tableEntry(at address: UInt64, size: UInt64) throws(WalkFailure) -> UInt64 {
        switch resolve(address, isWrite: false) {
        case .memory(let backing):
            _ = model.kernel.noteGuestTouch(number, at: address, isWrite: false)
            guard !backing.isCiphertext, let bytes = unsafe bytes(in: backing, at: address) else {
                throw .pageFault([])
            }
            return unsafe size == 8 ? bytes.load(as: UInt64.self) : UInt64(bytes.load(as: UInt32.self))
        case .stopped(.mmio): throw .pageFault([])
        case .stopped(.fault(let fault)), .stopped(.poisoned(let fault)): throw .fault(fault)
        case .stopped(.exception(let exception)): throw .raised(exception, gpa: address)
        case .stopped(.error(let error)): throw .failed(error)
        case .stopped(.noPage), .stopped(.byte): throw .fault(nil)
        }
    }
}

/// The format of the guest's page tables.
private enum PagingMode {
    /// 32-bit paging: 4 KiB, and 4 MiB with CR4.PSE.
    case twoLevels
    /// PAE paging: 4 KiB and 2 MiB.
    case physicalAddressExtension
    /// Long mode: 4 KiB, 2 MiB and 1 GiB.
    case fourLevels

    /// - Returns: nil if paging is off.
    init?(_ registers: ckvm_sregs) {
        guard registers.isPaging else { return nil }
        self =
            registers.isLongModeActive
            ? .fourLevels : registers.hasPhysicalAddressExtension ? .physicalAddressExtension : .twoLevels
    }

    /// The lowest bit of the linear address that an entry of each level translates.
    var levels: [UInt64] {
        switch self {
        case .twoLevels: [22, 12]
        case .physicalAddressExtension: [30, 21, 12]
        case .fourLevels: [39, 30, 21, 12]
        }
    }
    var indexMask: UInt64 { self == .twoLevels ? 0x3ff : 0x1ff }
    /// Bytes.
    var entrySize: UInt64 { self == .twoLevels ? 4 : 8 }
    /// The bits of CR3 that are the address of the first table.
    var rootMask: UInt64 {
        switch self {
        case .twoLevels: 0xffff_f000
        case .physicalAddressExtension: 0xffff_ffe0
        case .fourLevels: .max
        }
    }

    /// Whether bit 7 of an entry of this level makes a large page.
    func hasLargePages(_ level: UInt64, _ registers: ckvm_sregs) -> Bool {
        switch self {
        case .twoLevels: registers.cr4 & 1 << 4 != 0
        case .physicalAddressExtension: level == 21
        case .fourLevels: level != 39
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

    /// The address of a page; that of a 4 MiB page has its bits 32 to 39 in bits 13 to 20.
    func address(isWide: Bool) -> UInt64 {
        isWide ? rawValue & 0xffc0_0000 | (rawValue >> 13 & 0xff) << 32 : rawValue
    }

    func hasReservedBit(level: UInt64, noExecute: Bool, besides own: UInt64) -> Bool {
        let tooHigh = rawValue & ~own & (UInt64(1) << 52 - 1) & ~(UInt64(1) << GuestPhysical.bits - 1) != 0
        return tooHigh || (isLarge && level == 39) || (isNoExecute && !noExecute)
    }
}
