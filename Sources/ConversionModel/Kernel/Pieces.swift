// SPDX-License-Identifier: MIT
// The atomic pieces of calls and accesses between which other threads can run. The calls themselves perform all
// their pieces at once.

extension KernelModel {
    // MARK: the host's faults

    /// Whether the page at an offset is in the page tables and shared, so that taking a reference needs no fault.
    public func isPresent(_ mapping: MappingID, at offset: UInt64) -> Bool {
        let here = self[mapping]
        return offset < here.length && here.isMapped && here.mapped.contains(offset & ~(pageSize - 1))
            && self[here.file].attributes.value(at: here.fileOffset + offset) == .shared
    }

    /// Whether the protection of the page permits the access and its memory has not failed.
    public func permits(_ mapping: MappingID, at offset: UInt64, toWrite: Bool) -> Bool {
        self[mapping].permitted(offset, 1, toWrite: toWrite) == 1
    }

    /// The error with which `populate_read` or `populate_write` stops at a page that is inaccessible.
    public func refusal(_ mapping: MappingID, at offset: UInt64, toWrite: Bool) -> ErrorNumber {
        let page = offset & ~(pageSize - 1)
        let here = self[mapping]
        guard here.isMapped else { return .noMemory }
        guard !here.failed.contains(page), !self[here.file].poisoned.contains(here.fileOffset + page) else {
            return .hardwarePoisoned
        }
        return permits(mapping, at: offset, toWrite: toWrite) ? .badAddress : .invalidArgument
    }

    /// First piece of a host fault: takes a reference on the page, which is held until the page is mapped.
    /// Meanwhile a conversion to private finds the page in use.
    ///
    /// - Returns: nil if the host cannot access the page.
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

    /// Last piece of a host fault: maps the page and drops the reference. A page that was punched out in between is
    /// not mapped, and the fault starts again.
    public mutating func endFault(_ mapping: MappingID, _ fault: HoldID) {
        if self[fault].detached.isEmpty, let page = self[fault].pages,
            let own = self[mapping].offsets(of: page)
        {
            self[mapping].mapped.insert(own)
        }
        release(fault)
    }

    /// Takes one more reference on a mapped page.
    public mutating func holdPage(_ mapping: MappingID, at offset: UInt64) -> HoldID? {
        PageRange(start: self[mapping].fileOffset + (offset & ~(pageSize - 1)), size: pageSize)
            .map { makeHold(self[mapping].file, $0) }
    }

    /// Takes references on the mapped pages of a part, as an unmapping does until the TLBs are flushed: one hold
    /// for each page, ascending.
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

    /// Fails the memory of the page that is at an offset of a mapping now.
    public mutating func failMemory(_ mapping: MappingID, at offset: UInt64) {
        let page = self[mapping].fileOffset + offset
        if self[self[mapping].file].allocated.contains(page) { poison(self[mapping].file, page: page) }
    }

    // MARK: a vCPU's faults

    /// Whether a fault treats the address as private. It reads the state before it looks up the page, and the state
    /// can change in between.
    public func isFaultedAsPrivate(_ vm: VMID, at gpa: UInt64) -> Bool {
        guard self[vm].type.hasPrivateMemory, let slot = self[vm].slotIndex(at: gpa) else {
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
    /// - Parameter isPrivate: whether the fault started as private. If the page has changed state since, the call
    ///   is `EFAULT`.
    /// - Returns: nil for a success.
    public mutating func preFaultPage(_ vm: VMID, at gpa: UInt64, asPrivate isPrivate: Bool) -> ErrorNumber? {
        // With two aliases the address gives the kind, and `target` compares it.
        if self[vm].sharedBit == nil {
            let statesCount =
                self[vm].type.hasPrivateMemory || rules.abi == .linux74 && rules.convertsInPlace
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

    /// The host mapping, and the offset in it, from which a vCPU fault gets a page of a memslot without a
    /// guest_memfd. Nil for other addresses and for pages that are already mapped.
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

    /// Whether the page at an address is in the second-stage tables.
    public func isMapped(_ vm: VMID, at gpa: UInt64) -> Bool {
        let page = gpa & ~(pageSize - 1)
        return self[vm].slotIndex(at: page).map {
            self[vm].slots[$0].mapped.contains(page - self[vm].slots[$0].range.start)
        } ?? false
    }

    /// Enters the page into the dirty log before a vCPU writes to it.
    ///
    /// - Returns: whether the slot of the page has a dirty log.
    public mutating func beginGuestWrite(_ vm: VMID, at gpa: UInt64) -> Bool {
        guard let slot = self[vm].slotIndex(at: gpa), self[vm].slots[slot].written != nil,
            case .memory = target(vm, of: gpa)
        else { return false }
        self[vm].slots[slot].noteWritten(gpa - self[vm].slots[slot].range.start)
        return true
    }

    /// First piece of a vCPU fault. In versions with hazard H2 it takes a reference on the page, which is held
    /// until the hold is released.
    ///
    /// - Returns: nil if the version takes no such reference or the page is already mapped.
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

    /// Last piece of a vCPU fault: maps the page and drops the reference.
    public mutating func endGuestFault(_ vm: VMID, at gpa: UInt64, _ fault: HoldID) {
        let page = gpa & ~(pageSize - 1)
        if let slot = self[vm].slotIndex(at: page), self[fault].detached.isEmpty {
            noteMapped(vm, slot, page - self[vm].slots[slot].range.start)
        }
        release(fault)
    }
}
