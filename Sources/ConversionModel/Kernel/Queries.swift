// SPDX-License-Identifier: MIT
// State that no system call reports, for exploring the model and judging backends against it. Queries change
// nothing.

/// The result of reading one byte, without changing the model.
public enum VisibleByte: Hashable, Sendable {
    /// Readable. ``Byte/unknown`` if the interface leaves the contents undefined.
    case byte(Byte)
    /// Inaccessible to the host: the page is private, its memory has failed, or the byte is past the end of the
    /// file or mapping.
    case noPage
    /// The guest address has no memslot.
    case noMemslot
    /// The guest's access exits with `KVM_EXIT_MEMORY_FAULT`.
    case fault
}

extension KernelModel {
    /// The part of a file from byte 0 that a caller with a finite address space keeps in memory: 1 TiB.
    public static var backedBytes: UInt64 { 1 << 40 }

    /// Bytes.
    public func size(of file: FileID) -> UInt64 { self[file].size }
    /// The flags given to `KVM_CREATE_GUEST_MEMFD`.
    public func flags(of file: FileID) -> GuestMemfdFlags { self[file].flags }
    /// The state of each page by byte offset in the file. No system call reports it.
    public func attributes(of file: FileID) -> RunMap<PageState> { self[file].attributes }
    /// Pages that have been allocated.
    public func allocatedPages(of file: FileID) -> PageSet { self[file].allocated }
    /// References on the page that contains this byte, besides the file's own.
    public func references(on file: FileID, at offset: UInt64) -> UInt32 {
        self[file].references.value(at: offset) ?? 0
    }
    /// Number of pages of a range in the host's page tables, summed over all mappings.
    public func presentPages(of file: FileID, in range: PageRange) -> UInt64 {
        hostMappedPages(file, in: range)
    }

    /// The result of a host read of one byte of a mapping. Does not fault the page in.
    public func visibleToHost(_ mapping: MappingID, at offset: UInt64) -> VisibleByte {
        let here = self[mapping]
        guard offset < here.length, here.permitted(offset, 1, toWrite: false) == 1 else { return .noPage }
        return visibleToHost(here.file, at: here.fileOffset + offset)
    }

    /// The result of a host read of one byte of a file, through a mapping without special protection.
    public func visibleToHost(_ file: FileID, at offset: UInt64) -> VisibleByte {
        let isShared = self[file].attributes.value(at: offset) == .shared || plants(.hostReadsPrivate)
        guard offset < self[file].size, isShared, !self[file].poisoned.contains(offset & ~(pageSize - 1))
        else {
            return .noPage
        }
        return .byte(byte(file, at: offset))
    }

    /// The result of a vCPU read at a guest-physical address. With a shared bit the access is taken to have the kind of the
    /// page.
    public func visibleToGuest(_ vm: VMID, at gpa: UInt64) -> VisibleByte {
        guard let (file, offset, key) = guestByte(vm, at: gpa) else {
            return self[vm].slotIndex(at: self[vm].withoutSharedBit(gpa)) == nil ? .noMemslot : .fault
        }
        return .byte(byte(file, at: offset, with: key))
    }

    /// The location in a file of the byte at a guest-physical address; nil if a vCPU cannot read it.
    public func guestByte(_ vm: VMID, at gpa: UInt64) -> (file: FileID, offset: UInt64, MemoryKey)? {
        if self[vm].confidential != nil {
            if self[vm].isPrivate(gpa) {
                return guestByteOfEncryptedPage(vm, at: gpa).map { ($0.file, $0.offset, .guest) }
            }
            guard runError(vm) == nil, case .memory(let slot, _) = target(vm, of: gpa) else { return nil }
            return (slot.file, slot.fileOffset + (self[vm].withoutSharedBit(gpa) - slot.range.start), .host)
        }
        guard let index = self[vm].slotIndex(at: gpa) else { return nil }
        let slot = self[vm].slots[index]
        if slot.isGuestMemfd, isClosed(slot.file) { return nil }
        if self[vm].sharedBit == nil, case .fault = target(vm, of: gpa) { return nil }
        return (slot.file, slot.fileOffset + (gpa - slot.range.start), .host)
    }

    /// The references of a hold: its pages, and which of them were punched out of the file.
    public struct HoldState: Hashable, Sendable {
        let file: FileID
        let pages: PageRange?
        let detached: [Hold.Detached]
    }

    /// Two states are equal if no access through the holds can tell them apart.
    public func state(of hold: HoldID) -> HoldState {
        HoldState(file: self[hold].file, pages: self[hold].pages, detached: self[hold].detached)
    }

    /// The model without state that is only visible in statistics, and without holds, whose numbers depend on the
    /// order in which they were taken. If two models have equal `withoutStatistics` and equal ``HoldState`` for
    /// every hold, no result of a call or access can tell them apart.
    public var withoutStatistics: KernelModel {
        var model = self
        model.effects = []
        model.holds = Table()
        model.normalizeAddresses()
        if rules.abi.faultsHoldReferences { return model }
        // On SNP a read through the shared alias depends on the tables.
        for number in vms.numbers where vms[number].type != .snp {
            for slot in vms[number].slots.indices where vms[number].slots[slot].isGuestMemfd {
                model.vms[number].slots[slot].mapped = PageSet(size: vms[number].slots[slot].range.size)
            }
        }
        return model
    }

    /// Replaces the addresses of a process by addresses that depend only on the number of each mapping.
    private mutating func normalizeAddresses() {
        for number in vms.numbers {
            for slot in vms[number].slots.indices where vms[number].slots[slot].userspaceAddress != 0 {
                let old = vms[number].slots[slot].userspaceAddress
                guard let mapping = mapping(covering: old, size: 1), let start = self[mapping].address else {
                    continue
                }
                vms[number].slots[slot].userspaceAddress = Self.modelAddress(of: mapping) + (old - start)
            }
        }
        for number in mappings.numbers where mappings[number].address != nil {
            mappings[number].address = Self.modelAddress(of: MappingID(index: number))
        }
    }

    /// An address that does not overlap any other mapping.
    static func modelAddress(of mapping: MappingID) -> UInt64 {
        (UInt64(UInt32(bitPattern: mapping.index)) + 1) << 44
    }

    /// The address of the mapping in the process; nil for the mapping of a forked child.
    public func address(of mapping: MappingID) -> UInt64? { self[mapping].address }

    /// Sets the address of the mapping in the process, to which memslots refer.
    public mutating func place(_ mapping: MappingID, at address: UInt64) { self[mapping].address = address }
}
