import CKVMShim
import MiniVMM
import SystemPackage

// What planted faults do to conversions where it takes more than leaving a check out. Nothing here runs without
// them.
extension GuestFile {
    @inline(__always)
    func plants(_ fault: PlantedFault) -> Bool { model.faults.contains(fault) }

    /// Before row 1.
    ///
    /// - Returns: whether the call ends here, as a success.
    func plantedShortcut(_ request: inout ckvm_memory_attributes2) throws(Errno) -> Bool {
        let (offset, size) = (request.offset, request.size)
        let range = PageRange(start: offset, size: size)
        if plants(.busyBeforeBounds), request.target == .private, let page = range.flatMap(lowestPageInUse) {
            request.error_offset = page
            throw .resourceTemporarilyUnavailable
        }
        if let range, plants(.uniformBeforeValidation) {
            return attributes.uniformState(of: range) == request.target
        }
        let wraps = offset.addingReportingOverflow(size).overflow
        return plants(.emptyRangeAccepted) && size == 0 || plants(.wrapAccepted) && wraps
            || plants(.startPastEndAccepted) && range.map { $0.start >= self.size } == true
    }

    /// Row 8.
    func isPlantedEnd(_ end: UInt64) -> Bool { plants(.endOffByOne) && end == size + pageSize }

    /// Row 9.
    func plantedUniform(_ range: PageRange, _ request: inout ckvm_memory_attributes2) throws(Errno) {
        if plants(.uniformRangeUnmapped) { dropHostMappings(of: range) }
        if plants(.uniformRangeZapped) { zapGuest(range) }
        if plants(.uniformRangeChecked), let page = lowestPageInUse(in: range) {
            request.error_offset = page
            throw .resourceTemporarilyUnavailable
        }
    }

    /// Row 10.
    func plantedNoMemory(_ range: PageRange, _ request: inout ckvm_memory_attributes2) throws(Errno) {
        if plants(.memoryAfterBusyCheck), request.target == .private, let page = lowestPageInUse(in: range) {
            request.error_offset = page
            throw .resourceTemporarilyUnavailable
        }
        if plants(.noMemoryConvertsFirstPage), let first = PageRange(start: range.start, size: pageSize) {
            attributes.set(first, to: request.target)
        }
        if plants(.noMemoryNamesNothing) { throw .noMemory }
    }

    /// Row 11: the page that refuses.
    func plantedPageInUse(in range: PageRange) -> UInt64? {
        if plants(.busyCheckMissing) { return nil }
        if plants(.mixedRangeUnchecked), attributes.uniformState(of: range) == nil { return nil }
        var checked: PageRange? = range
        if plants(.firstPageUnchecked) {
            checked = PageRange(start: range.start + pageSize, size: range.size - pageSize)
        }
        if plants(.lastPageUnchecked), let some = checked {
            checked = PageRange(start: some.start, size: some.size - pageSize)
        }
        return checked.flatMap(lowestPageInUse)
    }

    /// Row 11: the refusal.
    func plantedBusy(
        _ page: UInt64, _ range: PageRange, _ request: inout ckvm_memory_attributes2
    ) throws(Errno) {
        if plants(.busyConvertsBefore), let done = PageRange(start: range.start, size: page - range.start) {
            attributes.set(done, to: request.target)
        }
        if plants(.busyConvertsAll) { attributes.set(range, to: request.target) }
        if plants(.busyLosesContents) { overwrite(range) { 0 } }
        if plants(.busyNamesNothing) { throw .resourceTemporarilyUnavailable }
        request.error_offset = page
        if plants(.busyWithOtherErrno) { throw .resourceBusy }
        if plants(.busyNamesHighest) { request.error_offset = highestPageInUse(in: range) ?? page }
        if plants(.busyNamesStart) { request.error_offset = range.start }
        throw .resourceTemporarilyUnavailable
    }

    /// The end of a conversion: the attributes change, and what else a planted fault does.
    func plantedSuccess(_ range: PageRange, _ state: PageState, _ request: inout ckvm_memory_attributes2) {
        let before = attributes
        attributes.set(range, to: state)
        if plants(.lastPageLeftOut), range.pageCount > 1,
            let last = PageRange(start: range.end - pageSize, size: pageSize),
            let old = before.state(at: last.start)
        {
            attributes.set(last, to: old)
        }
        if plants(.untouchedPagesForgotten) {
            for (part, exists) in allocated.runs(in: range) where exists == .shared {
                for (run, old) in before.runs(in: part) { attributes.set(run, to: old) }
            }
        }
        if plants(.neighbourConverted), let next = PageRange(start: range.end, size: pageSize) {
            attributes.set(next, to: state)
        }
        if plants(.neighbourZapped), let all = PageRange(start: 0, size: size) { zapGuest(all) }
        if plants(.toSharedDropsHostMappings), state == .shared { dropHostMappings(of: range) }
        if plants(.errorOffsetWrittenOnSuccess) { request.error_offset = range.end }
    }
}

extension PlantedFaults {
    /// What conversions really do to contents that `promise` is about.
    func contents(_ promise: ContentPromise) -> ContentPromise {
        func fate(_ lost: PlantedFault, _ scrambled: PlantedFault, _ fate: ContentPromise.Fate)
            -> ContentPromise.Fate
        {
            contains(lost) ? .lost : contains(scrambled) ? .undefined : fate
        }
        return ContentPromise(
            toPrivate: fate(.contentsLostToPrivate, .contentsScrambledToPrivate, promise.toPrivate),
            toShared: fate(.contentsLostToShared, .contentsScrambledToShared, promise.toShared))
    }
}
