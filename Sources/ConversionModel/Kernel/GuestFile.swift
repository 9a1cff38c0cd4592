// SPDX-License-Identifier: MIT
extension KernelModel {
    /// The inode of a guest_memfd: its pages, their states and their references.
    ///
    /// Memory use depends on the pages accessed, not on the size: the maps are stored as sorted runs.
    struct File: TableElement {
        /// The VM that created the file. Only this VM can bind it.
        var owner = VMID(index: -1)
        var vmType = VMType.default
        /// Bytes.
        var size: UInt64 = 0
        var flags: GuestMemfdFlags = []
        var initialState = PageState.shared
        /// By byte offset.
        var attributes = RunMap<PageState>(size: 0, initial: .shared)
        /// Pages that have been allocated.
        var allocated = PageSet(size: 0)
        /// References on each page, without the file's own.
        var references = RunMap<UInt32>(size: 0, initial: 0)
        /// Pages that a vCPU has found but not mapped yet, in versions in which it holds a reference on them
        /// (hazard H2).
        var faulting: [UInt64] = []
        /// Pages whose memory has failed, ascending. They are inaccessible until they are punched out.
        var poisoned: [UInt64] = []
        /// NUMA policies. A later policy overrides an earlier one.
        var policies: [Policy] = []
        /// The NUMA node of each page.
        var nodes = RunMap<UInt32>(size: 0, initial: 0)
        /// Number of open descriptors and active host mappings. A memslot does not keep the file open.
        var openCount = 0
        /// The bytes of the file, with ``Contents/inside``; of a confidential VM, as the host's key decrypts them.
        var bytes = FileBytes()
        /// For a file of a confidential VM.
        var encrypted: EncryptedPages?

        struct Policy: Hashable, Sendable {
            let range: PageRange
            let policy: MemoryPolicy
        }

        static var vacant: File { File() }
    }

    /// A descriptor of a guest_memfd.
    struct Descriptor: TableElement {
        var file = FileID(index: -1)
        /// False after `close`. The entry is kept until ``KernelModel/forget(_:)-(DescriptorID)``, so that calls on
        /// it are `EBADF`.
        var isOpen = false

        static var vacant: Descriptor { Descriptor() }
    }

    // MARK: creation and closing

    /// `KVM_CREATE_GUEST_MEMFD`.
    ///
    /// - Parameter size: bytes, a multiple of ``pageSize``.
    /// - Throws: `EINVAL` if the size is 0, not whole pages or more than `Int64.max`, or if a flag is not in
    ///   ``Rules/allowedFlags(_:)``.
    public mutating func createGuestMemfd(
        _ vm: VMID, size: UInt64, flags: GuestMemfdFlags
    ) throws(ErrorNumber) -> DescriptorID {
        let type = self[vm].type
        guard size > 0, size <= UInt64(Int64.max), size % pageSize == 0,
            flags.isSubset(of: rules.allowedFlags(type)) || plants(.unknownFileFlagsAccepted)
        else { throw .invalidArgument }
        var file = File()
        file.owner = vm
        file.vmType = type
        file.size = size
        file.flags = flags
        let isShared =
            plants(.initSharedIgnored) ? false : plants(.startsShared) ? true : flags.contains(.initShared)
        file.initialState = isShared ? .shared : .private
        file.attributes = RunMap(size: size, initial: file.initialState)
        file.allocated = PageSet(size: size)
        file.references = RunMap(size: size, initial: 0)
        file.nodes = file.references
        file.openCount = 1
        if type.isConfidential { file.encrypted = EncryptedPages(size: size) }
        let number = FileID(index: files.insert(file))
        return DescriptorID(index: descriptors.insert(Descriptor(file: number, isOpen: true)))
    }

    /// The open descriptor with this number.
    public func openDescriptor(_ number: Int32) -> DescriptorID? {
        for known in descriptors.numbers where known == number && descriptors[known].isOpen {
            return DescriptorID(index: number)
        }
        return nil
    }

    /// The file of a descriptor, even if it is closed.
    public func file(of descriptor: DescriptorID) -> FileID { descriptors[descriptor.index].file }
    /// Whether the descriptor is open. Every call on a closed one is `EBADF`.
    public func isOpen(_ descriptor: DescriptorID) -> Bool { descriptors[descriptor.index].isOpen }

    private func openFile(_ descriptor: DescriptorID) throws(ErrorNumber) -> FileID {
        guard isOpen(descriptor) else { throw .badFileDescriptor }
        return file(of: descriptor)
    }

    /// `dup`.
    ///
    /// - Throws: `EBADF` if the descriptor is closed.
    public mutating func duplicate(_ descriptor: DescriptorID) throws(ErrorNumber) -> DescriptorID {
        let file = try openFile(descriptor)
        self[file].openCount += 1
        return DescriptorID(index: descriptors.insert(Descriptor(file: file, isOpen: true)))
    }

    /// `close`. Later calls on the descriptor are `EBADF`, a second `close` included.
    ///
    /// - Throws: `EBADF` if the descriptor is closed.
    public mutating func close(_ descriptor: DescriptorID) throws(ErrorNumber) {
        let file = try openFile(descriptor)
        descriptors[descriptor.index].isOpen = false
        noteClosed(file)
    }

    /// Closes the descriptor if it is open, and frees its number. It must not be used again.
    public mutating func forget(_ descriptor: DescriptorID) {
        let file = file(of: descriptor)
        if isOpen(descriptor) { noteClosed(file) }
        descriptors.remove(descriptor.index)
        removeIfUnused(file)
    }

    /// Drops one reference of a descriptor or mapping. Without any left, every access through a memslot is a memory
    /// fault.
    mutating func noteClosed(_ file: FileID) {
        self[file].openCount -= 1
        guard self[file].openCount == 0 else { return }
        forEachSlot(of: file) { model, vm, slot in
            if model[vm].slots[slot].isGuestMemfd { model.zapAll(vm, slot) }
        }
    }

    mutating func removeIfUnused(_ file: FileID) {
        for number in descriptors.numbers where descriptors[number].file == file { return }
        for number in mappings.numbers where mappings[number].file == file { return }
        for number in holds.numbers where holds[number].file == file { return }
        for number in vms.numbers {
            for slot in vms[number].slots where slot.file == file { return }
        }
        files.remove(file.index)
        note(.removed(file))
    }

    // MARK: calls on the file

    /// `KVM_SET_MEMORY_ATTRIBUTES2`.
    ///
    /// - Parameters:
    ///   - isFirstCall: whether this is the call of RFC v1.
    ///   - memory: the memory that the struct is in; nil is readable and writable. A result that cannot be written
    ///     back is `EFAULT` (row 12).
    /// - Throws: `EBADF` if the descriptor is closed; otherwise the errno of the first row of the validation
    ///   table that applies (docs/ABI.md, section 2). `EAGAIN` and `ENOMEM`, and `EOPNOTSUPP` in RFC v4 and
    ///   v5, set `errorOffset`.
    public mutating func convert(
        _ descriptor: DescriptorID, _ call: inout ConversionCall, isFirstCall: Bool = false,
        in memory: ArgumentMemory? = nil
    ) throws(ErrorNumber) {
        let file = try openFile(descriptor)
        do throws(ErrorNumber) {
            try convert(file, &call, isFirstCall: isFirstCall, in: memory)
        } catch {
            let isNamed = error == .resourceTemporarilyUnavailable || error == .noMemory
            throw memory != nil && isNamed && !plants(.copyOutUnchecked) ? .badAddress : error
        }
    }

    /// A system call that a guest_memfd does not support.
    ///
    /// - Throws: always. `EBADF` if the descriptor is closed. Otherwise `EINVAL` for `read`, `write` and
    ///   `ftruncate`, `EOPNOTSUPP` for `fallocate`, and for `mmap` `EINVAL` if the file has the MMAP flag and
    ///   `ENODEV` if not.
    public func attempt(_ descriptor: DescriptorID, _ call: FileCall) throws(ErrorNumber) {
        let file = try openFile(descriptor)
        switch call {
        case .read, .write, .truncate: throw .invalidArgument
        case .mapPrivate:
            throw self[file].flags.contains(.mmap) ? .invalidArgument : .operationNotSupportedByDevice
        case .grow: throw .notSupportedOnSocket
        }
    }

    /// `fallocate` with `FALLOC_FL_KEEP_SIZE`.
    ///
    /// - Parameters:
    ///   - punchHole: `FALLOC_FL_PUNCH_HOLE`; false allocates the pages.
    ///   - offset: bytes from the start of the file.
    ///   - length: bytes.
    /// - Throws: `EBADF` if the descriptor is closed; `EINVAL` if the length is 0, a bound is not page aligned or
    ///   more than `Int64.max`, or an allocation reaches past the end of the file; `EFBIG` if the end is more than
    ///   `Int64.max`; ``Rules/noBackingMemory`` if an allocation reaches past ``Rules/memoryLimit``.
    public mutating func allocate(
        _ descriptor: DescriptorID, punchHole: Bool, offset: UInt64, length: UInt64
    ) throws(ErrorNumber) {
        try allocate(try openFile(descriptor), punchHole: punchHole, offset: offset, length: length)
    }

    mutating func allocate(
        _ file: FileID, punchHole: Bool, offset: UInt64, length: UInt64
    ) throws(ErrorNumber) {
        guard length > 0, offset <= UInt64(Int64.max), length <= UInt64(Int64.max) else {
            throw .invalidArgument
        }
        guard offset + length <= UInt64(Int64.max) else { throw .fileTooLarge }
        let rounding = plants(.unalignedPunchAccepted) ? ~(pageSize - 1) : .max
        guard let range = PageRange(start: offset & rounding, size: length & rounding) else {
            throw .invalidArgument
        }
        guard punchHole else {
            guard range.end <= self[file].size else { throw .invalidArgument }
            guard rules.hasMemory(self[file].size, offset: range.start, length: range.size) else {
                throw Rules.noBackingMemory
            }
            return noteAllocated(file, range)
        }
        if let part = self[file].allocated.all?.intersection(range) { punch(file, part) }
    }

    private mutating func punch(_ file: FileID, _ range: PageRange) {
        if !plants(.punchKeepsHolders) { detachHolds(file, range) }
        if plants(.punchChangesState) { self[file].attributes.set(range, to: .shared) }
        if plants(.punchKeepsContents) { return }
        if self[file].encrypted != nil {
            takeFromGuest(file, range)
            noteUnassigned(file, range, whichAre: .private)
            forgetGuestContents(file, range)
        }
        if contents == .inside { self[file].bytes.discard(range) }
        note(.discarded(file, range))
        zapGuest(file, range)
        dropHostMappings(file, range, zaps: false)
        self[file].allocated.remove(range)
        // The next access allocates a new page.
        self[file].poisoned.removeAll { range.contains($0) }
        self[file].nodes.set(range, to: 0)
    }

    /// Marks pages as allocated, and assigns their NUMA nodes.
    mutating func noteAllocated(_ file: FileID, _ range: PageRange) {
        if self[file].allocated.contains(range) { return }
        if !self[file].policies.isEmpty { place(file, range) }
        self[file].allocated.insert(range)
    }

    // MARK: memslots of the file

    func isClosed(_ file: FileID) -> Bool { self[file].openCount == 0 }

    /// Calls `body` for every memslot that is backed by the file, with its VM and its index in ``VM/slots``.
    mutating func forEachSlot(of file: FileID, _ body: (inout KernelModel, VMID, Int) -> Void) {
        for number in vms.numbers {
            for slot in vms[number].slots.indices where vms[number].slots[slot].file == file {
                body(&self, VMID(index: number), slot)
            }
        }
    }

    /// As above, for memslots that contain a part of `range`. The part is passed by offset in the slot.
    mutating func forEachSlot(
        of file: FileID, serving range: PageRange, _ body: (inout KernelModel, VMID, Int, PageRange) -> Void
    ) {
        forEachSlot(of: file) { model, vm, slot in
            let here = model[vm].slots[slot].inFile
            if let part = here?.intersection(range)?.offset(from: model[vm].slots[slot].fileOffset) {
                body(&model, vm, slot, part)
            }
        }
    }

    /// Whether any page of the range is bound to a slot with a guest_memfd.
    func isBound(_ file: FileID, _ range: PageRange) -> Bool {
        for number in vms.numbers {
            for slot in vms[number].slots where slot.file == file && slot.isGuestMemfd {
                if slot.inFile?.intersection(range) != nil { return true }
            }
        }
        return false
    }

    /// Removes the range from all second-stage tables.
    mutating func zapGuest(_ file: FileID, _ range: PageRange) {
        forEachSlot(of: file, serving: range) { model, vm, slot, part in
            model.zap(vm, slot, part, deleted: false)
        }
    }

    /// Records a host write: code that was translated from these pages is stale.
    public mutating func noteHostWrite(_ file: FileID, _ range: PageRange) {
        guard contents == .outside else { return }
        forEachSlot(of: file, serving: range) { model, vm, slot, part in model.codeChanged(vm, slot, part) }
    }

    // MARK: contents

    /// Applies a conversion to the contents of its range. Unless contents are preserved, the allocated pages that
    /// change state are overwritten: with noise if contents are undefined, with zeros if they are lost. With a
    /// content mode all allocated pages of the range are overwritten.
    mutating func updateContents(
        _ file: FileID, _ range: PageRange, changingTo state: PageState, _ mode: ContentMode
    ) {
        if self[file].encrypted != nil { return convertEncrypted(file, range, to: state) }
        if rules.contentDesign != nil {
            if mode.isEmpty { overwriteChanging(file, range, to: state, .noise) }
            return
        }
        switch rules.contentFate.fate(to: state) {
        case .preserved: return
        case .undefined: overwriteChanging(file, range, to: state, .noise)
        case .lost: overwriteChanging(file, range, to: state, .zeros)
        case .byFlag where mode == .preserve: return
        case .byFlag where mode == .zero: overwrite(file, range, .zeros)
        case .byFlag: overwrite(file, range, .noise)
        }
    }

    private mutating func overwriteChanging(
        _ file: FileID, _ range: PageRange, to state: PageState, _ overwrite: Effect.Overwrite
    ) {
        for run in self[file].attributes.runs(in: range) where run.value != state {
            self.overwrite(file, run.range, overwrite)
        }
    }

    /// Overwrites the allocated pages of the range.
    mutating func overwrite(_ file: FileID, _ range: PageRange, _ overwrite: Effect.Overwrite) {
        for part in self[file].allocated.ranges(in: range) {
            if contents == .inside { self[file].bytes.overwrite(part, overwrite) }
            note(.overwritten(file, part, overwrite))
            noteHostWrite(file, part)
        }
    }
}
