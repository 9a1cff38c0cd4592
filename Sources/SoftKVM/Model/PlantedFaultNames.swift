// SPDX-License-Identifier: MIT
public import ConversionModel

// Planted faults as people name them.

extension PlantedFault {
    /// As the command has it: `flags-ignored`.
    public var name: String {
        "\(self)".reduce(into: "") { name, letter in
            if letter.isUppercase { name += "-" }
            name += letter.lowercased()
        }
    }

    /// Nil for a name that no fault has. Capital letters are not accepted.
    public init?(name: String) {
        guard let fault = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = fault
    }

    /// The rule that it breaks, by its place in the description of the interface: `row 2` is one of the validation
    /// table, the rest are paragraphs of the same section.
    public var rule: String {
        switch self {
        case .structPartlyRead: "row 1"
        case .copyOutUnchecked: "row 12"
        case .flagsIgnored: "row 2"
        case .reservedIgnored, .errorOffsetRefused: "row 3"
        case .defaultTypeConverts: "row 4"
        case .unknownAttributesIgnored: "row 5"
        case .emptyRangeAccepted, .wrapAccepted: "row 6"
        case .sizeTruncated, .offsetTruncated: "row 7"
        case .endOffByOne, .startPastEndAccepted: "row 8"
        case .uniformBeforeValidation, .busyBeforeBounds: "row order"
        case .uniformRangeChecked, .uniformRangeUnmapped, .uniformRangeZapped: "row 9"
        case .memoryAfterBusyCheck: "row order"
        case .noMemoryNamesNothing: "row 10"
        case .noMemoryConvertsFirstPage, .busyConvertsBefore, .busyConvertsAll, .busyLosesContents:
            "all or nothing"
        case .busyCheckMissing, .firstPageUnchecked, .lastPageUnchecked, .mixedRangeUnchecked,
            .toSharedChecked, .busyNamesHighest, .busyNamesStart, .busyNamesNothing, .busyWithOtherErrno,
            .releaseForgotten, .toPrivateKeepsHostMappings, .toSharedDropsHostMappings:
            "row 11"
        case .errorOffsetWrittenOnSuccess: "success"
        case .lastPageLeftOut, .neighbourConverted, .untouchedPagesForgotten: "attributes"
        case .guestViewKept, .neighbourZapped: "zap"
        case .contentsLostToPrivate, .contentsLostToShared, .contentsScrambledToPrivate,
            .contentsScrambledToShared:
            "contents"
        case .hostReadsPrivate, .hostWritesPrivate, .mmapNeedsNoFlag: "host access"
        case .punchChangesState, .punchKeepsContents, .punchKeepsHolders, .unalignedPunchAccepted: "fallocate"
        case .initSharedIgnored, .startsShared, .unknownFileFlagsAccepted, .capabilityHidden: "creation"
        case .attributesLostWithSlot, .pageBoundTwice, .foreignFileBound, .deletedSlotStaysMapped: "memslots"
        case .faultFlagWrong, .faultNamesNextPage, .faultReturnsSuccess, .mismatchIgnored: "exits"
        }
    }

    /// One line: what the kernel does wrong.
    public var description: String {
        switch self {
        case .flagsIgnored: "flags that are not zero are accepted"
        case .reservedIgnored: "reserved words that are not zero are accepted"
        case .errorOffsetRefused: "an error_offset that is not zero on input is EINVAL"
        case .defaultTypeConverts: "a VM type without private memory converts"
        case .unknownAttributesIgnored: "attribute bits other than PRIVATE are ignored"
        case .emptyRangeAccepted: "size 0 is a success"
        case .wrapAccepted: "a range that wraps around is a success"
        case .sizeTruncated: "a size that is not whole pages is rounded down"
        case .offsetTruncated: "an offset that is not aligned is rounded down"
        case .endOffByOne: "a range may end one page after the end of the file"
        case .startPastEndAccepted: "a range that starts at the end of the file is a success"
        case .uniformBeforeValidation: "a range that has the attribute already is a success, bad flags or not"
        case .busyBeforeBounds: "a page in use is EAGAIN even if the range leaves the file"
        case .structPartlyRead: "a struct of which only the first half can be read is accepted"
        case .copyOutUnchecked: "a result that cannot be copied out is the call's own errno, and not EFAULT"
        case .uniformRangeChecked: "a range that has the attribute already is checked for pages in use"
        case .uniformRangeUnmapped: "a conversion that changes nothing drops the host's mappings"
        case .uniformRangeZapped: "a conversion that changes nothing zaps the guest's mappings"
        case .memoryAfterBusyCheck: "a page in use is EAGAIN where memory for the tracking is short"
        case .noMemoryNamesNothing: "ENOMEM leaves error_offset as it was"
        case .noMemoryConvertsFirstPage: "ENOMEM comes with the first page converted"
        case .busyCheckMissing: "pages in use become private"
        case .firstPageUnchecked: "the first page of a range is not checked for users"
        case .lastPageUnchecked: "the last page of a range is not checked for users"
        case .mixedRangeUnchecked: "a range that mixes states is not checked for users"
        case .toSharedChecked: "to shared, a page in use is EAGAIN"
        case .busyNamesHighest: "EAGAIN names the highest page in use"
        case .busyNamesStart: "EAGAIN names the start of the range"
        case .busyNamesNothing: "EAGAIN leaves error_offset as it was"
        case .busyWithOtherErrno: "a page in use is EBUSY"
        case .busyConvertsBefore: "EAGAIN comes with the pages before the one named converted"
        case .busyConvertsAll: "EAGAIN comes with the whole range converted"
        case .busyLosesContents: "EAGAIN comes with the range's contents zeroed"
        case .releaseForgotten: "a page whose users let go stays in use"
        case .toPrivateKeepsHostMappings: "to private, the host's mappings stay"
        case .toSharedDropsHostMappings: "to shared, the host's mappings of the range go"
        case .errorOffsetWrittenOnSuccess: "a success writes error_offset"
        case .lastPageLeftOut: "the last page of a longer range is not converted"
        case .neighbourConverted: "the page after the range is converted too"
        case .untouchedPagesForgotten: "pages that do not exist yet are not converted"
        case .guestViewKept: "a conversion leaves the guest's mappings as they were"
        case .neighbourZapped: "a conversion zaps all of its slots"
        case .contentsLostToPrivate: "to private, contents are zeroed"
        case .contentsLostToShared: "to shared, contents are zeroed"
        case .contentsScrambledToPrivate: "to private, contents are overwritten with noise"
        case .contentsScrambledToShared: "to shared, contents are overwritten with noise"
        case .hostReadsPrivate: "the host can read private pages"
        case .hostWritesPrivate: "the host can write private pages"
        case .mmapNeedsNoFlag: "a file without the MMAP flag can be mapped"
        case .punchChangesState: "a punched private page is shared"
        case .punchKeepsContents: "a punched page keeps its bytes"
        case .punchKeepsHolders: "a punched page stays in use by who held the old one"
        case .unalignedPunchAccepted: "a hole that is not page aligned is rounded down"
        case .initSharedIgnored: "a file with INIT_SHARED starts private"
        case .startsShared: "a file without INIT_SHARED starts shared"
        case .unknownFileFlagsAccepted: "unknown flags of KVM_CREATE_GUEST_MEMFD are accepted"
        case .capabilityHidden: "KVM_CHECK_EXTENSION denies that files have attributes"
        case .attributesLostWithSlot: "deleting a slot resets the attributes of its pages"
        case .pageBoundTwice: "one page of a file can be in two slots"
        case .foreignFileBound: "a VM can bind the file of another one"
        case .deletedSlotStaysMapped: "the guest still reaches a deleted slot's pages"
        case .faultFlagWrong: "a memory fault has the PRIVATE flag the wrong way round"
        case .faultNamesNextPage: "a memory fault names the page after the one touched"
        case .faultReturnsSuccess: "KVM_RUN returns 0 with a memory fault"
        case .mismatchIgnored: "an access of the wrong kind goes through"
        }
    }
}
