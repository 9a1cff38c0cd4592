import CKVMShim
import MiniVMM
import SystemPackage

extension GuestFile {
    /// `KVM_SET_MEMORY_ATTRIBUTES2`: the validation table of ABI §2, row by row and in its order.
    ///
    /// The caller holds the model's lock, as conversions of one file are serialised with each other, with host
    /// faults, vCPU faults and fallocate.
    func convert(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        // 0. Parameter off, or a kernel without the series.
        guard model.configuration.inPlaceConversion else { throw .inappropriateIOCTLForDevice }

        // 1. Struct not readable: cannot happen, the request is a Swift value.

        // 2. flags ≠ 0.
        guard request.flags == 0 else { throw .invalidArgument }

        // 3. A reserved word ≠ 0. error_offset on input is ignored.
        guard request.hasNoReservedWord else { throw .invalidArgument }

        // 4. The VM type has no private memory.
        guard vmType == .softwareProtected else { throw .invalidArgument }

        // 5. attributes has a bit other than PRIVATE.
        guard request.attributes & ~CKVM_MEMORY_ATTRIBUTE_PRIVATE == 0 else { throw .invalidArgument }
        let state: PageState = request.attributes == 0 ? .shared : .private

        // 6. size 0, or offset + size wraps.
        let (end, wraps) = request.offset.addingReportingOverflow(request.size)
        guard request.size > 0, !wraps else { throw .invalidArgument }

        // 7. offset or size not page aligned.
        guard let range = PageRange(start: request.offset, size: request.size) else { throw .invalidArgument }

        // 8. The range starts at or after the end of the file, or ends after it.
        guard range.start < size, end <= size else { throw .invalidArgument }

        // 9. The whole range already has the attribute: 0 at once, no unmap, no check.
        if attributes.uniformState(of: range) == state { return }

        // 10. No memory for the tracking structure: error_offset = request start. A range adds two runs at most.
        guard attributes.runCount <= model.configuration.maximumAttributeRuns - 2 else {
            request.error_offset = range.start
            throw .noMemory
        }

        // 11. To-private, and a present page is in use: error_offset = the lowest such page. The host's mappings
        //     of the whole range are gone by then, whatever the outcome. To-shared does neither.
        if state == .private {
            dropHostMappings(of: range)
            if let page = lowestPageInUse(in: range) {
                request.error_offset = page
                throw .resourceTemporarilyUnavailable
            }
        }

        // 12. Result cannot be copied out: cannot happen, for the same reason as row 1.

        zapGuest(range)
        spoilContents(of: range, changingTo: state)
        attributes.set(range, to: state)
    }
}

extension ckvm_memory_attributes2 {
    /// The eleven words that must be zero.
    fileprivate var hasNoReservedWord: Bool {
        let word = reserved
        return word.0 | word.1 | word.2 | word.3 | word.4 | word.5 | word.6 | word.7 | word.8 | word.9
            | word.10 == 0
    }
}
