// SPDX-License-Identifier: MIT
// What SNP and TDX VMs have in common: their launch, their accesses, and what conversions do to their pages.

extension KernelModel {
    /// The part of a VM that only SNP and TDX VMs have.
    struct ConfidentialVM: Hashable, Sendable {
        /// TDX: the secure EPT, by guest-physical address without the shared bit.
        var secureEPT: RunMap<SecureEPTEntry>
        /// TDX: whether a touch of a pending page raises #VE in the guest. It does unless SEPT_VE_DISABLE is set in the TD's
        /// attributes; Linux guests require it.
        var raisesVE = false
        /// `KVM_SEV_SNP_LAUNCH_FINISH` or `KVM_TDX_FINALIZE_VM` has been called.
        var isFinalized = false
        /// KVM has found a bug (`KVM_BUG_ON`) or the TD is gone: every `KVM_RUN` is `EIO`.
        var isDead = false
        /// Guest pages that the host has moved to other host pages, ascending.
        var moved: [MovedPage] = []

        /// - Parameter bits: the width of a guest-physical address without the shared bit.
        init(type: VMType, bits: Int) {
            secureEPT = RunMap(size: type == .tdx ? 1 << UInt64(bits) : 0, initial: .free)
        }
    }

    /// A guest page that a hypervisor has given another host page than its memslot says.
    struct MovedPage: Hashable, Sendable {
        let gpa: UInt64
        let file: FileID
        /// Offset in the file, bytes.
        let offset: UInt64
    }

    /// A guest page of a memslot and the host page behind it.
    struct EncryptedPlace {
        /// Without the shared bit.
        let gpa: UInt64
        let file: FileID
        /// Offset in the file, bytes.
        let offset: UInt64
        let slot: Int

        var page: PageRange? { PageRange(start: offset, size: pageSize) }
    }

    enum Placed {
        case success(EncryptedPlace)
        case failure(Access)
    }

    // MARK: the life of a VM

    /// Whether vCPUs may run: `KVM_SEV_SNP_LAUNCH_FINISH` or `KVM_TDX_FINALIZE_VM` has been called. True for every other type.
    public func isFinalized(_ vm: VMID) -> Bool { self[vm].confidential?.isFinalized ?? true }

    /// `KVM_SEV_SNP_LAUNCH_FINISH` or `KVM_TDX_FINALIZE_VM`.
    ///
    /// - Throws: `EINVAL` if the VM has been finalised, or is neither an SNP nor a TDX VM.
    public mutating func finalize(_ vm: VMID) throws(ErrorNumber) {
        guard let confidential = self[vm].confidential, !confidential.isFinalized else {
            throw .invalidArgument
        }
        self[vm].confidential?.isFinalized = true
    }

    /// Clears SEPT_VE_DISABLE, so that a touch of a pending page raises #VE instead of ending the TD.
    public mutating func raiseVE(_ vm: VMID) { self[vm].confidential?.raisesVE = true }

    /// Whether a touch of a pending page raises #VE.
    public func raisesVE(_ vm: VMID) -> Bool { self[vm].confidential?.raisesVE == true }

    /// `KVM_SEV_SNP_LAUNCH_UPDATE` or `KVM_TDX_INIT_MEM_REGION` of private pages, in place: the bytes that the host has put
    /// there become the guest's, validated or accepted, and the host no longer finds them.
    ///
    /// - Throws: `EINVAL` if the VM has been finalised, a page is shared or belongs to the guest already, or has no memslot.
    public mutating func launch(_ vm: VMID, _ range: PageRange) throws(ErrorNumber) {
        guard self[vm].confidential != nil, !isFinalized(vm) || plants(.launchAfterFinalize) else {
            throw .invalidArgument
        }
        for page in range.chunks(of: pageSize) {
            guard case .success(let place) = place(vm, of: page.start), let inFile = place.page,
                !belongsToGuest(place, vm)
            else { throw .invalidArgument }
            noteMapped(place, vm)
            if plants(.launchLosesContents) {
                note(.overwritten(place.file, inFile, .noise))
            } else if contents == .inside {
                let plaintext = self[place.file].bytes.page(at: place.offset)
                self[place.file].encrypted?.guestBytes.replace(place.offset, with: plaintext)
            }
            noteGuestContents(place.file, inFile.start, inFile.size)
            if self[vm].type == .tdx {
                set(vm, page, to: .mapped)
            } else {
                let entry = RMPEntry(state: .guestValid, vm: vm, distance: place.gpa &- place.offset)
                self[place.file].encrypted?.reverseMap.set(inFile, to: entry)
                noteGuestPage(vm, at: place.gpa)
            }
        }
    }

    private func belongsToGuest(_ place: EncryptedPlace, _ vm: VMID) -> Bool {
        if self[vm].type == .tdx { return secureEPTEntry(of: vm, at: place.gpa) != .free }
        return self[place.file].encrypted?.reverseMap.value(at: place.offset)?.state != .hypervisor
    }

    /// The errno with which `KVM_RUN` fails before it enters the guest; nil if it enters.
    public func runError(_ vm: VMID) -> ErrorNumber? {
        guard let confidential = self[vm].confidential else { return nil }
        if confidential.isDead, !plants(.deadGuestRuns) { return .ioError }
        return confidential.isFinalized ? nil : .invalidArgument
    }

    /// `KVM_BUG_ON`: the VM can only be closed.
    mutating func kill(_ vm: VMID) -> ErrorNumber {
        self[vm].confidential?.isDead = true
        return .ioError
    }

    // MARK: what a hypervisor can do behind the guest's back

    /// Moves a guest page to another host page: a remapping attack. On SNP the guest's next access finds the new page
    /// unvalidated, unless it was validated for this address before. On TDX the module takes the old page away, so the new one
    /// has to be accepted.
    ///
    /// - Throws: `EINVAL` if the guest page has no memslot, or the host page is not in the same file.
    public mutating func move(_ vm: VMID, _ gpa: UInt64, to file: FileID, at offset: UInt64)
        throws(ErrorNumber)
    {
        guard let place = backing(vm, of: gpa), place.file == file, offset % pageSize == 0,
            offset < self[file].size, let page = PageRange(start: place.gpa, size: pageSize)
        else { throw .invalidArgument }
        takeBack(vm, page)
        noteZapped(vm, place)
        self[vm].confidential?.moved.removeAll { $0.gpa == place.gpa }
        let slot = self[vm].slots[place.slot]
        if slot.fileOffset + (place.gpa - slot.range.start) != offset {
            self[vm].confidential?.moved.append(MovedPage(gpa: place.gpa, file: file, offset: offset))
            self[vm].confidential?.moved.sort { $0.gpa < $1.gpa }
        }
        noteGuestPage(vm, at: place.gpa)
    }

    /// Takes private pages from the guest without being asked: RMPUPDATE on SNP; BLOCK, TRACK and REMOVE on TDX.
    ///
    /// - Throws: `EINVAL` if a page has no memslot.
    public mutating func takeAway(_ vm: VMID, _ range: PageRange) throws(ErrorNumber) {
        for page in range.chunks(of: pageSize) {
            guard let place = backing(vm, of: page.start), let inFile = place.page else {
                throw .invalidArgument
            }
            if self[vm].type == .tdx { takeBack(vm, page) } else { unassign(place.file, inFile) }
            noteZapped(vm, place)
            noteGuestPage(vm, at: place.gpa)
        }
    }

    /// The place of a guest page in the file of its memslot, wherever the host has moved it.
    public func homePage(_ vm: VMID, of gpa: UInt64) -> (file: FileID, offset: UInt64)? {
        let page = self[vm].withoutSharedBit(gpa) & ~(pageSize - 1)
        guard let index = self[vm].slotIndex(at: page), self[vm].slots[index].isGuestMemfd else { return nil }
        let slot = self[vm].slots[index]
        return (slot.file, slot.fileOffset + (page - slot.range.start))
    }

    // MARK: accesses

    /// The host page behind a guest page, whatever its state; nil without a memslot that is backed by a guest_memfd.
    func backing(_ vm: VMID, of address: UInt64) -> EncryptedPlace? {
        let page = self[vm].withoutSharedBit(address) & ~(pageSize - 1)
        guard let index = self[vm].slotIndex(at: page), self[vm].slots[index].isGuestMemfd else { return nil }
        if let moved = self[vm].confidential?.moved.first(where: { $0.gpa == page }) {
            return EncryptedPlace(gpa: page, file: moved.file, offset: moved.offset, slot: index)
        }
        let slot = self[vm].slots[index]
        return EncryptedPlace(
            gpa: page, file: slot.file, offset: slot.fileOffset + (page - slot.range.start), slot: index)
    }

    /// The page that a private access of the guest reaches if it is private in the guest_memfd; otherwise how the access
    /// ends.
    func place(_ vm: VMID, of address: UInt64) -> Placed {
        switch target(vm, of: self[vm].withoutSharedBit(address)) {
        case .memory:
            guard let place = backing(vm, of: address) else { return .failure(.noPage) }
            return .success(place)
        case .mmio: return .failure(.mmio)
        case .fault(let fault?):
            return .failure(error(vm, of: fault) == .hardwarePoisoned ? .poisoned(fault) : .fault(fault))
        case .fault(nil): return .failure(.noPage)
        }
    }

    /// The CPU must walk the tables again before it accesses the page.
    mutating func noteZapped(_ vm: VMID, _ place: EncryptedPlace) {
        if let page = PageRange(start: place.gpa, size: pageSize) {
            note(.zapped(vm, page, keepsAccess: false))
        }
    }

    /// The memory that an access reaches, for a caller who keeps the bytes: the pages around it that are reached in the same
    /// way, and their place in a file.
    public struct Backing: Hashable, Sendable {
        /// Guest-physical, without the shared bit.
        public let pages: PageRange
        /// The file that has them.
        public let file: FileID
        /// Byte offset of the first page in the file.
        public let fileOffset: UInt64
        /// `KVM_MEM_READONLY`.
        public let isReadOnly: Bool
        /// Whether the bytes in the file are not those that the access finds: the host's view of a page that belongs to the
        /// guest (SNP).
        public let isCiphertext: Bool
    }

    /// The result of resolving an address for a caller who keeps the bytes.
    public enum Resolution: Hashable, Sendable {
        /// Memory.
        case memory(Backing)
        /// Everything else; never ``Access/byte(_:)``. A memory fault of a VM that is not confidential is
        /// ``Access/fault(_:)`` or ``Access/noPage``, whatever has happened to the page's memory.
        case stopped(Access)
    }

    /// Resolves an address for an access of a vCPU. On SNP and TDX this has the effects of the access on the host's tables.
    public mutating func resolve(_ vm: VMID, _ address: UInt64, toWrite: Bool) -> Resolution {
        guard self[vm].confidential != nil else {
            switch target(vm, of: address) {
            case .mmio: return .stopped(.mmio)
            case .fault(let fault?): return .stopped(.fault(fault))
            case .fault(nil): return .stopped(.noPage)
            case .memory(let slot, let run):
                return .memory(
                    Backing(
                        pages: run, file: slot.file,
                        fileOffset: slot.fileOffset + (run.start - slot.range.start),
                        isReadOnly: slot.isReadOnly, isCiphertext: false))
            }
        }
        switch reachEncrypted(vm, address, toWrite: toWrite) {
        case .stopped(let access): return .stopped(access)
        case .memory(let file, let offset, let key):
            let gpa = self[vm].withoutSharedBit(address) & ~(pageSize - 1)
            guard let page = PageRange(start: gpa, size: pageSize) else { return .stopped(.noPage) }
            let isOwn = self[vm].isPrivate(address)
            let pages = isOwn ? ownRun(vm, around: gpa, file) ?? page : page
            let start = (offset & ~(pageSize - 1)) &- (gpa - pages.start)
            return .memory(
                Backing(
                    pages: pages, file: file, fileOffset: start, isReadOnly: false,
                    isCiphertext: !isOwn && key == .host
                        && self[file].attributes.value(at: offset) == .private))
        }
    }

    /// The private pages around one that the guest can use in the same way.
    private func ownRun(_ vm: VMID, around gpa: UInt64, _ file: FileID) -> PageRange? {
        guard let confidential = self[vm].confidential, confidential.moved.isEmpty,
            let index = self[vm].slotIndex(at: gpa)
        else { return nil }
        let slot = self[vm].slots[index]
        let inFile = slot.fileOffset + (gpa - slot.range.start)
        guard let states = self[file].attributes.run(containing: inFile)?.range,
            let part = slot.inFile?.intersection(states)
        else { return nil }
        if self[vm].type == .tdx {
            guard let gpas = part.offset(from: slot.fileOffset)?.advanced(by: slot.range.start) else {
                return nil
            }
            return confidential.secureEPT.run(containing: gpa)?.range.intersection(gpas)
        }
        guard let run = self[file].encrypted?.reverseMap.run(containing: inFile)?.range.intersection(part)
        else {
            return nil
        }
        return run.offset(from: slot.fileOffset)?.advanced(by: slot.range.start)
    }

    mutating func noteMapped(_ place: EncryptedPlace, _ vm: VMID) {
        noteMapped(vm, place.slot, place.gpa - self[vm].slots[place.slot].range.start)
    }

    /// A vCPU access of a confidential VM to one byte.
    mutating func reachEncrypted(_ vm: VMID, _ address: UInt64, toWrite: Bool) -> Reach {
        if let error = runError(vm) { return .stopped(.error(error)) }
        guard self[vm].isPrivate(address) else { return reachShared(vm, address, toWrite: toWrite) }
        switch place(vm, of: address) {
        case .failure(let access): return .stopped(access)
        case .success(let place):
            let inPage = address & (pageSize - 1)
            if self[vm].type == .tdx {
                if let error = augment(place, vm) { return .stopped(.error(error)) }
                if secureEPTEntry(of: vm, at: place.gpa) == .pending, !plants(.unvalidatedPageReadable) {
                    return .stopped(touchOfPendingPage(vm, place))
                }
            } else {
                assign(place, to: vm)
                noteMapped(place, vm)
                let entry = self[place.file].encrypted?.reverseMap.value(at: place.offset)
                if entry?.state != .guestValid, !plants(.unvalidatedPageReadable) {
                    return .stopped(
                        plants(.unvalidatedTouchExits) ? .fault(fault(at: place)) : .exception(.vc))
                }
            }
            let key: MemoryKey = plants(.guestReadsHostPlaintext) ? .host : .guest
            return .memory(place.file, offset: place.offset + inPage, key)
        }
    }

    private mutating func touchOfPendingPage(_ vm: VMID, _ place: EncryptedPlace) -> Access {
        if plants(.unvalidatedTouchExits) { return .fault(fault(at: place)) }
        if self[vm].confidential?.raisesVE == true { return .exception(.ve) }
        return .error(kill(vm))
    }

    private func fault(at place: EncryptedPlace) -> MemoryFault {
        MemoryFault(gpa: place.gpa, size: pageSize, flags: MemoryFault.privateFlag)
    }

    /// An access through the shared alias. SNP does not check reads: if the page is mapped as private memory, the guest
    /// reads its own ciphertext.
    private mutating func reachShared(_ vm: VMID, _ address: UInt64, toWrite: Bool) -> Reach {
        let target = target(vm, of: address)
        let inPage = address & (pageSize - 1)
        if let place = backing(vm, of: address), case .fault = target {
            if plants(.privateReachedThroughSharedAlias) {
                return .memory(place.file, offset: place.offset + inPage, .guest)
            }
            let offset = place.gpa - self[vm].slots[place.slot].range.start
            if self[vm].type == .snp, !toWrite, self[vm].slots[place.slot].mapped.contains(offset),
                !plants(.ciphertextReadExits)
            {
                return .memory(place.file, offset: place.offset + inPage, .host)
            }
        }
        return reach(target, vm, address, toWrite: toWrite)
    }

    /// The byte that a private access finds without changing anything; nil if it finds none.
    func guestByteOfEncryptedPage(_ vm: VMID, at gpa: UInt64) -> (file: FileID, offset: UInt64)? {
        guard runError(vm) == nil, case .success(let place) = place(vm, of: gpa) else { return nil }
        let isUsable: Bool
        if self[vm].type == .tdx {
            isUsable = secureEPTEntry(of: vm, at: gpa) == .mapped
        } else {
            let entry = self[place.file].encrypted?.reverseMap.value(at: place.offset)
            isUsable =
                entry?.state == .guestValid
                && entry?.isAssigned(to: vm, distance: place.gpa &- place.offset) == true
        }
        return isUsable ? (place.file, place.offset + (gpa & (pageSize - 1))) : nil
    }

    // MARK: conversions

    /// Converts the pages of a confidential VM. To shared, the host takes them from the guest at once. To
    /// private, nothing happens before the guest's first access.
    mutating func convertEncrypted(_ file: FileID, _ range: PageRange, to state: PageState) {
        guard state == .shared else { return noteUnassigned(file, range, whichAre: .shared) }
        takeFromGuest(file, range)
    }

    /// Takes the pages of a file from the guest, because they are converted or punched out.
    mutating func takeFromGuest(_ file: FileID, _ range: PageRange) {
        if self[file].vmType == .snp {
            if !plants(.conversionKeepsEntry) { unassign(file, range) }
            return
        }
        forEachSlot(of: file, serving: range) { model, vm, slot, part in
            if let gpas = part.advanced(by: model[vm].slots[slot].range.start) { model.takeBack(vm, gpas) }
        }
    }
}

/// An exception that an access of a confidential guest raises in the guest itself.
public enum GuestException: Hashable, Sendable {
    /// #VC (29) with error code 0x404: the page is assigned to the guest but not validated (SNP).
    case vc
    /// #VE (20): the page is pending, and SEPT_VE_DISABLE is clear (TDX).
    case ve
}
