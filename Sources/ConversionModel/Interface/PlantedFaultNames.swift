// SPDX-License-Identifier: MIT
// Names and descriptions of planted faults.

extension PlantedFault {
    /// The name on the command line: `flags-ignored`.
    public var name: String { Self.names[Int(rawValue)] }

    /// The names of all faults, in the order of their numbers.
    public static let names: [String] = [
        "flags-ignored", "reserved-ignored", "error-offset-refused", "default-type-converts",
        "unknown-attributes-ignored", "empty-range-accepted", "wrap-accepted", "size-truncated",
        "offset-truncated", "size-loses-high-bits", "end-off-by-one", "start-past-end-accepted",
        "uniform-before-validation", "busy-before-bounds", "struct-partly-read", "copy-out-unchecked",
        "uniform-range-checked", "uniform-range-unmapped", "uniform-range-zapped",
        "memory-after-busy-check", "no-memory-names-nothing", "no-memory-converts-first-page",
        "busy-check-missing", "first-page-unchecked", "last-page-unchecked", "later-pages-unchecked",
        "mixed-range-unchecked", "to-shared-checked", "busy-names-highest", "busy-names-start",
        "busy-names-nothing", "busy-with-other-errno", "busy-converts-before", "busy-converts-all",
        "busy-loses-contents", "release-forgotten", "to-private-keeps-host-mappings",
        "to-shared-drops-host-mappings", "error-offset-written-on-success", "last-page-left-out",
        "later-runs-left-out", "neighbour-converted", "untouched-pages-forgotten", "guest-mappings-kept",
        "later-slots-kept", "neighbour-zapped", "contents-lost-to-private", "contents-lost-to-shared",
        "contents-scrambled-to-private", "contents-scrambled-to-shared", "host-reads-private",
        "host-writes-private", "mmap-needs-no-flag", "punch-changes-state", "punch-keeps-contents",
        "punch-keeps-holders", "unaligned-punch-accepted", "init-shared-ignored", "starts-shared",
        "unknown-file-flags-accepted", "capability-hidden", "attributes-lost-with-slot",
        "page-bound-twice", "foreign-file-bound", "deleted-slot-stays-mapped", "fault-flag-wrong",
        "fault-names-next-page", "fault-returns-success", "mismatch-ignored", "unvalidated-page-readable",
        "unvalidated-touch-exits", "revalidation-unnoticed", "validation-zeroes", "rescind-ignored",
        "large-page-validates", "shared-page-validates", "accept-keeps-contents", "second-accept-zeroes",
        "assignment-keeps-validated", "reverse-map-address-unchecked", "conversion-keeps-entry",
        "page-added-accepted", "removal-needs-no-track", "removal-needs-no-block",
        "plaintext-shown-to-host", "guest-reads-host-plaintext", "shared-pages-zeroed",
        "removed-pages-not-cleared", "launch-loses-contents", "private-reached-through-shared-alias",
        "ciphertext-read-exits", "dead-guest-runs", "launch-after-finalize", "wrong-answer-refuses",
    ]

    /// Nil if no fault has this name. Names are lower case.
    public init?(name: String) {
        guard let fault = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = fault
    }

    /// The rule that the fault breaks: `row 2` is row 2 of the validation table in docs/ABI.md, section 2; other
    /// values name a paragraph of that section.
    public var rule: String {
        switch self {
        case .structPartlyRead: "row 1"
        case .copyOutUnchecked: "row 12"
        case .flagsIgnored: "row 2"
        case .reservedIgnored, .errorOffsetRefused: "row 3"
        case .defaultTypeConverts: "row 4"
        case .unknownAttributesIgnored: "row 5"
        case .emptyRangeAccepted, .wrapAccepted: "row 6"
        case .sizeTruncated, .offsetTruncated, .sizeLosesHighBits: "row 7"
        case .endOffByOne, .startPastEndAccepted: "row 8"
        case .uniformBeforeValidation, .busyBeforeBounds: "row order"
        case .uniformRangeChecked, .uniformRangeUnmapped, .uniformRangeZapped: "row 9"
        case .memoryAfterBusyCheck: "row order"
        case .noMemoryNamesNothing: "row 10"
        case .noMemoryConvertsFirstPage, .busyConvertsBefore, .busyConvertsAll, .busyLosesContents:
            "all or nothing"
        case .busyCheckMissing, .firstPageUnchecked, .lastPageUnchecked, .laterPagesUnchecked,
            .mixedRangeUnchecked,
            .toSharedChecked, .busyNamesHighest, .busyNamesStart, .busyNamesNothing, .busyWithOtherErrno,
            .releaseForgotten, .toPrivateKeepsHostMappings, .toSharedDropsHostMappings:
            "row 11"
        case .errorOffsetWrittenOnSuccess: "success"
        case .lastPageLeftOut, .laterRunsLeftOut, .neighbourConverted, .untouchedPagesForgotten: "attributes"
        case .guestMappingsKept, .laterSlotsKept, .neighbourZapped: "zap"
        case .contentsLostToPrivate, .contentsLostToShared, .contentsScrambledToPrivate,
            .contentsScrambledToShared:
            "contents"
        case .hostReadsPrivate, .hostWritesPrivate, .mmapNeedsNoFlag: "host access"
        case .punchChangesState, .punchKeepsContents, .punchKeepsHolders, .unalignedPunchAccepted: "fallocate"
        case .initSharedIgnored, .startsShared, .unknownFileFlagsAccepted, .capabilityHidden: "creation"
        case .attributesLostWithSlot, .pageBoundTwice, .foreignFileBound, .deletedSlotStaysMapped: "memslots"
        case .faultFlagWrong, .faultNamesNextPage, .faultReturnsSuccess, .mismatchIgnored: "exits"
        case .unvalidatedPageReadable, .unvalidatedTouchExits, .revalidationUnnoticed, .validationZeroes,
            .rescindIgnored, .largePageValidates, .sharedPageValidates, .acceptKeepsContents,
            .secondAcceptZeroes:
            "validation"
        case .assignmentKeepsValidated, .reverseMapAddressUnchecked, .conversionKeepsEntry,
            .pageAddedAccepted,
            .removalNeedsNoTrack, .removalNeedsNoBlock:
            "secure tables"
        case .plaintextShownToHost, .guestReadsHostPlaintext, .sharedPagesZeroed, .removedPagesNotCleared,
            .launchLosesContents:
            "keys"
        case .privateReachedThroughSharedAlias, .ciphertextReadExits: "aliases"
        case .deadGuestRuns, .launchAfterFinalize: "life of a VM"
        case .wrongAnswerRefuses: "requests"
        }
    }

    /// A description of the wrong behaviour, in one line.
    public var description: String {
        switch self {
        case .flagsIgnored: "nonzero flags are accepted"
        case .reservedIgnored: "nonzero reserved words are accepted"
        case .errorOffsetRefused: "a nonzero error_offset on input is EINVAL"
        case .defaultTypeConverts: "conversion works on a VM type without private memory"
        case .unknownAttributesIgnored: "attribute bits other than PRIVATE are ignored"
        case .emptyRangeAccepted: "size 0 succeeds"
        case .wrapAccepted: "a range that wraps around succeeds"
        case .sizeTruncated: "a size that is not whole pages is rounded down"
        case .offsetTruncated: "an unaligned offset is rounded down"
        case .sizeLosesHighBits: "only the low 32 bits of the size count"
        case .endOffByOne: "a range may end one page after the end of the file"
        case .startPastEndAccepted: "a range that starts at the end of the file succeeds"
        case .uniformBeforeValidation: "a range that already has the attribute succeeds even with bad flags"
        case .busyBeforeBounds: "a page in use is EAGAIN even if the range reaches past the end of the file"
        case .structPartlyRead: "a struct whose second half cannot be read is accepted"
        case .copyOutUnchecked: "a result that cannot be written back keeps its errno instead of EFAULT"
        case .uniformRangeChecked: "a range that already has the attribute is checked for pages in use"
        case .uniformRangeUnmapped: "a conversion that changes nothing unmaps the range from the host"
        case .uniformRangeZapped: "a conversion that changes nothing zaps the guest's mappings of the range"
        case .memoryAfterBusyCheck: "a page in use is EAGAIN where ENOMEM is due"
        case .noMemoryNamesNothing: "ENOMEM does not set error_offset"
        case .noMemoryConvertsFirstPage: "ENOMEM still converts the first page"
        case .busyCheckMissing: "pages in use become private"
        case .firstPageUnchecked: "the first page of a range is not checked for being in use"
        case .lastPageUnchecked: "the last page of a range is not checked for being in use"
        case .laterPagesUnchecked: "only the first 31 allocated pages of a range are checked for being in use"
        case .mixedRangeUnchecked: "a range of mixed states is not checked for pages in use"
        case .toSharedChecked: "converting a page in use to shared is EAGAIN"
        case .busyNamesHighest: "EAGAIN reports the highest page in use"
        case .busyNamesStart: "EAGAIN reports the start of the range"
        case .busyNamesNothing: "EAGAIN does not set error_offset"
        case .busyWithOtherErrno: "a page in use is EBUSY"
        case .busyConvertsBefore: "EAGAIN converts the pages before error_offset"
        case .busyConvertsAll: "EAGAIN still converts the whole range"
        case .busyLosesContents: "EAGAIN zeroes the contents of the range"
        case .releaseForgotten: "a page stays in use after its references were released"
        case .toPrivateKeepsHostMappings: "converting to private does not unmap the range from the host"
        case .toSharedDropsHostMappings: "converting to shared unmaps the range from the host"
        case .errorOffsetWrittenOnSuccess: "a successful call writes error_offset"
        case .lastPageLeftOut: "the last page of a range of two or more pages is not converted"
        case .laterRunsLeftOut: "if several runs of a range change state, only the first is converted"
        case .neighbourConverted: "the page after the range is converted too"
        case .untouchedPagesForgotten: "pages that are not allocated yet are not converted"
        case .guestMappingsKept: "a conversion does not zap the guest's mappings"
        case .laterSlotsKept: "a conversion zaps the guest's mappings in the first memslot of several only"
        case .neighbourZapped: "a conversion zaps all guest mappings of the file"
        case .contentsLostToPrivate: "converting to private zeroes the contents"
        case .contentsLostToShared: "converting to shared zeroes the contents"
        case .contentsScrambledToPrivate: "converting to private overwrites the contents with noise"
        case .contentsScrambledToShared: "converting to shared overwrites the contents with noise"
        case .hostReadsPrivate: "the host can read private pages"
        case .hostWritesPrivate: "the host can write private pages"
        case .mmapNeedsNoFlag: "a file without the MMAP flag can be mapped"
        case .punchChangesState: "punching a hole makes private pages shared"
        case .punchKeepsContents: "punching a hole keeps the contents of the pages"
        case .punchKeepsHolders: "a fresh page counts as in use while the punched page is held"
        case .unalignedPunchAccepted: "an unaligned hole is rounded down to whole pages"
        case .initSharedIgnored: "a file with INIT_SHARED starts private"
        case .startsShared: "a file without INIT_SHARED starts shared"
        case .unknownFileFlagsAccepted: "unknown flags of KVM_CREATE_GUEST_MEMFD are accepted"
        case .capabilityHidden: "KVM_CHECK_EXTENSION returns 0 for in-place conversion"
        case .attributesLostWithSlot: "deleting a memslot resets the attributes of its pages"
        case .pageBoundTwice: "a page of a file can be in two memslots"
        case .foreignFileBound: "a VM can bind a file that another VM created"
        case .deletedSlotStaysMapped: "the guest can still access the pages of a deleted memslot"
        case .faultFlagWrong: "the PRIVATE flag of a memory fault is inverted"
        case .faultNamesNextPage: "a memory fault reports the page after the one accessed"
        case .faultReturnsSuccess: "KVM_RUN returns 0 with a memory fault"
        case .mismatchIgnored: "an access of the wrong kind succeeds"
        case .unvalidatedPageReadable: "the guest can use pages that it has not validated or accepted"
        case .unvalidatedTouchExits: "a touch of a page that is not validated or accepted is a memory fault"
        case .revalidationUnnoticed: "PVALIDATE and ACCEPT do not report that they changed nothing"
        case .validationZeroes: "PVALIDATE zeroes the page"
        case .rescindIgnored: "PVALIDATE does not rescind pages"
        case .largePageValidates: "PVALIDATE and ACCEPT of 2 MiB succeed on a page of 4 KiB"
        case .sharedPageValidates: "PVALIDATE of a shared page succeeds"
        case .acceptKeepsContents: "ACCEPT does not zero the page"
        case .secondAcceptZeroes: "ACCEPT zeroes a page that was accepted before"
        case .assignmentKeepsValidated: "RMPUPDATE does not clear the validated bit"
        case .reverseMapAddressUnchecked:
            "the guest-physical address in the reverse map table is not compared"
        case .conversionKeepsEntry: "a conversion to shared leaves the page assigned to the guest"
        case .pageAddedAccepted: "TDH.MEM.PAGE.AUG adds pages that need no ACCEPT"
        case .removalNeedsNoTrack: "TDH.MEM.PAGE.REMOVE needs no TDH.MEM.TRACK"
        case .removalNeedsNoBlock: "TDH.MEM.PAGE.REMOVE needs no TDH.MEM.RANGE.BLOCK"
        case .plaintextShownToHost: "the host reads what the guest has written to private pages"
        case .guestReadsHostPlaintext:
            "the guest reads what the host has written before a page became private"
        case .sharedPagesZeroed: "on SNP, a conversion to shared zeroes the pages"
        case .removedPagesNotCleared: "on TDX, pages that become shared are not cleared"
        case .launchLosesContents: "the launch loses the bytes that it measures in"
        case .privateReachedThroughSharedAlias: "the guest reaches its private pages through the shared alias"
        case .ciphertextReadExits:
            "on SNP, a read of a private page through the shared alias is always a memory fault"
        case .deadGuestRuns: "a VM runs on after the touch of a pending page"
        case .launchAfterFinalize: "pages can be measured in after the launch has ended"
        case .wrongAnswerRefuses:
            "an answer of the monitor that is neither 0 nor EAGAIN nor EINVAL refuses the guest's request"
        }
    }
}
