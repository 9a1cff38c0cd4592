// SPDX-License-Identifier: MIT
extension KernelModel {
    /// `KVM_SET_MEMORY_ATTRIBUTES2`: the validation table of docs/ABI.md, section 2, row by row in its order, with
    /// the differences of the posted versions (``ABIProfile``).
    ///
    /// A guard that also checks for a ``PlantedFault`` is skipped when that fault is planted.
    mutating func convert(
        _ file: FileID, _ request: inout ConversionCall, isFirstCall: Bool, in memory: ArgumentMemory?
    ) throws(ErrorNumber) {
        let abi = rules.abi

        // 0. The parameter is off, or the kernel does not have the series. RFC v1 has another call.
        guard rules.convertsInPlace, abi.hasFirstCall == isFirstCall else {
            throw .inappropriateIOCTLForDevice
        }
        // 1. The struct cannot be read, all of it.
        guard memory?.isReadable != false || plants(.structPartlyRead) && memory == .cut else {
            throw .badAddress
        }
        if rules.faults.isPlanted, try plantedShortcut(file, &request) { return }

        // 2. flags ≠ 0. RFC v3 to v5 have the content mode in flags, and one of the proposed designs a flag.
        var mode = ContentMode()
        if let design = rules.contentDesign {
            mode = try contentMode(file, request, design)
        } else if abi.hasContentModes {
            mode = try contentMode(file, &request)
        } else {
            guard request.flags == 0 || plants(.flagsIgnored) else { throw .invalidArgument }
        }

        // 3. A reserved word ≠ 0. error_offset on input is ignored; RFC v2 to v4 reject it.
        guard request.isReservedZero || plants(.reservedIgnored) else { throw .invalidArgument }
        if abi.refusesErrorOffset || plants(.errorOffsetRefused) {
            guard request.errorOffset == 0 else { throw .invalidArgument }
        }

        // 4. The VM type has no private memory.
        guard self[file].vmType.hasPrivateMemory || plants(.defaultTypeConverts) else {
            throw .invalidArgument
        }

        // 5. attributes has a bit other than PRIVATE.
        guard request.attributes & ~MemoryAttributes.private == 0 || plants(.unknownAttributesIgnored)
        else { throw .invalidArgument }
        let state = request.target

        // 6. size 0, or offset + size wraps.
        let wraps = request.offset.addingReportingOverflow(request.size).overflow
        guard request.size > 0, !wraps else { throw .invalidArgument }

        // 7. offset or size is not page aligned. RFC v1 rounds the size down to whole pages.
        if abi.truncatesSize || plants(.sizeTruncated) {
            guard request.size >= pageSize else { return }
        }
        guard let range = alignedRange(request) else { throw .invalidArgument }

        // 8. The range starts at or after the end of the file, or ends past it.
        let size = self[file].size
        guard range.start < size, range.end <= size || isPlantedEnd(file, range.end) else {
            throw .invalidArgument
        }

        // 9. The whole range already has the attribute: returns 0 without unmapping or checking anything. RFC v3 to
        //    v5 still apply the content mode.
        if self[file].attributes.uniformValue(of: range) == state {
            if rules.faults.isPlanted { try plantedUniform(file, range, &request) }
            if abi.hasContentModes, rules.contentDesign == nil {
                updateContents(file, range, changingTo: state, mode)
            }
            return
        }

        // 10. No memory for the tracking structure: error_offset = start of the request. One call adds two runs
        //     at most.
        guard self[file].attributes.runCount <= rules.maximumAttributeRuns - 2 else {
            if rules.faults.isPlanted { try plantedNoMemory(file, range, &request) }
            request.errorOffset = range.start
            throw .noMemory
        }

        // 11. To private, and an allocated page is in use: error_offset = the lowest such page. The host mappings
        //     of the whole range are gone even if the call fails. To shared unmaps and checks nothing; RFC v1 checks.
        if state == .private, !plants(.toPrivateKeepsHostMappings) { dropHostMappings(file, range) }
        if state == .private || abi.checksReferencesToShared || plants(.toSharedChecked) {
            if let page = pageInUse(file, range) {
                if rules.faults.isPlanted { try plantedBusy(file, page, range, &request) }
                if abi.faultsHoldReferences { endFault(file, page) }
                request.errorOffset = page
                throw .resourceTemporarilyUnavailable
            }
        }

        if plants(.laterSlotsKept) {
            plantedZap(file, range)
        } else if !plants(.guestMappingsKept) {
            zapGuest(file, range)
        }
        updateContents(file, range, changingTo: state, mode)
        if rules.faults.isPlanted { return plantedSuccess(file, range, state, &request) }
        self[file].attributes.set(range, to: state)
    }

    /// Row 2 with one of the proposed designs.
    private func contentMode(
        _ file: FileID, _ request: ConversionCall, _ design: ContentDesign
    ) throws(ErrorNumber) -> ContentMode {
        let flag = ContentDesign.callFlagBit
        guard request.flags == 0 || design == .callFlag && request.flags == flag else {
            throw .invalidArgument
        }
        let keeps = design.preserves(fileFlags: self[file].flags, callFlags: request.flags)
        guard !keeps || rules.contentFate.fate(to: request.target) == .preserved else {
            throw .invalidArgument
        }
        return keeps ? .preserve : []
    }

    /// Row 2 in RFC v3 to v5. A software-protected VM offers PRESERVE in both directions and ZERO to shared.
    private func contentMode(
        _ file: FileID, _ request: inout ConversionCall
    ) throws(ErrorNumber) -> ContentMode {
        let mode = ContentMode(rawValue: request.flags)
        guard mode == [] || mode == .zero || mode == .preserve else { throw .invalidArgument }
        let isOffered =
            mode.isEmpty
            || (self[file].vmType.hasPrivateMemory && (mode == .preserve || request.target == .shared))
        guard isOffered else {
            request.errorOffset = request.offset
            throw .notSupportedOnSocket
        }
        return mode
    }

    /// Row 7.
    @inline(__always)
    private func alignedRange(_ request: ConversionCall) -> PageRange? {
        var (start, length) = (request.offset, request.size)
        if rules.abi.truncatesSize || plants(.sizeTruncated) { length &= ~(pageSize - 1) }
        if plants(.sizeLosesHighBits) { length &= UInt64(UInt32.max) }
        if plants(.offsetTruncated) { start &= ~(pageSize - 1) }
        return PageRange(start: start, size: length)
    }

    /// Row 11.
    @inline(__always)
    private func pageInUse(_ file: FileID, _ range: PageRange) -> UInt64? {
        rules.faults.isPlanted ? plantedPageInUse(file, in: range) : lowestPageInUse(file, in: range)
    }
}
