// SPDX-License-Identifier: MIT
// Planted faults in conversions that need more than skipping a check. Without planted faults none of this runs.
extension KernelModel {
    /// Before row 1.
    ///
    /// - Returns: true to end the call as a success.
    func plantedShortcut(_ file: FileID, _ request: inout ConversionCall) throws(ErrorNumber) -> Bool {
        let (offset, size) = (request.offset, request.size)
        let range = PageRange(start: offset, size: size)
        if plants(.busyBeforeBounds), request.target == .private,
            let page = range.flatMap({ lowestPageInUse(file, in: $0) })
        {
            request.errorOffset = page
            throw .resourceTemporarilyUnavailable
        }
        if let range, plants(.uniformBeforeValidation) {
            return self[file].attributes.uniformValue(of: range) == request.target
        }
        let wraps = offset.addingReportingOverflow(size).overflow
        return plants(.emptyRangeAccepted) && size == 0 || plants(.wrapAccepted) && wraps
            || plants(.startPastEndAccepted) && range.map { $0.start >= self[file].size } == true
    }

    /// Row 8.
    func isPlantedEnd(_ file: FileID, _ end: UInt64) -> Bool {
        plants(.endOffByOne) && end == self[file].size + pageSize
    }

    /// Row 9.
    mutating func plantedUniform(_ file: FileID, _ range: PageRange, _ request: inout ConversionCall)
        throws(ErrorNumber)
    {
        if plants(.uniformRangeUnmapped) { dropHostMappings(file, range) }
        if plants(.uniformRangeZapped) { zapGuest(file, range) }
        if plants(.uniformRangeChecked), let page = lowestPageInUse(file, in: range) {
            request.errorOffset = page
            throw .resourceTemporarilyUnavailable
        }
    }

    /// Row 10.
    mutating func plantedNoMemory(_ file: FileID, _ range: PageRange, _ request: inout ConversionCall)
        throws(ErrorNumber)
    {
        if plants(.memoryAfterBusyCheck), request.target == .private,
            let page = lowestPageInUse(file, in: range)
        {
            request.errorOffset = page
            throw .resourceTemporarilyUnavailable
        }
        if plants(.noMemoryConvertsFirstPage), let first = PageRange(start: range.start, size: pageSize) {
            self[file].attributes.set(first, to: request.target)
        }
        if plants(.noMemoryNamesNothing) { throw .noMemory }
    }

    /// Row 11: the page that the call reports as in use.
    func plantedPageInUse(_ file: FileID, in range: PageRange) -> UInt64? {
        if plants(.busyCheckMissing) { return nil }
        if plants(.mixedRangeUnchecked), self[file].attributes.uniformValue(of: range) == nil { return nil }
        var checked: PageRange? = range
        if plants(.firstPageUnchecked) {
            checked = PageRange(start: range.start + pageSize, size: range.size - pageSize)
        }
        if plants(.lastPageUnchecked), let some = checked {
            checked = PageRange(start: some.start, size: some.size - pageSize)
        }
        if plants(.laterPagesUnchecked), let some = checked { checked = firstAllocated(31, file, some) }
        return checked.flatMap { lowestPageInUse(file, in: $0) }
    }

    /// The part of a range up to the last of its first `count` allocated pages.
    private func firstAllocated(_ count: UInt64, _ file: FileID, _ range: PageRange) -> PageRange? {
        var left = count
        for part in self[file].allocated.ranges(in: range) {
            if part.pageCount >= left {
                return PageRange(start: range.start, size: part.start + left * pageSize - range.start)
            }
            left -= part.pageCount
        }
        return range
    }

    /// Removes the range from the second-stage tables through the first memslot that contains a part of it.
    mutating func plantedZap(_ file: FileID, _ range: PageRange) {
        var isFirst = true
        forEachSlot(of: file, serving: range) { model, vm, slot, part in
            if isFirst { model.zap(vm, slot, part, deleted: false) }
            isFirst = false
        }
    }

    /// Row 11: the failure.
    mutating func plantedBusy(
        _ file: FileID, _ page: UInt64, _ range: PageRange, _ request: inout ConversionCall
    ) throws(ErrorNumber) {
        if plants(.busyConvertsBefore), let done = PageRange(start: range.start, size: page - range.start) {
            self[file].attributes.set(done, to: request.target)
        }
        if plants(.busyConvertsAll) { self[file].attributes.set(range, to: request.target) }
        if plants(.busyLosesContents) { overwrite(file, range, .zeros) }
        if plants(.busyNamesNothing) { throw .resourceTemporarilyUnavailable }
        request.errorOffset = page
        if plants(.busyWithOtherErrno) { throw .resourceBusy }
        if plants(.busyNamesHighest) { request.errorOffset = highestPageInUse(file, in: range) ?? page }
        if plants(.busyNamesStart) { request.errorOffset = range.start }
        throw .resourceTemporarilyUnavailable
    }

    /// Changes the attributes at the end of a conversion, with the planted faults that apply.
    mutating func plantedSuccess(
        _ file: FileID, _ range: PageRange, _ state: PageState, _ request: inout ConversionCall
    ) {
        let before = self[file].attributes
        self[file].attributes.set(range, to: state)
        if plants(.lastPageLeftOut), range.pageCount > 1,
            let last = PageRange(start: range.end - pageSize, size: pageSize),
            let old = before.value(at: last.start)
        {
            self[file].attributes.set(last, to: old)
        }
        if plants(.laterRunsLeftOut) {
            var isFirst = true
            for run in before.runs(in: range) where run.value != state {
                if !isFirst { self[file].attributes.set(run.range, to: run.value) }
                isFirst = false
            }
        }
        if plants(.untouchedPagesForgotten) {
            for part in self[file].allocated.gaps(in: range) {
                for run in before.runs(in: part) { self[file].attributes.set(run.range, to: run.value) }
            }
        }
        if plants(.neighbourConverted), let next = PageRange(start: range.end, size: pageSize) {
            self[file].attributes.set(next, to: state)
        }
        if plants(.neighbourZapped), let all = self[file].allocated.all { zapGuest(file, all) }
        if plants(.toSharedDropsHostMappings), state == .shared { dropHostMappings(file, range) }
        if plants(.errorOffsetWrittenOnSuccess) { request.errorOffset = range.end }
    }
}

extension PlantedFaults {
    /// The real effect of conversions on contents if `promise` is promised.
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
