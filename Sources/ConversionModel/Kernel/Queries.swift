// SPDX-License-Identifier: MIT
// What no system call tells, for whoever explores the model or judges a kernel by it. Nothing changes.

/// What an actor finds at a byte if it looks now.
public enum VisibleByte: Hashable, Sendable {
    /// ``Byte/unknown`` where the interface leaves the contents undefined.
    case byte(Byte)
    /// The host gets no page: it is private, its memory has failed, or it is behind the end of the file or mapping.
    case noPage
    /// The guest finds no memslot.
    case noMemslot
    /// The guest's access leaves with `KVM_EXIT_MEMORY_FAULT`.
    case fault
}

extension KernelModel {
    /// Bytes.
    public func size(of file: FileID) -> UInt64 { self[file].size }
    /// As they were given to `KVM_CREATE_GUEST_MEMFD`.
    public func flags(of file: FileID) -> GuestMemfdFlags { self[file].flags }
    /// The state of each page by byte offset in the file. No system call reads it.
    public func attributes(of file: FileID) -> RunMap<PageState> { self[file].attributes }
    /// Pages that exist.
    public func allocatedPages(of file: FileID) -> PageSet { self[file].allocated }
    /// Pages of a range of a file that are in page tables of the host, counted for each mapping.
    public func presentPages(of file: FileID, in range: PageRange) -> UInt64 {
        hostMappedPages(file, in: range)
    }

    /// What the host finds at a byte of a mapping. Faults nothing in.
    public func visibleToHost(_ mapping: MappingID, at offset: UInt64) -> VisibleByte {
        let here = self[mapping]
        guard offset < here.length, here.permitted(offset, 1, toWrite: false) == 1 else { return .noPage }
        return visibleToHost(here.file, at: here.fileOffset + offset)
    }

    /// What the host finds at a byte of a file, through a mapping that has nothing special.
    public func visibleToHost(_ file: FileID, at offset: UInt64) -> VisibleByte {
        let isShared = self[file].attributes.value(at: offset) == .shared || plants(.hostReadsPrivate)
        guard offset < self[file].size, isShared, !self[file].poisoned.contains(offset & ~(pageSize - 1))
        else {
            return .noPage
        }
        return .byte(byte(file, at: offset))
    }

    /// What a vCPU finds at a guest-physical byte, on a VM whose accesses have the kind that the page has.
    public func visibleToGuest(_ vm: VMID, at gpa: UInt64) -> VisibleByte {
        guard let (file, offset) = guestByte(vm, at: gpa) else {
            return self[vm].slotIndex(at: gpa) == nil ? .noMemslot : .fault
        }
        return .byte(byte(file, at: offset))
    }

    /// The byte of a file that a vCPU finds at an address; nil where it finds none.
    public func guestByte(_ vm: VMID, at gpa: UInt64) -> (file: FileID, offset: UInt64)? {
        guard let index = self[vm].slotIndex(at: gpa) else { return nil }
        let slot = self[vm].slots[index]
        if slot.isGuestMemfd, isClosed(slot.file) { return nil }
        if self[vm].sharedBit == nil, case .fault = target(vm, of: gpa) { return nil }
        return (slot.file, slot.fileOffset + (gpa - slot.range.start))
    }

    /// The references of a hold: whose pages they are on, and which of them have left the file.
    public struct HoldState: Hashable, Sendable {
        let file: FileID
        let pages: PageRange?
        let detached: [Hold.Detached]
    }

    /// Two states are equal if no access through the holds could tell them apart.
    public func state(of hold: HoldID) -> HoldState {
        HoldState(file: self[hold].file, pages: self[hold].pages, detached: self[hold].detached)
    }

    /// The same kernel without what only statistics show, and without the holds, whose numbers depend on who took one
    /// first. Two of which this and the ``HoldState`` of every hold are equal cannot be told apart by the results of calls
    /// and accesses.
    public var withoutStatistics: KernelModel {
        var model = self
        model.effects = []
        model.holds = Table()
        model.giveOwnAddresses()
        if rules.abi.faultsHoldReferences { return model }
        for number in vms.numbers {
            for slot in vms[number].slots.indices where vms[number].slots[slot].isGuestMemfd {
                model.vms[number].slots[slot].mapped = PageSet(size: vms[number].slots[slot].range.size)
            }
        }
        return model
    }

    /// Addresses of the model itself for those of a process: every mapping has one that depends on its number alone.
    private mutating func giveOwnAddresses() {
        for number in vms.numbers {
            for slot in vms[number].slots.indices where vms[number].slots[slot].userspaceAddress != 0 {
                let old = vms[number].slots[slot].userspaceAddress
                guard let mapping = mapping(covering: old, size: 1), let start = self[mapping].address else {
                    continue
                }
                vms[number].slots[slot].userspaceAddress = Self.ownAddress(of: mapping) + (old - start)
            }
        }
        for number in mappings.numbers where mappings[number].address != nil {
            mappings[number].address = Self.ownAddress(of: MappingID(index: number))
        }
    }

    /// Far from those of all other mappings.
    static func ownAddress(of mapping: MappingID) -> UInt64 {
        (UInt64(UInt32(bitPattern: mapping.index)) + 1) << 44
    }

    /// Where the mapping is in the process; nil for a forked child's.
    public func address(of mapping: MappingID) -> UInt64? { self[mapping].address }

    /// A process has the mapping at this address, to which memslots refer.
    public mutating func place(_ mapping: MappingID, at address: UInt64) { self[mapping].address = address }
}
