import CKVMShim
import MiniVMM
import SystemPackage

extension GuestFile {
    /// `KVM_SET_MEMORY_ATTRIBUTES2`: the validation table of ABI §2, row by row and in its order, with what other
    /// versions do (``ABIProfile``).
    ///
    /// A guard that also asks for a ``PlantedFault`` is one that can be planted away.
    ///
    /// The caller holds the model's lock, as conversions of one file are serialised with each other, with host
    /// faults, vCPU faults and fallocate.
    ///
    /// - Parameters:
    ///   - isFirstCall: the call of RFC v1.
    ///   - memory: where the request is; nil is memory that can be read and written.
    func convert(
        _ request: inout ckvm_memory_attributes2, isFirstCall: Bool = false, in memory: ArgumentMemory? = nil
    ) throws(Errno) {
        let abi = model.abi

        // 0. Parameter off, or a kernel without the series. RFC v1 has another call.
        guard model.configuration.inPlaceConversion, abi.hasFirstCall == isFirstCall else {
            throw .inappropriateIOCTLForDevice
        }
        // 1. Struct not readable (all of it is read).
        guard memory?.isReadable != false || plants(.structPartlyRead) && memory == .cut else {
            throw .badAddress
        }
        if model.faults.isPlanted, try plantedShortcut(&request) { return }

        // 2. flags ≠ 0. RFC v3 to v5 have the content mode there, one of the proposed designs a flag.
        var mode = ContentMode()
        if let design = model.configuration.contentDesign {
            mode = try contentMode(of: request, design)
        } else if abi.hasContentModes {
            mode = try contentMode(of: &request)
        } else {
            guard request.flags == 0 || plants(.flagsIgnored) else { throw .invalidArgument }
        }

        // 3. A reserved word ≠ 0. error_offset on input is ignored; RFC v2 to v4 refuse it.
        guard request.hasNoReservedWord || plants(.reservedIgnored) else { throw .invalidArgument }
        if abi.refusesErrorOffset || plants(.errorOffsetRefused) {
            guard request.error_offset == 0 else { throw .invalidArgument }
        }

        // 4. The VM type has no private memory.
        guard vmType == .softwareProtected || plants(.defaultTypeConverts) else { throw .invalidArgument }

        // 5. attributes has a bit other than PRIVATE.
        guard request.attributes & ~CKVM_MEMORY_ATTRIBUTE_PRIVATE == 0 || plants(.unknownAttributesIgnored)
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
        guard range.start < size, range.end <= size || isPlantedEnd(range.end) else { throw .invalidArgument }

        // 9. The whole range already has the attribute: 0 at once, no unmap, no check. RFC v3 to v5 settle the
        //    contents all the same.
        if attributes.uniformState(of: range) == state {
            if model.faults.isPlanted { try plantedUniform(range, &request) }
            if abi.hasContentModes, model.configuration.contentDesign == nil {
                settleContents(of: range, changingTo: state, mode)
            }
            return
        }

        // 10. No memory for the tracking structure: error_offset = request start. A range adds two runs at most.
        guard attributes.runCount <= model.configuration.maximumAttributeRuns - 2 else {
            if model.faults.isPlanted { try plantedNoMemory(range, &request) }
            request.error_offset = range.start
            throw .noMemory
        }

        // 11. To-private, and a present page is in use: error_offset = the lowest such page. The host's mappings
        //     of the whole range are gone by then, whatever the outcome. To-shared does neither; RFC v1 checks.
        if state == .private, !plants(.toPrivateKeepsHostMappings) { dropHostMappings(of: range) }
        if state == .private || abi.checksReferencesToShared || plants(.toSharedChecked) {
            if let page = pageThatRefuses(range) {
                if model.faults.isPlanted { try plantedBusy(page, range, &request) }
                if abi.faultsHoldReferences { endFault(on: page) }
                request.error_offset = page
                throw .resourceTemporarilyUnavailable
            }
        }

        if !plants(.guestViewKept) { zapGuest(range) }
        settleContents(of: range, changingTo: state, mode)
        if model.faults.isPlanted { return plantedSuccess(range, state, &request) }
        attributes.set(range, to: state)
    }

    /// Row 2 where another design decides.
    private func contentMode(
        of request: ckvm_memory_attributes2, _ design: ContentDesign
    ) throws(Errno) -> ContentMode {
        let flag = ContentDesign.callFlagBit
        guard request.flags == 0 || design == .callFlag && request.flags == flag else {
            throw .invalidArgument
        }
        let keeps = design.preserves(fileFlags: flags, callFlags: request.flags)
        let fate = request.target == .private ? model.contentFate.toPrivate : model.contentFate.toShared
        guard !keeps || fate == .preserved else { throw .invalidArgument }
        return keeps ? .preserve : []
    }

    /// Row 2 in RFC v3 to v5. A software-protected VM offers PRESERVE both ways and ZERO to-shared.
    private func contentMode(of request: inout ckvm_memory_attributes2) throws(Errno) -> ContentMode {
        let mode = ContentMode(rawValue: request.flags)
        guard [[], .zero, .preserve].contains(mode) else { throw .invalidArgument }
        let isOffered =
            mode.isEmpty
            || (vmType == .softwareProtected && (mode == .preserve || request.target == .shared))
        guard isOffered else {
            request.error_offset = request.offset
            throw .notSupportedOnSocket
        }
        return mode
    }

    /// Row 7.
    @inline(__always)
    private func alignedRange(_ request: ckvm_memory_attributes2) -> PageRange? {
        var (start, length) = (request.offset, request.size)
        if model.abi.truncatesSize || plants(.sizeTruncated) { length &= ~(pageSize - 1) }
        if plants(.offsetTruncated) { start &= ~(pageSize - 1) }
        return PageRange(start: start, size: length)
    }

    /// Row 11.
    @inline(__always)
    private func pageThatRefuses(_ range: PageRange) -> UInt64? {
        model.faults.isPlanted ? plantedPageInUse(in: range) : lowestPageInUse(in: range)
    }
}

extension ckvm_memory_attributes2 {
    /// The state asked for.
    var target: PageState { attributes & CKVM_MEMORY_ATTRIBUTE_PRIVATE == 0 ? .shared : .private }

    /// The eleven words that must be zero.
    fileprivate var hasNoReservedWord: Bool {
        let word = reserved
        return word.0 | word.1 | word.2 | word.3 | word.4 | word.5 | word.6 | word.7 | word.8 | word.9
            | word.10 == 0
    }
}
