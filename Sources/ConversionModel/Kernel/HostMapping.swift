// SPDX-License-Identifier: MIT
// Host mappings of a guest_memfd: system calls on them and accesses through them.

extension KernelModel {
    struct Mapping: TableElement {
        var file = FileID(index: -1)
        /// Bytes, as ``length``.
        var fileOffset: UInt64 = 0
        var length: UInt64 = 0
        /// Address in the process; nil for the mapping of a forked child, which no memslot can refer to.
        var address: UInt64?
        /// Pages in the page tables, by byte offset in the mapping.
        var mapped = PageSet(size: 0)
        /// Pages that the protection does not allow to read or to write.
        var unreadable = PageSet(size: 0)
        var unwritable = PageSet(size: 0)
        /// Pages whose page table entry records a memory failure, ascending. Punching a hole does not clear it.
        var failed: [UInt64] = []
        /// False after `munmap` and `mremap`.
        var isMapped = true

        static var vacant: Mapping { Mapping() }

        init(_ file: FileID = FileID(index: -1), offset: UInt64 = 0, length: UInt64 = 0) {
            self.file = file
            fileOffset = offset
            self.length = length
            mapped = PageSet(size: PageRange.covering(start: 0, size: length)?.size ?? 0)
            (unreadable, unwritable) = (mapped, mapped)
        }

        /// The mapped part of a range of the file, by offset in the mapping.
        func offsets(of inFile: PageRange) -> PageRange? {
            PageRange(start: fileOffset, size: mapped.size).flatMap { inFile.intersection($0) }?
                .offset(from: fileOffset)
        }

        /// The mapped range of the file.
        var inFile: PageRange? { PageRange(start: fileOffset, size: mapped.size) }

        /// Number of pages of a range of the file in the page tables.
        func mappedCount(_ inFile: PageRange) -> UInt64 {
            offsets(of: inFile).map { mapped.count(in: $0) } ?? 0
        }

        /// The number of bytes from `offset`, at most `count`, before the first page that the protection or a
        /// memory failure makes inaccessible.
        func permitted(_ offset: UInt64, _ count: UInt64, toWrite: Bool) -> UInt64 {
            guard isMapped, let range = PageRange.covering(start: offset, size: count) else { return 0 }
            let refused = toWrite ? unwritable : unreadable
            var end = refused.first(in: range) ?? .max
            for page in failed where page + pageSize > offset { end = min(end, page) }
            return end > offset ? min(count, end - offset) : 0
        }
    }

    /// `mmap` of a part of the file, `MAP_SHARED`.
    ///
    /// - Parameters:
    ///   - offset: bytes in the file.
    ///   - length: bytes.
    ///   - address: the address in the process; nil selects one that no other mapping has.
    /// - Throws: `EBADF` if the descriptor is closed; `ENODEV` if the file does not have the MMAP flag; `EINVAL` if
    ///   the length is 0 or the offset is not page aligned; ``Rules/noBackingMemory`` if the part reaches past
    ///   ``Rules/memoryLimit``.
    public mutating func map(
        _ descriptor: DescriptorID, offset: UInt64, length: UInt64, at address: UInt64? = nil
    ) throws(ErrorNumber) -> MappingID {
        // mmap checks its arguments before the file's own checks.
        guard offset % pageSize == 0 else { throw .invalidArgument }
        guard isOpen(descriptor) else { throw .badFileDescriptor }
        let (padded, wraps) = length.addingReportingOverflow(pageSize - 1)
        guard !wraps, padded >= pageSize, offset <= UInt64(Int64.max) else { throw .invalidArgument }
        let file = file(of: descriptor)
        guard self[file].flags.contains(.mmap) || plants(.mmapNeedsNoFlag) else {
            throw .operationNotSupportedByDevice
        }
        guard rules.hasMemory(self[file].size, offset: offset, length: length) else {
            throw Rules.noBackingMemory
        }
        return insert(Mapping(file, offset: offset, length: length), at: address)
    }

    private mutating func insert(_ mapping: Mapping, at address: UInt64?) -> MappingID {
        self[mapping.file].openCount += 1
        let number = mappings.insert(mapping)
        mappings[number].address = address ?? Self.modelAddress(of: MappingID(index: number))
        return MappingID(index: number)
    }

    /// The mapping in a forked child: the same pages, with empty page tables of its own.
    public mutating func forkMapping(_ mapping: MappingID) -> MappingID {
        let old = self[mapping]
        var copy = Mapping(old.file, offset: old.fileOffset, length: old.length)
        (copy.unreadable, copy.unwritable) = (old.unreadable, old.unwritable)
        self[old.file].openCount += 1
        return MappingID(index: mappings.insert(copy))
    }

    /// Removes the mapping without `munmap`. It must not be used again.
    public mutating func forget(_ mapping: MappingID) {
        let file = self[mapping].file
        let wasMapped = self[mapping].isMapped
        mappings.remove(mapping.index)
        if wasMapped { noteClosed(file) }
        removeIfUnused(file)
    }

    /// The mapped file, also after the mapping was unmapped.
    public func file(of mapping: MappingID) -> FileID { self[mapping].file }
    /// Byte offset in the file at which the mapping begins.
    public func fileOffset(of mapping: MappingID) -> UInt64 { self[mapping].fileOffset }
    /// Bytes.
    public func length(of mapping: MappingID) -> UInt64 { self[mapping].length }
    /// False after ``unmap(_:)`` or ``move(_:toLength:at:)``.
    public func isMapped(_ mapping: MappingID) -> Bool { self[mapping].isMapped }

    /// The mapping that contains this whole range of addresses.
    func mapping(covering address: UInt64, size: UInt64) -> MappingID? {
        for number in mappings.numbers where mappings[number].isMapped {
            guard let start = mappings[number].address, start <= address,
                case let length = mappings[number].length, address - start <= length,
                size <= length - (address - start)
            else { continue }
            return MappingID(index: number)
        }
        return nil
    }

    /// `munmap` of the whole mapping. Does nothing if it is already unmapped.
    public mutating func unmap(_ mapping: MappingID) {
        guard self[mapping].isMapped else { return }
        let file = self[mapping].file
        if let all = self[mapping].inFile { dropHostMappings(file, all, only: mapping) }
        self[mapping].isMapped = false
        noteClosed(file)
    }

    /// `mremap` of the whole mapping to another address and length. The old mapping is unmapped.
    ///
    /// - Parameter address: the new address; nil selects one that no other mapping has.
    /// - Throws: `EINVAL` if the length is 0; `EFAULT` if the mapping is unmapped.
    public mutating func move(
        _ mapping: MappingID, toLength length: UInt64, at address: UInt64? = nil
    ) throws(ErrorNumber) -> MappingID {
        guard length > 0 else { throw .invalidArgument }
        guard self[mapping].isMapped else { throw .badAddress }
        let old = self[mapping]
        var new = Mapping(old.file, offset: old.fileOffset, length: length)
        new.inherit(from: old)
        self[old.file].openCount += 1
        unmap(mapping)
        self[old.file].openCount -= 1
        return insert(new, at: address)
    }

    /// `mprotect` of a part.
    ///
    /// - Throws: `EINVAL` if the offset is not page aligned or the part reaches past the end of the mapping;
    ///   `ENOMEM` if the mapping is unmapped.
    public mutating func protect(
        _ mapping: MappingID, at offset: UInt64, length: UInt64, _ protection: Protection
    ) throws(ErrorNumber) {
        guard let pages = try part(mapping, offset, length) else { return }
        guard self[mapping].isMapped else { throw .noMemory }
        if protection.isReadable { self[mapping].unreadable.remove(pages) }
        if !protection.isReadable { self[mapping].unreadable.insert(pages) }
        if protection.isWritable { self[mapping].unwritable.remove(pages) }
        if !protection.isWritable { self[mapping].unwritable.insert(pages) }
        // The MMU notifier reports changed host page tables to KVM, which zaps its own (hazard A9).
        guard let inFile = pages.advanced(by: self[mapping].fileOffset), self[mapping].mappedCount(inFile) > 0
        else { return }
        zapGuest(self[mapping].file, inFile, through: mapping)
    }

    /// The pages of a part of a mapping, by offset in the mapping; nil for a length of 0.
    private func part(
        _ mapping: MappingID, _ offset: UInt64, _ length: UInt64
    ) throws(ErrorNumber) -> PageRange? {
        let all = self[mapping].length
        guard offset % pageSize == 0, offset <= all, length <= all - offset else { throw .invalidArgument }
        guard length > 0 else { return nil }
        guard let pages = PageRange.covering(start: offset, size: length) else { throw .invalidArgument }
        return pages
    }

    /// `madvise` on a part. `MADV_DONTNEED` only unmaps, `MADV_REMOVE` punches a hole, and huge pages are refused.
    ///
    /// - Throws: `EINVAL` if the offset is not page aligned, the part reaches past the end of the mapping, or the
    ///   advice is ``Advice/collapse``. If the mapping is unmapped, `EFAULT` for ``Advice/hwPoison`` and
    ///   ``Advice/softOffline`` and `ENOMEM` for the others. Populating stops at the first inaccessible page with
    ///   `EINVAL` if the protection forbids the access, `EHWPOISON` if the memory of the page has failed, and
    ///   `EFAULT` otherwise. ``Advice/hwPoison`` and ``Advice/softOffline`` throw `EFAULT` if the host cannot
    ///   access the page, and `EBUSY` once done. ``Advice/remove`` throws as `fallocate` does.
    public mutating func advise(
        _ mapping: MappingID, at offset: UInt64, length: UInt64, _ advice: Advice
    ) throws(ErrorNumber) {
        guard let part = try part(mapping, offset, length) else { return }
        let isFailure = advice == .hwPoison || advice == .softOffline
        guard self[mapping].isMapped else { throw isFailure ? .badAddress : .noMemory }
        let file = self[mapping].file
        guard let pages = part.advanced(by: self[mapping].fileOffset) else { throw .invalidArgument }
        switch advice {
        case .dontNeed: dropHostMappings(file, pages, only: mapping)
        case .remove: try allocate(file, punchHole: true, offset: pages.start, length: pages.size)
        case .populateRead, .populateWrite:
            try populate(mapping, offset, pages, toWrite: advice == .populateWrite)
        case .collapse: throw .invalidArgument
        case .hwPoison:
            guard try touch(mapping, offset, 1) == 1 else { throw .badAddress }
            poison(file, page: pages.start)
            throw .resourceBusy
        case .softOffline:
            // Pages of a guest_memfd cannot be moved.
            guard try touch(mapping, offset, 1) == 1 else { throw .badAddress }
            throw .resourceBusy
        }
    }

    /// Faults the pages in one by one, up to the first that is inaccessible.
    private mutating func populate(
        _ mapping: MappingID, _ offset: UInt64, _ pages: PageRange, toWrite: Bool
    ) throws(ErrorNumber) {
        let permitted = self[mapping].permitted(offset, pages.size, toWrite: toWrite)
        var done: UInt64 = 0
        if permitted > 0 {
            done = (try? faultIn(self[mapping].file, pages.start, permitted, through: mapping)) ?? 0
        }
        guard done < pages.size else { return }
        let isPoisoned =
            self[mapping].failed.contains(offset + done)
            || self[self[mapping].file].poisoned.contains(pages.start + done)
        if done == permitted, !isPoisoned { throw .invalidArgument }
        throw isPoisoned ? .hardwarePoisoned : .badAddress
    }

    /// Takes references on all pages of a part, for a holder on the host.
    ///
    /// - Throws: `EINVAL` if the length is 0 or more than `Int64.max`; `EFAULT` if the part reaches past the end of
    ///   the mapping or contains an inaccessible page; `EAGAIN` if ``HoldKind/vmsplice`` gets more than
    ///   ``pipePages`` pages, the first of which are accessible.
    public mutating func hold(
        _ mapping: MappingID, at offset: UInt64, length: UInt64, by kind: HoldKind
    ) throws(ErrorNumber) -> HoldID {
        guard length > 0, length <= UInt64(Int64.max) else { throw .invalidArgument }
        let all = self[mapping].length
        guard offset <= all, length <= all - offset,
            let pages = PageRange.covering(start: self[mapping].fileOffset + offset, size: length)
        else { throw .badAddress }
        // vmsplice accepts the pages before the first inaccessible one; the model reports such a partial result as
        // a failure. It does not look at pages behind those that fill the pipe.
        let fits = kind != .vmsplice || pages.pageCount <= Self.pipePages
        let held = fits ? length : Self.pipePages * pageSize - offset % pageSize
        guard try touch(mapping, offset, held, toWrite: kind.writes) == held else { throw .badAddress }
        guard fits else { throw .resourceTemporarilyUnavailable }
        return makeHold(self[mapping].file, pages)
    }

    /// Capacity of a pipe, in pages.
    public static var pipePages: UInt64 { 16 }

    /// A host access to bytes, which faults their pages in.
    ///
    /// - Parameter fault: if this fault is planted, private pages are accessible, too.
    /// - Returns: the number of bytes before the first inaccessible page.
    /// - Throws: `EFAULT` if the first page is inaccessible or the range reaches past the end of the mapping.
    public mutating func touch(
        _ mapping: MappingID, _ offset: UInt64, _ count: UInt64, toWrite: Bool = false,
        evenPrivateWith fault: PlantedFault? = nil
    ) throws(ErrorNumber) -> UInt64 {
        let length = self[mapping].length
        guard offset <= length, count <= length - offset else { throw .badAddress }
        guard count > 0 else { return 0 }
        let permitted = self[mapping].permitted(offset, count, toWrite: toWrite)
        guard permitted > 0 else { throw .badAddress }
        return try faultIn(
            self[mapping].file, self[mapping].fileOffset + offset, permitted,
            evenPrivate: fault.map { plants($0) } ?? false, through: mapping)
    }

    /// Faults the pages of a range of the file into the page tables of `mapping`, up to the first inaccessible one.
    ///
    /// - Returns: the number of accessible bytes, at most `count`.
    mutating func faultIn(
        _ file: FileID, _ offset: UInt64, _ count: UInt64, evenPrivate: Bool = false,
        through mapping: MappingID
    ) throws(ErrorNumber) -> UInt64 {
        let size = self[file].size
        guard offset < size,
            let pages = PageRange.covering(start: offset, size: min(count, size - offset))
        else { throw .badAddress }
        var shared = pages
        if !evenPrivate, self[file].attributes.uniformValue(of: pages) != .shared {
            guard let run = self[file].attributes.run(containing: pages.start), run.value == .shared,
                let readable = run.range.intersection(pages)
            else { throw .badAddress }
            shared = readable
        }
        if !self[file].poisoned.isEmpty {
            guard let sound = unpoisonedRun(file, of: shared, around: shared.start) else { throw .badAddress }
            shared = sound
        }
        if let own = self[mapping].offsets(of: shared) { self[mapping].mapped.insert(own) }
        noteAllocated(file, shared)
        return min(count, shared.end - offset)
    }

    /// Number of pages of a part that are in the page tables of this mapping (`/proc/self/pagemap`).
    public func residentPages(_ mapping: MappingID, at offset: UInt64, length: UInt64) -> UInt64 {
        PageRange.covering(start: self[mapping].fileOffset + offset, size: length)
            .map { self[mapping].mappedCount($0) } ?? 0
    }

    // MARK: unmapping

    /// Records a memory failure in the mappings that have the page in their page tables.
    mutating func noteFailure(_ file: FileID, of page: PageRange) {
        for number in mappings.numbers where mappings[number].file == file {
            guard mappings[number].mappedCount(page) == 1 else { continue }
            mappings[number].failed.append(page.start - mappings[number].fileOffset)
            mappings[number].failed.sort()
        }
    }

    /// Number of pages of `range` in page tables, summed over all mappings of the file.
    func hostMappedPages(_ file: FileID, in range: PageRange) -> UInt64 {
        var sum: UInt64 = 0
        for number in mappings.numbers where mappings[number].file == file {
            sum += mappings[number].mappedCount(range)
        }
        return sum
    }

    /// Removes the range from the host's page tables. Slots whose `userspace_addr` leads into one of the mappings
    /// lose it from the guest's tables, too: the MMU notifier acts on slots with and without a guest_memfd.
    ///
    /// - Parameters:
    ///   - mapping: the mapping to remove the range from; nil is all mappings of the file.
    ///   - zaps: whether entries that record a memory failure are removed, too.
    mutating func dropHostMappings(
        _ file: FileID, _ range: PageRange, only mapping: MappingID? = nil, zaps: Bool = true
    ) {
        if let mapping {
            noteUnmapped(mapping, range, zaps: true)
        } else {
            for number in mappings.numbers where mappings[number].file == file {
                noteUnmapped(MappingID(index: number), range, zaps: zaps)
            }
        }
        zapGuest(file, range, through: mapping)
    }

    private mutating func noteUnmapped(_ mapping: MappingID, _ range: PageRange, zaps: Bool) {
        guard let own = self[mapping].offsets(of: range) else { return }
        if zaps, !self[mapping].failed.isEmpty { self[mapping].failed.removeAll { own.contains($0) } }
        self[mapping].mapped.remove(own)
    }

    /// Removes the range from the second-stage tables of slots whose `userspace_addr` leads into `mapping`, or into
    /// any mapping if it is nil.
    private mutating func zapGuest(_ file: FileID, _ range: PageRange, through mapping: MappingID?) {
        let place = mapping.map { (start: self[$0].address, length: self[$0].length) }
        forEachSlot(of: file, serving: range) { model, vm, slot, part in
            let address = model[vm].slots[slot].userspaceAddress
            var leadsThere = address != 0
            if let place {
                leadsThere = place.start.map { $0 <= address && address - $0 < place.length } ?? false
            }
            if leadsThere { model.zap(vm, slot, part, deleted: false) }
        }
    }
}

extension HoldKind {
    /// Whether the holder needs write access to the pages.
    public var writes: Bool { self == .ioUring || self == .gupTest }
}

extension KernelModel.Mapping {
    /// Takes over the page tables and protections of the mapping that this one replaces, up to its own length.
    mutating func inherit(from old: KernelModel.Mapping) {
        guard let own = mapped.all else { return }
        for part in old.mapped.ranges(in: own) { mapped.insert(part) }
        for part in old.unreadable.ranges(in: own) { unreadable.insert(part) }
        for part in old.unwritable.ranges(in: own) { unwritable.insert(part) }
        failed = old.failed.filter { own.contains($0) }
        // New pages have the protection of the last old one.
        let end = min(old.mapped.size, own.size)
        guard end < own.size, let more = PageRange(start: end, size: own.size - end) else { return }
        if old.unreadable.contains(end - pageSize) { unreadable.insert(more) }
        if old.unwritable.contains(end - pageSize) { unwritable.insert(more) }
    }
}
