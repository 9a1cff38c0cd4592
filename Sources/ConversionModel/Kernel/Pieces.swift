// SPDX-License-Identifier: MIT
// Calls and accesses that a kernel does in several pieces, with other actors in between. The calls themselves do all pieces
// at once.

extension KernelModel {
    // MARK: the host's faults

    /// The page at an offset is in the page tables, so that a reference on it needs no fault.
    public func isPresent(_ mapping: MappingID, at offset: UInt64) -> Bool {
        let here = self[mapping]
        return offset < here.length && here.isMapped && here.mapped.contains(offset & ~(pageSize - 1))
            && self[here.file].attributes.value(at: here.fileOffset + offset) == .shared
    }

    /// The protection of the page permits the access, and its memory has not failed under the mapping.
    public func permits(_ mapping: MappingID, at offset: UInt64, toWrite: Bool) -> Bool {
        self[mapping].permitted(offset, 1, toWrite: toWrite) == 1
    }

    /// Why `populate_read` or `populate_write` ends at a page that the host does not get.
    public func refusal(_ mapping: MappingID, at offset: UInt64, toWrite: Bool) -> ErrorNumber {
        let page = offset & ~(pageSize - 1)
        let here = self[mapping]
        guard here.isMapped else { return .noMemory }
        guard !here.failed.contains(page), !self[here.file].poisoned.contains(here.fileOffset + page) else {
            return .hardwarePoisoned
        }
        return permits(mapping, at: offset, toWrite: toWrite) ? .badAddress : .invalidArgument
    }

    /// A fault has found the page. It has a reference until the page is mapped, and a conversion to private finds it in use.
    ///
    /// - Returns: nil where the host gets no page.
    public mutating func beginFault(_ mapping: MappingID, at offset: UInt64) -> HoldID? {
        let here = self[mapping]
        let place = here.fileOffset + (offset & ~(pageSize - 1))
        guard offset < here.length, here.isMapped, place < self[here.file].size,
            self[here.file].attributes.value(at: place) == .shared,
            !self[here.file].poisoned.contains(place), let page = PageRange(start: place, size: pageSize)
        else { return nil }
        noteAllocated(here.file, page)
        return makeHold(here.file, page)
    }

    /// The page of a fault is mapped and its reference dropped. A page that was punched out meanwhile is not mapped: its fault
    /// begins again.
    public mutating func endFault(_ mapping: MappingID, _ fault: HoldID) {
        if self[fault].detached.isEmpty, let page = self[fault].pages, let own = self[mapping].own(page) {
            self[mapping].mapped.insert(own)
        }
        release(fault)
    }

    /// One more reference on a page that is mapped.
    public mutating func holdPage(_ mapping: MappingID, at offset: UInt64) -> HoldID? {
        PageRange(start: self[mapping].fileOffset + (offset & ~(pageSize - 1)), size: pageSize)
            .map { makeHold(self[mapping].file, $0) }
    }

    /// References on the pages of a part that are in page tables, as an unmapping has them until the CPUs' translations are
    /// flushed: one for each page, ascending.
    public mutating func holdPresent(_ mapping: MappingID, at offset: UInt64, length: UInt64) -> [HoldID] {
        guard let part = PageRange.covering(start: offset, size: length) else { return [] }
        let here = self[mapping]
        var references: [HoldID] = []
        for range in here.mapped.ranges(in: part) {
            for page in range.chunks(of: pageSize) {
                if let inFile = page.advanced(by: here.fileOffset) {
                    references.append(makeHold(here.file, inFile))
                }
            }
        }
        return references
    }

    /// The memory of the page fails that is at an offset of a mapping, whatever page it is by now.
    public mutating func failMemory(_ mapping: MappingID, at offset: UInt64) {
        let page = self[mapping].fileOffset + offset
        if self[self[mapping].file].allocated.contains(page) { poison(self[mapping].file, page: page) }
    }

    // MARK: a vCPU's faults

    /// What a fault takes an address for before it looks for the page: nothing keeps that from changing.
    public func isTakenForPrivate(_ vm: VMID, at gpa: UInt64) -> Bool {
        guard self[vm].type == .softwareProtected, let slot = self[vm].slotIndex(at: gpa) else {
            return false
        }
        return isPrivateInFile(vm, slot, gpa)
    }

    private func isPrivateInFile(_ vm: VMID, _ index: Int, _ gpa: UInt64) -> Bool {
        let slot = self[vm].slots[index]
        guard slot.isGuestMemfd, !isClosed(slot.file) else { return false }
        return self[slot.file].attributes.value(at: slot.fileOffset + (gpa - slot.range.start)) == .private
    }

    /// One page of `KVM_PRE_FAULT_MEMORY`.
    ///
    /// - Parameter isPrivate: what the fault took the address for. Where that has changed it is `EFAULT`.
    /// - Returns: nil for a success.
    public mutating func preFaultPage(_ vm: VMID, at gpa: UInt64, asPrivate isPrivate: Bool) -> ErrorNumber? {
        // With two aliases the address says it, and the target knows.
        if self[vm].sharedBit == nil {
            let statesCount =
                self[vm].type == .softwareProtected || rules.abi == .linux74 && rules.convertsInPlace
            let isPrivateNow =
                statesCount && self[vm].slotIndex(at: gpa).map { isPrivateInFile(vm, $0, gpa) } ?? false
            guard isPrivate == isPrivateNow else { return .badAddress }
        }
        guard let slot = self[vm].slotIndex(at: gpa) else { return .noSuchFileOrDirectory }
        guard !self[vm].slots[slot].isInvalid else { return .resourceTemporarilyUnavailable }
        switch target(vm, of: gpa) {
        case .memory: break
        case .fault(let fault?): return error(vm, of: fault)
        case .fault(nil), .mmio: return .badAddress
        }
        noteMapped(vm, slot, gpa - self[vm].slots[slot].range.start)
        return nil
    }

    /// The host mapping, and the place in it, through which a vCPU comes to a page that is not in its tables: that of a memslot
    /// without a guest_memfd. Nil for any other address.
    public func hostPage(_ vm: VMID, at gpa: UInt64) -> (mapping: MappingID, offset: UInt64)? {
        let page = gpa & ~(pageSize - 1)
        guard let index = self[vm].slotIndex(at: page) else { return nil }
        let slot = self[vm].slots[index]
        let offset = page - slot.range.start
        guard !slot.isGuestMemfd, !slot.mapped.contains(offset),
            let mapping = mapping(covering: slot.userspaceAddress + offset, size: pageSize),
            let start = self[mapping].address
        else { return nil }
        return (mapping, slot.userspaceAddress + offset - start)
    }

    /// The page at an address is in the second-stage tables.
    public func isMapped(_ vm: VMID, at gpa: UInt64) -> Bool {
        let page = gpa & ~(pageSize - 1)
        return self[vm].slotIndex(at: page).map {
            self[vm].slots[$0].mapped.contains(page - self[vm].slots[$0].range.start)
        } ?? false
    }

    /// A vCPU is about to write the page: it is in the dirty log from now on.
    ///
    /// - Returns: whether its slot has one.
    public mutating func beginGuestWrite(_ vm: VMID, at gpa: UInt64) -> Bool {
        guard let slot = self[vm].slotIndex(at: gpa), self[vm].slots[slot].written != nil,
            case .memory = target(vm, of: gpa)
        else { return false }
        self[vm].slots[slot].noteWritten(gpa - self[vm].slots[slot].range.start)
        return true
    }

    /// A vCPU is about to map the page, and in versions in which that takes a reference (hazard H2) has it until the hold is
    /// released.
    ///
    /// - Returns: nil where no such reference is taken, or the page is mapped already.
    public mutating func beginGuestFault(_ vm: VMID, at gpa: UInt64) -> HoldID? {
        let page = gpa & ~(pageSize - 1)
        guard rules.abi.faultsHoldReferences, let index = self[vm].slotIndex(at: page) else { return nil }
        let slot = self[vm].slots[index]
        let offset = page - slot.range.start
        guard !slot.mapped.contains(offset), !isClosed(slot.file),
            let inFile = PageRange(start: slot.fileOffset + offset, size: pageSize)
        else { return nil }
        noteAllocated(slot.file, inFile)
        return makeHold(slot.file, inFile)
    }

    /// A vCPU's fault has its page, and it is in the tables now.
    public mutating func endGuestFault(_ vm: VMID, at gpa: UInt64, _ fault: HoldID) {
        let page = gpa & ~(pageSize - 1)
        if let slot = self[vm].slotIndex(at: page), self[fault].detached.isEmpty {
            noteMapped(vm, slot, page - self[vm].slots[slot].range.start)
        }
        release(fault)
    }
}
