// SPDX-License-Identifier: MIT
// References on pages besides the file's own: of holders on the host, of vCPUs that are about to map a page, and of
// failed memory.

extension KernelModel {
    /// One reference on each of a range of pages, held by something on the host.
    struct Hold: TableElement {
        var file = FileID(index: -1)
        var pages: PageRange?
        /// Pages that were punched out of the file since, ascending. The hold keeps the old page (hazard A11).
        var detached: [Detached] = []

        struct Detached: Hashable, Sendable {
            /// Offset in the file.
            let page: UInt64
            /// The bytes of the old page, with ``Contents/inside``.
            var bytes: PageBytes
        }

        static var vacant: Hold { Hold() }

        func isDetached(_ page: UInt64) -> Bool { detached.contains { $0.page == page } }
    }

    /// Takes one reference on each page of the range.
    mutating func makeHold(_ file: FileID, _ pages: PageRange) -> HoldID {
        addReferences(file, pages)
        return HoldID(index: holds.insert(Hold(file: file, pages: pages)))
    }

    /// Drops the references of a hold and removes it.
    public mutating func release(_ hold: HoldID) {
        let file = self[hold].file
        dropReferences(hold)
        holds.remove(hold.index)
        removeIfUnused(file)
    }

    private mutating func dropReferences(_ hold: HoldID) {
        guard let pages = self[hold].pages, !plants(.releaseForgotten) else { return }
        let file = self[hold].file
        if self[hold].detached.isEmpty { return changeReferences(file, pages, by: -1) }
        for page in pages.chunks(of: pageSize) where !self[hold].isDetached(page.start) {
            changeReferences(file, page, by: -1)
        }
    }

    /// The pages on which the hold was taken.
    public func pages(of hold: HoldID) -> PageRange? { self[hold].pages }
    /// The file of the held pages. Pages that were punched out since no longer belong to it.
    public func file(of hold: HoldID) -> FileID { self[hold].file }

    /// Replaces the hold by one hold for each page, in ascending order.
    public mutating func split(_ hold: HoldID) -> [HoldID] {
        let whole = self[hold]
        guard let pages = whole.pages else { return [] }
        holds.remove(hold.index)
        var parts: [HoldID] = []
        for page in pages.chunks(of: pageSize) {
            let detached = whole.detached.filter { $0.page == page.start }
            let part = Hold(file: whole.file, pages: page, detached: detached)
            parts.append(HoldID(index: holds.insert(part)))
        }
        return parts
    }

    /// The reverse of ``split(_:)``. The holds must be on consecutive pages.
    ///
    /// - Returns: nil if they are not, or `parts` is empty.
    public mutating func join(_ parts: [HoldID]) -> HoldID? {
        guard let first = parts.first, let last = parts.last, let start = self[first].pages?.start,
            let end = self[last].pages?.end, end > start,
            let pages = PageRange(start: start, size: end - start), pages.pageCount == UInt64(parts.count)
        else { return nil }
        let file = self[first].file
        var detached: [Hold.Detached] = []
        for part in parts {
            detached += self[part].detached
            holds.remove(part.index)
        }
        return HoldID(index: holds.insert(Hold(file: file, pages: pages, detached: detached)))
    }

    // MARK: the counts

    mutating func addReferences(_ file: FileID, _ range: PageRange) { changeReferences(file, range, by: 1) }

    private mutating func changeReferences(_ file: FileID, _ range: PageRange, by change: Int32) {
        for run in self[file].references.runs(in: range) {
            let count = UInt32(truncatingIfNeeded: Int64(run.value) + Int64(change))
            self[file].references.set(run.range, to: count)
        }
    }

    /// Byte offset of the lowest page of the range that is in use.
    func lowestPageInUse(_ file: FileID, in range: PageRange) -> UInt64? {
        var lowest: UInt64?
        if self[file].references.runCount > 1 || self[file].references.value(at: 0) != 0 {
            for run in self[file].references.runs(in: range) where run.value > 0 {
                lowest = run.range.start
                break
            }
        }
        for page in self[file].faulting where range.contains(page) {
            lowest = min(lowest ?? page, page)
        }
        return lowest
    }

    /// Byte offset of the highest page of the range that is in use, for a planted fault.
    func highestPageInUse(_ file: FileID, in range: PageRange) -> UInt64? {
        var highest: UInt64?
        for run in self[file].references.runs(in: range) where run.value > 0 {
            highest = run.range.end - pageSize
        }
        for page in self[file].faulting where range.contains(page) {
            highest = max(highest ?? page, page)
        }
        return highest
    }

    /// Removes pages from the file. Their holders keep the old pages.
    mutating func detachHolds(_ file: FileID, _ range: PageRange) {
        self[file].faulting.removeAll { range.contains($0) }
        for number in holds.numbers where holds[number].file == file {
            guard let part = holds[number].pages?.intersection(range) else { continue }
            for page in part.chunks(of: pageSize) where !holds[number].isDetached(page.start) {
                let bytes = self[file].bytes.page(at: page.start)
                let place = holds[number].detached.firstIndex { $0.page > page.start }
                holds[number].detached.insert(
                    Hold.Detached(page: page.start, bytes: bytes),
                    at: place ?? holds[number].detached.endIndex)
                note(.detached(HoldID(index: number), file, page: page.start))
            }
        }
        // Drops references without a holder: those of failed memory, and those that a planted fault did not drop.
        self[file].references.set(range, to: 0)
    }

    // MARK: vCPU faults

    /// A vCPU has found a page and not mapped it yet. Adds a reference in versions with hazard H2.
    public mutating func beginVCPUFault(_ file: FileID, page: UInt64) {
        guard rules.abi.faultsHoldReferences else { return }
        self[file].faulting.append(page)
        self[file].faulting.sort()
    }

    /// One vCPU has mapped the page: drops its reference.
    public mutating func endVCPUFault(_ file: FileID, page: UInt64) {
        if plants(.releaseForgotten) { return }
        if let place = self[file].faulting.firstIndex(of: page) { self[file].faulting.remove(at: place) }
    }

    /// Drops the references of all vCPUs that were about to map the page.
    mutating func endFault(_ file: FileID, _ page: UInt64) { self[file].faulting.removeAll { $0 == page } }

    // MARK: memory failures

    /// Fails the memory of a page. The page is removed from all tables and cannot be mapped again. Linux keeps a
    /// reference on it for ever, so a conversion finds it in use.
    mutating func poison(_ file: FileID, page: UInt64) {
        guard let range = PageRange(start: page, size: pageSize), !self[file].poisoned.contains(page) else {
            return
        }
        self[file].poisoned.append(page)
        self[file].poisoned.sort()
        addReferences(file, range)
        noteFailure(file, of: range)
        dropHostMappings(file, range, zaps: false)
        forEachSlot(of: file, serving: range) { model, vm, slot, part in
            model.zap(vm, slot, part, deleted: true)
        }
    }

    /// The largest part of a range around `page` without failed memory; nil if the memory of that page has failed.
    func unpoisonedRun(_ file: FileID, of range: PageRange, around page: UInt64) -> PageRange? {
        var (low, high) = (range.start, range.end)
        for failed in self[file].poisoned {
            if failed == page { return nil }
            if failed < page { low = max(low, failed + pageSize) }
            if failed > page { high = min(high, failed) }
        }
        return PageRange(start: low, size: high - low)
    }
}
