// SPDX-License-Identifier: MIT
// VMs and their memslots: `KVM_SET_USER_MEMORY_REGION2` and other calls on a VM.

extension KernelModel {
    struct VM: TableElement {
        var type = VMType.default
        /// The bit of a guest-physical address that selects the shared alias.
        var sharedBit: Int?
        /// Ascending by address.
        var slots: [Memslot] = []
        /// Per-VM attributes by guest-physical address (Linux 6.8 to 7.3); nil if files have the attributes.
        var attributes: RunMap<PageState>?
        /// Deleted slots that a planted fault has left in the tables.
        var stale: [Memslot] = []
        /// For SNP and TDX.
        var confidential: ConfidentialVM?

        static var vacant: VM { VM() }

        func withoutSharedBit(_ address: UInt64) -> UInt64 {
            sharedBit.map { address & ~(1 << UInt64($0)) } ?? address
        }

        /// Whether an access through this address is private.
        func isPrivate(_ address: UInt64) -> Bool {
            sharedBit.map { address & (1 << UInt64($0)) == 0 } ?? false
        }

        /// Index of the slot at an address without the shared bit.
        func slotIndex(at gpa: UInt64) -> Int? {
            let index = partition(slots.count) { slots[$0].range.end <= gpa }
            return index < slots.count && slots[index].range.contains(gpa) ? index : nil
        }

        func slotIndex(number: UInt32) -> Int? { slots.firstIndex { $0.number == number } }
    }

    /// A memslot: a range of guest-physical addresses and the file that backs it.
    struct Memslot: Hashable, Sendable {
        let number: UInt32
        /// `KVM_MEM_*`. Dirty logging can be switched on and off in slots without a guest_memfd.
        var flags: UInt32
        /// Guest-physical, without the shared bit.
        let range: PageRange
        var userspaceAddress: UInt64
        let file: FileID
        /// Byte offset of the slot in the file.
        let fileOffset: UInt64
        /// Pages in the second-stage tables, by byte offset in the slot.
        var mapped: PageSet
        /// Dirty log: pages that the guest has written or faulted in since the log was last read; nil without
        /// `KVM_MEM_LOG_DIRTY_PAGES`.
        var written: PageSet?
        /// KVM_MEMSLOT_INVALID: the slot is being deleted or moved, and its pages have been removed from the
        /// tables.
        var isInvalid = false

        init(_ region: UserspaceMemoryRegion, _ range: PageRange, _ file: FileID, fileOffset: UInt64) {
            number = region.slot
            flags = region.flags
            self.range = range
            userspaceAddress = region.userspaceAddress
            self.file = file
            self.fileOffset = fileOffset
            mapped = PageSet(size: range.size)
            written = flags & UserspaceMemoryRegion.logDirtyPages != 0 ? mapped : nil
        }

        /// Whether the slot is backed by a guest_memfd; otherwise by the mapping at `userspace_addr`.
        var isGuestMemfd: Bool { flags & UserspaceMemoryRegion.guestMemfd != 0 }
        /// Whether writes are MMIO.
        var isReadOnly: Bool { flags & UserspaceMemoryRegion.readOnly != 0 }
        /// The pages of the file that back the slot.
        var inFile: PageRange? { PageRange(start: fileOffset, size: range.size) }
        var pages: PageRange? { PageRange(start: 0, size: range.size) }

        /// Enters the page at this offset into the dirty log, if there is one.
        mutating func noteWritten(_ offset: UInt64) {
            if let page = PageRange.covering(start: offset, size: 1) { written?.insert(page) }
        }

        /// Sets the flags. A dirty log that is switched on starts empty.
        mutating func setFlags(_ new: UInt32) {
            let isLogged = new & UserspaceMemoryRegion.logDirtyPages != 0
            if isLogged != (written != nil) { written = isLogged ? PageSet(size: range.size) : nil }
            flags = new
        }
    }

    /// `KVM_CAP_NR_MEMSLOTS`
    public static var slotLimit: UInt32 { 32764 }
    /// `KVM_MEM_MAX_NR_PAGES`, in bytes.
    private static var largestSlot: UInt64 { (UInt64(1) << 31 - 1) * pageSize }
    /// Width of a guest-physical address.
    public static var guestPhysicalBits: Int { 40 }

    // MARK: VMs

    /// `KVM_CREATE_VM`.
    ///
    /// - Parameter sharedBit: 12 to 39, on a VM with private memory. This bit of the address then selects the kind
    ///   of an access. An SNP or TDX VM must have one: on TDX it is the shared bit of the address, and on SNP the C-bit,
    ///   inverted.
    /// - Throws: `EINVAL` if `sharedBit` is not from 12 to 39, the type has no private memory, or the rules are not those of
    ///   Linux 7.4 with conversion in place, the only ones that the model has for SNP and TDX.
    public mutating func createVM(_ type: VMType, sharedBit: Int? = nil) throws(ErrorNumber) -> VMID {
        if let sharedBit {
            guard type.hasPrivateMemory, (12..<Self.guestPhysicalBits).contains(sharedBit) else {
                throw .invalidArgument
            }
        }
        var vm = VM(type: type, sharedBit: sharedBit)
        if type.isConfidential {
            guard let sharedBit, rules.abi == .linux74, rules.convertsInPlace, rules.contentDesign == nil
            else {
                throw .invalidArgument
            }
            vm.confidential = ConfidentialVM(type: type, bits: sharedBit)
        }
        if type == .softwareProtected, !rules.convertsInPlace {
            vm.attributes = RunMap(size: .max & ~(pageSize - 1), initial: .shared)
        }
        return VMID(index: vms.insert(vm))
    }

    /// Removes the VM and its memslots.
    public mutating func forget(_ vm: VMID) {
        let files = self[vm].slots.map { $0.file }
        vms.remove(vm.index)
        for (index, file) in files.enumerated() where !files[..<index].contains(file) { removeIfUnused(file) }
    }

    /// The type given to `KVM_CREATE_VM`.
    public func type(of vm: VMID) -> VMType { self[vm].type }
    /// The bit of a guest-physical address that selects the shared alias, 12 to 39; nil if the VM has none.
    public func sharedBit(of vm: VMID) -> Int? { self[vm].sharedBit }
    /// The effect on contents that the VM promises for conversions.
    public func contentPromise(of vm: VMID) -> ContentPromise {
        switch self[vm].type {
        case .softwareProtected: rules.contentPromise
        case .default: .undefined
        // Before the launch has ended, memory becomes private with the bytes that are then measured in.
        case .snp, .tdx:
            isFinalized(vm) ? .encrypted : ContentPromise(toPrivate: .preserved, toShared: .undefined)
        }
    }

    // MARK: memslots

    /// `KVM_SET_USER_MEMORY_REGION2`: creates, moves or deletes a slot.
    ///
    /// - Parameter descriptor: the guest_memfd of the region; nil if its number is no open descriptor.
    /// - Throws: `EINVAL` if a flag is unknown or not allowed with a guest_memfd, the number or size is above its
    ///   limit, an address or the size is not page aligned, the range exceeds the guest-physical address space, the
    ///   call deletes a slot that does not exist or changes one in a way that KVM does not support, the range
    ///   exceeds the file, or the file belongs to another VM. `EEXIST` if another slot contains some of the
    ///   addresses or of the pages of the file. `EBADF` if the descriptor is nil or closed, `EFAULT` if no host
    ///   mapping covers the region of a slot without a guest_memfd, ``Rules/noBackingMemory`` if the range of the
    ///   file reaches past ``Rules/memoryLimit``.
    public mutating func setMemoryRegion(
        _ vm: VMID, _ region: UserspaceMemoryRegion, guestMemfd descriptor: DescriptorID? = nil
    ) throws(ErrorNumber) {
        // Dirty logging and read-only are rejected with a guest_memfd.
        let known =
            region.flags & UserspaceMemoryRegion.guestMemfd != 0
            ? UserspaceMemoryRegion.guestMemfd
            : UserspaceMemoryRegion.logDirtyPages | UserspaceMemoryRegion.readOnly
        guard region.flags & ~known == 0 else { throw .invalidArgument }
        guard region.slot < Self.slotLimit, region.memorySize <= Self.largestSlot else {
            throw .invalidArgument
        }
        guard region.memorySize % pageSize == 0, region.guestPhysicalAddress % pageSize == 0,
            region.userspaceAddress % pageSize == 0
        else { throw .invalidArgument }
        let old = self[vm].slotIndex(number: region.slot)
        guard region.memorySize > 0 else {
            guard let old else { throw .invalidArgument }
            return removeIfUnused(removeSlot(vm, old))
        }
        guard let range = PageRange(start: region.guestPhysicalAddress, size: region.memorySize),
            range.end <= UInt64(1) << UInt64(self[vm].sharedBit ?? Self.guestPhysicalBits)
        else { throw .invalidArgument }
        if let old {
            // A slot with a guest_memfd cannot be changed, only deleted. Others can be moved, or change dirty
            // logging.
            let slot = self[vm].slots[old]
            let fixed = UserspaceMemoryRegion.readOnly | UserspaceMemoryRegion.guestMemfd
            guard (region.flags ^ slot.flags) & fixed == 0, !slot.isGuestMemfd, range.size == slot.range.size,
                region.userspaceAddress == slot.userspaceAddress
            else { throw .invalidArgument }
            if range == slot.range { return self[vm].slots[old].setFlags(region.flags) }
        }
        for (index, slot) in self[vm].slots.enumerated() where index != old {
            guard slot.range.intersection(range) == nil else { throw .fileExists }
        }
        let new = try makeSlot(vm, region, range, descriptor)
        let oldFile = old.map { removeSlot(vm, $0) }
        let place = self[vm].slots.firstIndex { $0.range.start > range.start }
        self[vm].slots.insert(new, at: place ?? self[vm].slots.endIndex)
        if let oldFile { removeIfUnused(oldFile) }
    }

    private func makeSlot(
        _ vm: VMID, _ region: UserspaceMemoryRegion, _ range: PageRange, _ descriptor: DescriptorID?
    ) throws(ErrorNumber) -> Memslot {
        guard region.flags & UserspaceMemoryRegion.guestMemfd != 0 else {
            guard let mapping = mapping(covering: region.userspaceAddress, size: range.size),
                let start = self[mapping].address
            else { throw .badAddress }
            let offset = self[mapping].fileOffset + (region.userspaceAddress - start)
            return Memslot(region, range, self[mapping].file, fileOffset: offset)
        }
        guard let descriptor, isOpen(descriptor) else { throw .badFileDescriptor }
        let file = file(of: descriptor)
        guard self[file].owner == vm || plants(.foreignFileBound),
            let inFile = PageRange(start: region.guestMemfdOffset, size: range.size),
            inFile.end <= self[file].size
        else { throw .invalidArgument }
        guard rules.hasMemory(self[file].size, offset: inFile.start, length: inFile.size) else {
            throw Rules.noBackingMemory
        }
        guard !isBound(file, inFile) || plants(.pageBoundTwice) else { throw .fileExists }
        return Memslot(region, range, file, fileOffset: inFile.start)
    }

    /// Removes a slot from the VM.
    ///
    /// - Returns: the file that backed the slot.
    private mutating func removeSlot(_ vm: VMID, _ slot: Int) -> FileID {
        zapSlot(vm, slot)
        let old = self[vm].slots.remove(at: slot)
        if plants(.deletedSlotStaysMapped) { self[vm].stale.append(old) }
        if plants(.attributesLostWithSlot), let pages = old.inFile {
            self[old.file].attributes.set(pages, to: self[old.file].initialState)
        }
        return old.file
    }

    /// Removes the pages of a slot that is deleted or moved from the tables. On a default VM this removes the pages
    /// of all slots (`KVM_X86_QUIRK_SLOT_ZAP_ALL`).
    private mutating func zapSlot(_ vm: VMID, _ slot: Int) {
        guard !plants(.deletedSlotStaysMapped) else { return }
        zapAll(vm, slot)
        if self[vm].confidential != nil {
            let range = self[vm].slots[slot].range
            takeBack(vm, range)
            self[vm].confidential?.moved.removeAll { range.contains($0.gpa) }
        }
        guard self[vm].type == .default else { return }
        for other in self[vm].slots.indices { zapAll(vm, other) }
    }

    /// `KVM_GET_DIRTY_LOG`: the first 64 pages of a slot that were written since the last call, one bit each.
    ///
    /// - Throws: `EINVAL` if the number is not below ``slotLimit``; `ENOENT` if the slot does not exist or has no
    ///   dirty log.
    public mutating func takeDirtyLog(_ vm: VMID, slot number: UInt32) throws(ErrorNumber) -> UInt64 {
        guard number < Self.slotLimit else { throw .invalidArgument }
        guard let slot = self[vm].slotIndex(number: number), let log = self[vm].slots[slot].written else {
            throw .noSuchFileOrDirectory
        }
        self[vm].slots[slot].written = PageSet(size: log.size)
        var bits: UInt64 = 0
        for page in 0..<UInt64(64) where log.contains(page * pageSize) { bits |= 1 << page }
        return bits
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES` on a VM: the call of Linux 6.8 to 7.3, and of later versions without in-place
    /// conversion.
    ///
    /// - Parameters:
    ///   - address: guest-physical, page aligned.
    ///   - size: bytes, page aligned.
    /// - Throws: `ENOTTY` with in-place conversion; `EINVAL` if flags are not 0, an attribute is
    ///   unknown to the VM type, or the range is empty, not page aligned or wraps.
    public mutating func setVMAttributes(
        _ vm: VMID, address: UInt64, size: UInt64, attributes: UInt64, flags: UInt64
    ) throws(ErrorNumber) {
        guard !rules.convertsInPlace else { throw .inappropriateIOCTLForDevice }
        let known = self[vm].attributes == nil ? 0 : MemoryAttributes.private
        guard flags == 0, attributes & ~known == 0, let range = PageRange(start: address, size: size) else {
            throw .invalidArgument
        }
        let state: PageState = attributes == 0 ? .shared : .private
        if self[vm].attributes?.uniformValue(of: range) == state { return }
        self[vm].attributes?.set(range, to: state)
        for slot in self[vm].slots.indices {
            let here = self[vm].slots[slot].range
            if let part = here.intersection(range)?.offset(from: here.start) {
                zap(vm, slot, part, deleted: true)
            }
        }
    }

    // MARK: second-stage tables

    /// Number of pages in the second-stage tables of a VM (the statistic `pages_4k`). A page is added when a vCPU
    /// first reads, writes or fetches from it, or walks it as a page table.
    public func mappedPages(of vm: VMID) -> UInt64 {
        var sum: UInt64 = 0
        for slot in self[vm].slots { sum += slot.mapped.count }
        return sum
    }

    /// Maps the page at an offset of a slot into the guest's tables, and allocates it.
    ///
    /// - Returns: whether the page was not mapped before.
    @discardableResult
    mutating func noteMapped(_ vm: VMID, _ slot: Int, _ offset: UInt64) -> Bool {
        let page = offset & ~(pageSize - 1)
        guard let range = PageRange(start: page, size: pageSize), page < self[vm].slots[slot].range.size,
            !self[vm].slots[slot].mapped.contains(page)
        else { return false }
        self[vm].slots[slot].mapped.insert(range)
        // The page is mapped writable, even for a read.
        self[vm].slots[slot].noteWritten(page)
        if let inFile = range.advanced(by: self[vm].slots[slot].fileOffset) {
            noteAllocated(self[vm].slots[slot].file, inFile)
        }
        return true
    }

    /// Removes a part of a slot, by offset in the slot, from the tables.
    mutating func zap(_ vm: VMID, _ slot: Int, _ part: PageRange, deleted: Bool) {
        self[vm].slots[slot].mapped.remove(part)
        guard contents == .outside, let gpas = part.advanced(by: self[vm].slots[slot].range.start) else {
            return
        }
        // If accesses take their kind from the page, they cannot mismatch and still reach the same memory: only the
        // page count starts again.
        let keepsAccess = !deleted && self[vm].slots[slot].isGuestMemfd && accessKindFollowsPage(vm)
        note(.zapped(vm, gpas, keepsAccess: keepsAccess))
    }

    /// Removes all pages of a slot from the tables, because the slot or its file goes away.
    mutating func zapAll(_ vm: VMID, _ slot: Int) {
        if let all = self[vm].slots[slot].pages { zap(vm, slot, all, deleted: true) }
    }

    mutating func codeChanged(_ vm: VMID, _ slot: Int, _ part: PageRange) {
        if let gpas = part.advanced(by: self[vm].slots[slot].range.start) { note(.codeChanged(vm, gpas)) }
    }

    // MARK: deleting and moving slots in two steps

    /// First step of deleting or moving a memslot: removes its pages from the tables.
    ///
    /// - Returns: false if there is no such memslot.
    public mutating func invalidate(_ vm: VMID, slot number: UInt32) -> Bool {
        guard let slot = self[vm].slotIndex(number: number) else { return false }
        self[vm].slots[slot].isInvalid = true
        zapSlot(vm, slot)
        return true
    }

    /// Makes a memslot valid again after its move was rejected.
    public mutating func validate(_ vm: VMID, slot number: UInt32) {
        if let slot = self[vm].slotIndex(number: number) { self[vm].slots[slot].isInvalid = false }
    }

    /// Whether a memslot is being deleted or moved. All other changes of memslots wait meanwhile.
    public func isChangingSlots(_ vm: VMID) -> Bool { self[vm].slots.contains { $0.isInvalid } }

    /// Whether the memslot at an address is being deleted or moved. Faults on it wait meanwhile, and pre-faults are
    /// `EAGAIN`.
    public func isInvalid(_ vm: VMID, at gpa: UInt64) -> Bool {
        self[vm].slotIndex(at: self[vm].withoutSharedBit(gpa)).map { self[vm].slots[$0].isInvalid } ?? false
    }
}

extension Rules {
    /// The flags that `KVM_CREATE_GUEST_MEMFD` accepts. INIT_SHARED on a VM with private memory needs in-place
    /// conversion: such a file could never become private otherwise.
    public func allowedFlags(_ type: VMType) -> GuestMemfdFlags {
        let flags: GuestMemfdFlags = type == .default || convertsInPlace ? [.mmap, .initShared] : .mmap
        return contentDesign == .creationFlag ? flags.union(ContentDesign.creationFlagBit) : flags
    }
}
