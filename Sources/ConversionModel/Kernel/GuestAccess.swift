// SPDX-License-Identifier: MIT
// The second stage: resolves guest-physical addresses and performs guest accesses.

/// The properties of a memslot that an access depends on.
public struct MemslotInfo: Hashable, Sendable {
    /// `kvm_userspace_memory_region2.slot`.
    public let number: UInt32
    /// Guest-physical, without the shared bit.
    public let range: PageRange
    /// The file that backs the slot. For a slot without a guest_memfd, the file that was mapped at
    /// `userspace_addr`.
    public let file: FileID
    /// Byte offset of the slot in the file.
    public let fileOffset: UInt64
    /// `userspace_addr`, through which KVM's own accesses go.
    public let userspaceAddress: UInt64
    /// `KVM_MEM_READONLY`: a guest's write is `KVM_EXIT_MMIO`.
    public let isReadOnly: Bool
    /// Index among the slots of the VM, valid until the slots change.
    let index: Int

    init(_ slot: KernelModel.Memslot, _ index: Int) {
        number = slot.number
        range = slot.range
        file = slot.file
        fileOffset = slot.fileOffset
        userspaceAddress = slot.userspaceAddress
        isReadOnly = slot.isReadOnly
        self.index = index
    }
}

/// The result of resolving a guest-physical address.
public enum Target: Hashable, Sendable {
    /// Memory of a slot. `run` is the range of guest-physical pages around the address, without the shared bit,
    /// that resolve in the same way.
    case memory(MemslotInfo, run: PageRange)
    /// No slot.
    case mmio
    /// `KVM_EXIT_MEMORY_FAULT`. Nil is `EFAULT` without an exit: the host mapping cannot provide the page.
    case fault(MemoryFault?)

    var isMemory: Bool { if case .memory = self { true } else { false } }
}

extension KernelModel {
    /// Resolves an address: finds its slot and compares the kind of the access with the attribute of the page.
    public func target(_ vm: VMID, of address: UInt64) -> Target {
        let gpa = self[vm].withoutSharedBit(address)
        let page = gpa & ~(pageSize - 1)
        let wants = self[vm].attributes?.value(at: page) ?? wantedState(vm, of: address)
        guard let index = self[vm].slotIndex(at: gpa) else {
            // Per-VM attributes can report private memory without a memslot. So can a CPU on which the access itself says that
            // it is private.
            let isReported = self[vm].attributes != nil || self[vm].type.isConfidential
            guard isReported, wants == .private else { return .mmio }
            return .fault(MemoryFault(gpa: page, size: pageSize, flags: MemoryFault.privateFlag))
        }
        let slot = MemslotInfo(self[vm].slots[index], index)
        let isGuestMemfd = self[vm].slots[index].isGuestMemfd
        let inFile = slot.fileOffset + (page - slot.range.start)
        if isGuestMemfd, isClosed(slot.file) { return fault(page, wants) }
        if isGuestMemfd, let attributes = self[vm].attributes {
            // Without the MMAP flag, a file has only the private pages; the shared ones are in ordinary memory.
            guard self[slot.file].flags.contains(.mmap) || wants == .private else { return .fault(nil) }
            return memory(slot, attributes.run(containing: page)?.range.intersection(slot.range), page, wants)
        }
        // A slot without a guest_memfd contains what the host has mapped there: shared pages, or nothing.
        if !isGuestMemfd {
            guard wants != .private else { return fault(page, wants) }
            guard self[slot.file].attributes.value(at: inFile) == .shared else { return .fault(nil) }
        }
        guard let needs = isGuestMemfd ? wants : .shared else {
            return memory(slot, slot.range, page, wants)
        }
        guard let run = self[slot.file].attributes.run(containing: inFile),
            run.value == needs || plants(.mismatchIgnored)
        else { return fault(page, wants) }
        let part = PageRange(start: slot.fileOffset, size: slot.range.size)?.intersection(run.range)
        guard let gpas = part?.offset(from: slot.fileOffset)?.advanced(by: slot.range.start) else {
            return .mmio
        }
        return isGuestMemfd ? memory(slot, gpas, page, wants) : .memory(slot, run: gpas)
    }

    private func memory(_ slot: MemslotInfo, _ run: PageRange?, _ page: UInt64, _ wants: PageState?) -> Target
    {
        guard let run else { return fault(page, wants) }
        guard !self[slot.file].poisoned.isEmpty else { return .memory(slot, run: run) }
        let place = slot.fileOffset + (page - slot.range.start)
        guard let inFile = run.offset(from: slot.range.start)?.advanced(by: slot.fileOffset),
            let sound = unpoisonedRun(slot.file, of: inFile, around: place)?.offset(from: slot.fileOffset)?
                .advanced(by: slot.range.start)
        else { return fault(page, wants) }
        return .memory(slot, run: sound)
    }

    private func fault(_ page: UInt64, _ wants: PageState?) -> Target {
        let isPrivate = (wants == .private) != plants(.faultFlagWrong)
        return .fault(
            MemoryFault(
                gpa: plants(.faultNamesNextPage) ? page + pageSize : page, size: pageSize,
                flags: isPrivate ? MemoryFault.privateFlag : 0))
    }

    /// The errno of `KVM_RUN` with a memory fault: `EHWPOISON` if the access has the right kind and the memory of
    /// the page has failed.
    public func error(_ vm: VMID, of fault: MemoryFault) -> ErrorNumber {
        guard let index = self[vm].slotIndex(at: fault.gpa), self[vm].slots[index].isGuestMemfd,
            !isClosed(self[vm].slots[index].file)
        else { return .badAddress }
        let slot = MemslotInfo(self[vm].slots[index], index)
        let inFile = slot.fileOffset + (fault.gpa - slot.range.start)
        let matches =
            self[vm].sharedBit == nil || self[slot.file].attributes.value(at: inFile) == fault.wants
        return matches && self[slot.file].poisoned.contains(inFile) ? .hardwarePoisoned : .badAddress
    }

    /// The state that an access through this address needs; nil if the access takes its kind from the page and so
    /// cannot mismatch.
    ///
    /// On a default VM every access is shared. Linux 7.4 compares that with the state of the page in the file, so
    /// the guest cannot access a file that starts private. Earlier versions do not compare.
    private func wantedState(_ vm: VMID, of address: UInt64) -> PageState? {
        if let bit = self[vm].sharedBit { return address & (1 << UInt64(bit)) != 0 ? .shared : .private }
        return self[vm].type == .default && hasFileStates(vm) ? .shared : nil
    }

    /// Whether accesses take their kind from the page, so that none can mismatch.
    func accessKindFollowsPage(_ vm: VMID) -> Bool {
        self[vm].sharedBit == nil && !(self[vm].type == .default && hasFileStates(vm))
    }

    /// Whether the state in the file applies, for VMs of every type.
    private func hasFileStates(_ vm: VMID) -> Bool {
        self[vm].type.hasPrivateMemory || rules.abi == .linux74 && rules.convertsInPlace
    }

    /// The address of the same page in the private alias; `address` itself on a VM without a shared bit.
    public func withoutSharedBit(_ vm: VMID, _ address: UInt64) -> UInt64 {
        self[vm].withoutSharedBit(address)
    }

    // MARK: accesses

    /// The result of a vCPU access to one byte.
    public enum Access: Hashable, Sendable {
        /// The byte that was read or written.
        case byte(Byte)
        /// `KVM_EXIT_MMIO`: there is no memslot, or the access is a write to a read-only memslot.
        case mmio
        /// `KVM_EXIT_MEMORY_FAULT` with `EFAULT`.
        case fault(MemoryFault)
        /// `KVM_EXIT_MEMORY_FAULT` with `EHWPOISON`: the memory of the page has failed.
        case poisoned(MemoryFault)
        /// `EFAULT` without an exit.
        case noPage
        /// The access raises an exception in the guest. The vCPU does not exit.
        case exception(GuestException)
        /// `KVM_RUN` fails with this errno and without an exit: `EIO` on a dead VM, `EINVAL` before the launch has ended.
        case error(ErrorNumber)
    }

    /// The location of a byte that a vCPU can access, or the reason why it cannot.
    public enum Reach: Hashable, Sendable {
        /// `offset` is in bytes from the start of the file. The bytes are read and written with this key.
        case memory(FileID, offset: UInt64, MemoryKey)
        /// The result of the access; never ``Access/byte(_:)``.
        case stopped(Access)
    }

    /// Resolves a vCPU access to one byte, and maps its page if the access succeeds.
    public mutating func reach(_ vm: VMID, _ gpa: UInt64, toWrite: Bool) -> Reach {
        if self[vm].confidential != nil { return reachEncrypted(vm, gpa, toWrite: toWrite) }
        return reach(target(vm, of: gpa), vm, gpa, toWrite: toWrite)
    }

    mutating func reach(_ target: Target, _ vm: VMID, _ gpa: UInt64, toWrite: Bool) -> Reach {
        if rules.faults.isPlanted, !target.isMemory, let stale = staleByte(vm, gpa) { return stale }
        switch target {
        case .mmio: return .stopped(.mmio)
        case .fault(let fault?):
            return .stopped(error(vm, of: fault) == .hardwarePoisoned ? .poisoned(fault) : .fault(fault))
        case .fault(nil): return .stopped(.noPage)
        case .memory(let slot, _) where slot.isReadOnly && toWrite: return .stopped(.mmio)
        case .memory(let slot, _):
            let offset = self[vm].withoutSharedBit(gpa) - slot.range.start
            noteMapped(vm, slot.index, offset)
            if toWrite { self[vm].slots[slot.index].noteWritten(offset) }
            return .memory(slot.file, offset: slot.fileOffset + offset, .host)
        }
    }

    /// The location of a byte that a planted fault has left in the second-stage tables.
    private func staleByte(_ vm: VMID, _ address: UInt64) -> Reach? {
        let gpa = self[vm].withoutSharedBit(address)
        func place(_ slot: Memslot) -> Reach? {
            guard slot.range.contains(gpa), case let offset = gpa - slot.range.start,
                slot.mapped.contains(offset & ~(pageSize - 1)), !isClosed(slot.file)
            else { return nil }
            return .memory(slot.file, offset: slot.fileOffset + offset, .host)
        }
        if plants(.guestMappingsKept), let index = self[vm].slotIndex(at: gpa) {
            return place(self[vm].slots[index])
        }
        return self[vm].stale.lazy.compactMap(place).first
    }

    /// Records a guest access: the page is mapped by reads, fetches and table walks, and a write also enters it
    /// into the dirty log.
    ///
    /// - Returns: the page of the file, if it was not mapped before.
    public mutating func noteGuestTouch(
        _ vm: VMID, at gpa: UInt64, isWrite: Bool
    ) -> (file: FileID, page: UInt64)? {
        let gpa = self[vm].withoutSharedBit(gpa)
        guard let slot = self[vm].slotIndex(at: gpa) else { return nil }
        let offset = gpa - self[vm].slots[slot].range.start
        let isNew = noteMapped(vm, slot, offset)
        if isWrite { self[vm].slots[slot].noteWritten(offset) }
        let page = self[vm].slots[slot].fileOffset + (offset & ~(pageSize - 1))
        return isNew ? (self[vm].slots[slot].file, page) : nil
    }

    /// Records a guest write: code that any vCPU has translated from the page is stale.
    public mutating func noteGuestWrite(_ vm: VMID, at gpa: UInt64) {
        let page = self[vm].withoutSharedBit(gpa) & ~(pageSize - 1)
        if let range = PageRange(start: page, size: pageSize) { note(.codeChanged(vm, range)) }
    }

    /// The page of the file at an address, if its slot is read-only.
    public func readOnlyPage(_ vm: VMID, at gpa: UInt64) -> (file: FileID, page: UInt64)? {
        let page = self[vm].withoutSharedBit(gpa) & ~(pageSize - 1)
        guard let index = self[vm].slotIndex(at: page), self[vm].slots[index].isReadOnly,
            case .memory(let slot, _) = target(vm, of: page)
        else { return nil }
        return (slot.file, slot.fileOffset + (page - slot.range.start))
    }

    // MARK: KVM's own accesses

    /// Whether KVM's own accesses, as in instruction emulation, go through `userspace_addr` and so cannot access
    /// private pages. A VM with a shared bit models a CPU on which the guest itself requests what KVM cannot
    /// emulate.
    public func kvmUsesHostMapping(_ vm: VMID) -> Bool {
        self[vm].type == .softwareProtected && self[vm].sharedBit == nil && rules.convertsInPlace
    }

    /// Whether KVM itself can read the byte: `userspace_addr` must lead to a host mapping, and the page there must
    /// be shared.
    public func isReadableByKVM(_ vm: VMID, _ gpa: UInt64) -> Bool {
        guard let index = self[vm].slotIndex(at: gpa) else { return false }
        let slot = self[vm].slots[index]
        let address = slot.userspaceAddress + (gpa - slot.range.start)
        guard let mapping = mapping(covering: address, size: 1), let start = self[mapping].address else {
            return false
        }
        let offset = self[mapping].fileOffset + (address - start)
        return self[self[mapping].file].attributes.value(at: offset) == .shared
    }

    /// Resolves a write of KVM's own structures into guest memory. It goes through `userspace_addr` and needs a
    /// shared page in a host mapping. A failure is not reported (hazard A28).
    ///
    /// - Returns: the location in the file; nil if KVM cannot write there.
    public mutating func reachForKVM(_ vm: VMID, at gpa: UInt64, size: UInt64) -> (
        file: FileID, offset: UInt64
    )? {
        guard let index = self[vm].slotIndex(at: gpa) else { return nil }
        let slot = self[vm].slots[index]
        let address = slot.userspaceAddress + (gpa - slot.range.start)
        guard slot.userspaceAddress != 0, let mapping = mapping(covering: address, size: size),
            let start = self[mapping].address,
            self[mapping].permitted(address - start, 1, toWrite: true) == 1,
            case let offset = slot.fileOffset + (gpa - slot.range.start),
            (try? faultIn(slot.file, offset, size, through: mapping)) == size,
            let pages = PageRange.covering(start: offset, size: size)
        else { return nil }
        noteHostWrite(slot.file, pages)
        self[vm].slots[index].noteWritten(gpa - slot.range.start)
        return (slot.file, offset)
    }
}
