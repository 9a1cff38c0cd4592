import CKVMShim
import MiniVMM
import SystemPackage

/// Guest-physical addresses of this kernel.
enum GuestPhysical {
    /// Width, as CPUID 0x80000008 reports it.
    static let bits = 40
}

/// What stands behind a guest-physical address.
enum Target {
    /// Memory of a slot; `run` are the guest-physical pages around, without the shared bit, of which all of this
    /// is true as well.
    case memory(Memslot, run: PageRange)
    /// No slot.
    case mmio
    /// `KVM_EXIT_MEMORY_FAULT`; nil is `EFAULT` alone, where the page cannot be had through a host mapping.
    case fault(MemoryFault?)
}

/// A page of the guest's own tables.
struct GuestPage {
    /// Linear address of its start.
    let linear: UInt64
    /// Guest-physical address of its start, with the shared bit if it has it.
    let gpa: UInt64
    /// 4 KiB, 2 MiB or 1 GiB, bytes.
    let size: UInt64
    let writable: Bool
    let executable: Bool
}

/// How a linear address is used.
struct AccessKind {
    let isWrite: Bool
    let isFetch: Bool
    /// From ring 3.
    let isUser: Bool
}

/// Why a linear address leads nowhere.
enum WalkFailure: Error {
    /// The guest's own page fault, or general protection fault.
    case exception
    /// A page of its tables is of the wrong kind.
    case fault(MemoryFault?)
}

extension SoftVM {
    /// The second stage: the slot, and whether this kind of access is what the page's attribute says.
    func target(of address: UInt64) -> Target {
        let gpa = withoutSharedBit(address)
        let page = gpa & ~(pageSize - 1)
        let wants = attributes?.state(at: page) ?? wantedState(of: address)
        guard let slot = slots.slot(at: gpa) else {
            // Of private memory only the VM's own attributes can say that there is none.
            guard attributes != nil, wants == .private else { return .mmio }
            return .fault(
                MemoryFault(gpa: page, size: pageSize, flags: CKVM_MEMORY_EXIT_FLAG_PRIVATE))
        }
        let inFile = slot.fileOffset + (page - slot.range.start)
        func fault() -> Target {
            let isPrivate = (wants == .private) != model.faults.contains(.faultFlagWrong)
            let flags = isPrivate ? CKVM_MEMORY_EXIT_FLAG_PRIVATE : 0
            let page = model.faults.contains(.faultNamesNextPage) ? page + pageSize : page
            return .fault(MemoryFault(gpa: page, size: pageSize, flags: flags))
        }
        if slot.isGuestMemfd, slot.file.isClosed { return fault() }
        if slot.isGuestMemfd, attributes != nil {
            // A file that the host can map has its pages in both states; of another the shared ones are elsewhere.
            guard slot.file.flags.contains(.mmap) || wants == .private else { return .fault(nil) }
            guard let run = attributes?.run(containing: page)?.range.intersection(slot.range),
                let sound = sound(run, around: page, in: slot)
            else { return fault() }
            return .memory(slot, run: sound)
        }
        // A slot without guest_memfd is what the host has mapped there: shared, or nothing.
        let needs: PageState? = slot.isGuestMemfd ? wants : .shared
        guard let needs else {
            guard let sound = sound(slot.range, around: page, in: slot) else { return fault() }
            return .memory(slot, run: sound)
        }
        if !slot.isGuestMemfd {
            guard wants != .private else { return fault() }
            guard slot.file.attributes.state(at: inFile) == .shared else { return .fault(nil) }
        }
        guard let (run, state) = slot.file.attributes.run(containing: inFile),
            state == needs || model.faults.contains(.mismatchIgnored)
        else { return fault() }
        let visible = slot.fileRange?.intersection(run)?.offset(from: slot.fileOffset)
        guard let gpas = visible?.advanced(by: slot.range.start) else { return .mmio }
        guard let sound = sound(gpas, around: page, in: slot) else { return fault() }
        return .memory(slot, run: sound)
    }

    /// The pages around one of a run, up to those whose memory has failed; nil if it is one of them.
    private func sound(_ run: PageRange, around page: UInt64, in slot: Memslot) -> PageRange? {
        guard slot.isGuestMemfd, !slot.file.poisoned.isEmpty else { return run }
        let inFile = run.offset(from: slot.range.start)?.advanced(by: slot.fileOffset)
        let part = inFile.flatMap {
            slot.file.soundRun(of: $0, around: slot.fileOffset + (page - slot.range.start))
        }
        return part?.offset(from: slot.fileOffset)?.advanced(by: slot.range.start)
    }

    /// What `KVM_RUN` returns with a memory fault: `EHWPOISON` where the page is of the right kind and its memory has failed.
    func errno(of fault: MemoryFault) -> Errno {
        guard let slot = slots.slot(at: fault.gpa), slot.isGuestMemfd, !slot.file.isClosed else {
            return .badAddress
        }
        let inFile = slot.fileOffset + (fault.gpa - slot.range.start)
        let matches = sharedBit == nil || slot.file.attributes.state(at: inFile) == fault.wants
        return matches && slot.file.poisoned.contains(inFile) ? .hardwarePoisoned : .badAddress
    }

    /// What an access through this address takes the page for; nil where the page's attribute decides, so that
    /// nothing mismatches.
    ///
    /// On a default VM every access is shared. Linux 7.4 asks the file what the page is all the same, so a file that does
    /// not start shared cannot be touched; earlier versions do not ask.
    private func wantedState(of address: UInt64) -> PageState? {
        if let sharedBit { return address & (1 << sharedBit) != 0 ? .shared : .private }
        return type == .default && hasFileKinds ? .shared : nil
    }

    /// No access can mismatch, whatever a conversion does.
    var takesKindFromPage: Bool { sharedBit == nil && !(type == .default && hasFileKinds) }

    /// The page at an address, if its slot is read-only: the slot, and where in its file the page is.
    func readOnlyPage(at gpa: UInt64) -> (slot: Memslot, offset: UInt64)? {
        let page = withoutSharedBit(gpa) & ~(pageSize - 1)
        guard let slot = slots.slot(at: page), slot.isReadOnly, case .memory = target(of: page) else {
            return nil
        }
        return (slot, slot.fileOffset + (page - slot.range.start))
    }

    func withoutSharedBit(_ address: UInt64) -> UInt64 {
        sharedBit.map { address & ~(1 << $0) } ?? address
    }

    /// Walks the guest's 4-level tables, in guest memory, as a CPU would. Accessed and dirty bits are not written.
    ///
    /// - Parameter isReadable: whether who walks can read an entry at that guest-physical address; not is an exception.
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
            // CR0.WP: ring 0 may write read-only pages where it is clear.
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
            let offset = withoutSharedBit(address) - slot.range.start
            slot.noteMapped(offset)
            let bytes = unsafe slot.file.bytes(at: slot.fileOffset + offset)
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
