// SPDX-License-Identifier: MIT
extension KernelModel {
    /// `KVM_SET_MEMORY_ATTRIBUTES2`: the validation table of docs/ABI.md, section 2, row by row and in its order, with the differences of
    /// other versions (``ABIProfile``).
    ///
    /// A guard that also asks for a ``PlantedFault`` is one that can be planted away.
    mutating func convert(
        _ file: FileID, _ request: inout ConversionCall, isFirstCall: Bool, in memory: ArgumentMemory?
    ) throws(ErrorNumber) {
        let abi = rules.abi

        // 0. Parameter off, or a kernel without the series. RFC v1 has another call.
        guard rules.convertsInPlace, abi.hasFirstCall == isFirstCall else {
            throw .inappropriateIOCTLForDevice
        }
        // 1. Struct not readable (all of it is read).
        guard memory?.isReadable != false || plants(.structPartlyRead) && memory == .cut else {
            throw .badAddress
        }
        if rules.faults.isPlanted, try plantedShortcut(file, &request) { return }

        // 2. flags ≠ 0. RFC v3 to v5 have the content mode there, one of the proposed designs a flag.
        var mode = ContentMode()
        if let design = rules.contentDesign {
            mode = try contentMode(file, request, design)
        } else if abi.hasContentModes {
            mode = try contentMode(file, &request)
        } else {
            guard request.flags == 0 || plants(.flagsIgnored) else { throw .invalidArgument }
        }

        // 3. A reserved word ≠ 0. error_offset on input is ignored; RFC v2 to v4 refuse it.
        guard request.isReservedZero || plants(.reservedIgnored) else { throw .invalidArgument }
        if abi.refusesErrorOffset || plants(.errorOffsetRefused) {
            guard request.errorOffset == 0 else { throw .invalidArgument }
        }

        // 4. The VM type has no private memory.
        guard self[file].vmType == .softwareProtected || plants(.defaultTypeConverts) else {
            throw .invalidArgument
        }

        // 5. attributes has a bit other than PRIVATE.
        guard request.attributes & ~MemoryAttributes.private == 0 || plants(.unknownAttributesIgnored)
        else { throw .invalidArgument }
        let state = request.target

        // 6. size 0, or offset + size wraps.
        let wraps = request.offset.addingReportingOverflow(request.size).overflow
        guard request.size > 0, !wraps else { throw .invalidArgument }

        // 7. offset or size not page aligned. RFC v1 leaves out what a size has beyond whole pages.
        if abi.truncatesSize || plants(.sizeTruncated) {
            guard request.size >= pageSize else { return }
        }
        guard let range = alignedRange(request) else { throw .invalidArgument }

        // 8. The range starts at or after the end of the file, or ends after it.
        let size = self[file].size
        guard range.start < size, range.end <= size || isPlantedEnd(file, range.end) else {
            throw .invalidArgument
        }

        // 9. The whole range already has the attribute: 0 at once, no unmap, no check. RFC v3 to v5 settle the
        //    contents all the same.
        if self[file].attributes.uniformValue(of: range) == state {
            if rules.faults.isPlanted { try plantedUniform(file, range, &request) }
            if abi.hasContentModes, rules.contentDesign == nil {
                settleContents(file, range, changingTo: state, mode)
            }
            return
        }

        // 10. No memory for the tracking structure: error_offset = request start. A range adds two runs at most.
        guard self[file].attributes.runCount <= rules.maximumAttributeRuns - 2 else {
            if rules.faults.isPlanted { try plantedNoMemory(file, range, &request) }
            request.errorOffset = range.start
            throw .noMemory
        }

        // 11. To-private, and a present page is in use: error_offset = the lowest such page. The host's mappings
        //     of the whole range are gone by then, whatever the outcome. To-shared does neither; RFC v1 checks.
        if state == .private, !plants(.toPrivateKeepsHostMappings) { dropHostMappings(file, range) }
        if state == .private || abi.checksReferencesToShared || plants(.toSharedChecked) {
            if let page = pageThatRefuses(file, range) {
                if rules.faults.isPlanted { try plantedBusy(file, page, range, &request) }
                if abi.faultsHoldReferences { endFault(file, page) }
                request.errorOffset = page
                throw .resourceTemporarilyUnavailable
            }
        }

        if !plants(.guestViewKept) { zapGuest(file, range) }
        settleContents(file, range, changingTo: state, mode)
        if rules.faults.isPlanted { return plantedSuccess(file, range, state, &request) }
        self[file].attributes.set(range, to: state)
    }

    /// Row 2 where another design decides.
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

    /// Row 2 in RFC v3 to v5. A software-protected VM offers PRESERVE both ways and ZERO to-shared.
    private func contentMode(
        _ file: FileID, _ request: inout ConversionCall
    ) throws(ErrorNumber) -> ContentMode {
        let mode = ContentMode(rawValue: request.flags)
        guard mode == [] || mode == .zero || mode == .preserve else { throw .invalidArgument }
        let isOffered =
            mode.isEmpty
            || (self[file].vmType == .softwareProtected && (mode == .preserve || request.target == .shared))
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
        if plants(.offsetTruncated) { start &= ~(pageSize - 1) }
        return PageRange(start: start, size: length)
    }

    /// Row 11.
    @inline(__always)
    private func pageThatRefuses(_ file: FileID, _ range: PageRange) -> UInt64? {
        rules.faults.isPlanted ? plantedPageInUse(file, in: range) : lowestPageInUse(file, in: range)
    }
}
