// SPDX-License-Identifier: MIT
/// A rule of the interface that the model breaks on purpose. It shows whether a test suite notices: a suite that
/// passes with the fault planted does not check that rule.
public enum PlantedFault: UInt8, Sendable, CaseIterable {
    // Validation.
    /// Row 2: flags other than 0 are accepted.
    case flagsIgnored
    /// Row 3: reserved words other than 0 are accepted.
    case reservedIgnored
    /// Row 3: an error_offset other than 0 on input is `EINVAL`.
    case errorOffsetRefused
    /// Row 4: files of a VM type without private memory can be converted.
    case defaultTypeConverts
    /// Row 5: attribute bits other than PRIVATE are ignored.
    case unknownAttributesIgnored
    /// Row 6: size 0 returns 0.
    case emptyRangeAccepted
    /// Row 6: a range whose end exceeds 64 bits returns 0.
    case wrapAccepted
    /// Row 7: a size that is not whole pages is rounded down.
    case sizeTruncated
    /// Row 7: an offset that is not page aligned is rounded down.
    case offsetTruncated
    /// Row 7: only the low 32 bits of the size count.
    case sizeLosesHighBits
    /// Row 8: a range may end one page after the end of the file.
    case endOffByOne
    /// Row 8: a range that starts at or after the end of the file returns 0.
    case startPastEndAccepted
    /// Row 9 before row 2: a range that already has the attribute returns 0, whatever the flags.
    case uniformBeforeValidation
    /// Row 11 before row 2: a page in use is `EAGAIN` even if the range reaches past the end of the file.
    case busyBeforeBounds
    /// Row 1: a struct whose second half cannot be read is accepted.
    case structPartlyRead
    /// Row 12: the call returns `EAGAIN` or `ENOMEM` even if the result cannot be written back.
    case copyOutUnchecked
    // A range that already has the attribute.
    /// Row 9: a page in use is `EAGAIN` although the range already has the attribute.
    case uniformRangeChecked
    /// Row 9: a call that changes nothing unmaps the range from the host.
    case uniformRangeUnmapped
    /// Row 9: a call that changes nothing removes the range from the guest's tables.
    case uniformRangeZapped
    // No memory.
    /// Row 11 before row 10: a page in use is `EAGAIN` where `ENOMEM` is due.
    case memoryAfterBusyCheck
    /// Row 10: `ENOMEM` does not set error_offset.
    case noMemoryNamesNothing
    /// Row 10: `ENOMEM` still converts the first page.
    case noMemoryConvertsFirstPage
    // Pages in use.
    /// Row 11: pages in use become private.
    case busyCheckMissing
    /// Row 11: the first page of a range is not checked.
    case firstPageUnchecked
    /// Row 11: the last page of a range is not checked.
    case lastPageUnchecked
    /// Row 11: only the first 31 allocated pages of a range are checked.
    case laterPagesUnchecked
    /// Row 11: a range of mixed states is not checked.
    case mixedRangeUnchecked
    /// Row 11: a conversion to shared checks for pages in use, too.
    case toSharedChecked
    /// Row 11: error_offset is the highest page in use.
    case busyNamesHighest
    /// Row 11: error_offset is the start of the range.
    case busyNamesStart
    /// Row 11: `EAGAIN` does not set error_offset.
    case busyNamesNothing
    /// Row 11: a page in use is `EBUSY`.
    case busyWithOtherErrno
    /// All or nothing: `EAGAIN` converts the pages before error_offset.
    case busyConvertsBefore
    /// All or nothing: `EAGAIN` converts the whole range.
    case busyConvertsAll
    /// All or nothing: `EAGAIN` zeroes the pages of the range.
    case busyLosesContents
    /// Row 11: a page stays in use after its references were released.
    case releaseForgotten
    // Effects of a conversion.
    /// A conversion to private does not unmap the range from the host.
    case toPrivateKeepsHostMappings
    /// A conversion to shared unmaps the range from the host.
    case toSharedDropsHostMappings
    /// A success writes the end of the range to error_offset.
    case errorOffsetWrittenOnSuccess
    /// A range of two or more pages is converted without its last page.
    case lastPageLeftOut
    /// Of a range in which several runs change state, only the first one is converted.
    case laterRunsLeftOut
    /// The page after the range is converted, too.
    case neighbourConverted
    /// Pages that are not allocated yet keep their state.
    case untouchedPagesForgotten
    /// The range stays in the guest's tables.
    case guestMappingsKept
    /// Of several memslots that contain a part of the range, only the first one is removed from the guest's tables.
    case laterSlotsKept
    /// All pages of the file are removed from the guest's tables, not only the range.
    case neighbourZapped
    /// A conversion to private zeroes the pages.
    case contentsLostToPrivate
    /// A conversion to shared zeroes the pages.
    case contentsLostToShared
    /// A conversion to private overwrites the pages with noise.
    case contentsScrambledToPrivate
    /// A conversion to shared overwrites the pages with noise.
    case contentsScrambledToShared
    // Host access.
    /// The host can read private pages.
    case hostReadsPrivate
    /// The host can write private pages.
    case hostWritesPrivate
    /// A file without `GUEST_MEMFD_FLAG_MMAP` can be mapped.
    case mmapNeedsNoFlag
    /// `FALLOC_FL_PUNCH_HOLE` makes pages shared.
    case punchChangesState
    /// `FALLOC_FL_PUNCH_HOLE` keeps pages and their bytes.
    case punchKeepsContents
    /// References to a punched page count for the fresh page, too.
    case punchKeepsHolders
    /// Offset and length of `fallocate` are rounded down to whole pages.
    case unalignedPunchAccepted
    // Files and slots.
    /// A file with `GUEST_MEMFD_FLAG_INIT_SHARED` starts private.
    case initSharedIgnored
    /// A file without `GUEST_MEMFD_FLAG_INIT_SHARED` starts shared.
    case startsShared
    /// Unknown flags of `KVM_CREATE_GUEST_MEMFD` are accepted.
    case unknownFileFlagsAccepted
    /// `KVM_CHECK_EXTENSION` returns 0 for `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES`.
    case capabilityHidden
    /// Deleting a memslot resets its pages to their initial state.
    case attributesLostWithSlot
    /// A page of a file can be in two memslots.
    case pageBoundTwice
    /// A VM can bind a file that another VM created.
    case foreignFileBound
    /// The guest can still access the pages of a deleted memslot.
    case deletedSlotStaysMapped
    // Guest accesses.
    /// `KVM_MEMORY_EXIT_FLAG_PRIVATE` of a memory fault is inverted.
    case faultFlagWrong
    /// A memory fault reports the page after the one accessed.
    case faultNamesNextPage
    /// `KVM_RUN` returns 0 with a memory fault, not `EFAULT`.
    case faultReturnsSuccess
    /// An access of the wrong kind succeeds.
    case mismatchIgnored
    // SNP and TDX: validation.
    /// The guest can use pages that it has not validated or accepted.
    case unvalidatedPageReadable
    /// A touch of a page that is not validated or accepted is a memory fault, not #VC, #VE or `EIO`.
    case unvalidatedTouchExits
    /// PVALIDATE and ACCEPT do not report that a page was in that state before.
    case revalidationUnnoticed
    /// PVALIDATE zeroes the page.
    case validationZeroes
    /// PVALIDATE does not rescind pages.
    case rescindIgnored
    /// PVALIDATE and ACCEPT of 2 MiB succeed on a page of 4 KiB.
    case largePageValidates
    /// PVALIDATE of a shared page succeeds.
    case sharedPageValidates
    /// ACCEPT does not zero the page.
    case acceptKeepsContents
    /// ACCEPT zeroes a page that was accepted before.
    case secondAcceptZeroes
    // SNP and TDX: the host's tables.
    /// RMPUPDATE does not clear `validated`.
    case assignmentKeepsValidated
    /// The guest-physical address in the reverse map table is not compared.
    case reverseMapAddressUnchecked
    /// A conversion to shared leaves the page assigned to the guest, or mapped in the secure EPT.
    case conversionKeepsEntry
    /// TDH.MEM.PAGE.AUG adds pages that need no ACCEPT.
    case pageAddedAccepted
    /// TDH.MEM.PAGE.REMOVE needs no TDH.MEM.TRACK.
    case removalNeedsNoTrack
    /// TDH.MEM.PAGE.REMOVE needs no TDH.MEM.RANGE.BLOCK.
    case removalNeedsNoBlock
    // SNP and TDX: contents.
    /// The host reads what the guest has written to its private pages.
    case plaintextShownToHost
    /// The guest reads what the host has written before a page became private.
    case guestReadsHostPlaintext
    /// SNP: a conversion to shared zeroes the pages.
    case sharedPagesZeroed
    /// TDX: KVM does not clear the pages that it takes from the guest.
    case removedPagesNotCleared
    /// The launch loses the bytes that it measures in.
    case launchLosesContents
    // SNP and TDX: accesses and the life of a VM.
    /// The guest reads and writes its private pages through the shared alias.
    case privateReachedThroughSharedAlias
    /// SNP: a read of a private page through the shared alias is always a memory fault.
    case ciphertextReadExits
    /// A VM runs on after the touch of a pending page.
    case deadGuestRuns
    /// Pages can be measured in after the launch has ended.
    case launchAfterFinalize
    /// An answer to a guest's request that is neither 0 nor `EAGAIN` nor `EINVAL` refuses it, and `KVM_RUN` does not fail.
    case wrongAnswerRefuses
}

/// A set of planted faults, stored as bits: every rule checks it, so lookup must be cheap.
public struct PlantedFaults: Hashable, Sendable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0

    /// No faults by default. Duplicates count once.
    public init(_ faults: some Sequence<PlantedFault> = []) {
        for fault in faults {
            if fault.rawValue < 64 {
                low |= 1 << UInt64(fault.rawValue)
            } else {
                high |= 1 << UInt64(fault.rawValue - 64)
            }
        }
    }

    /// Whether any rule is broken.
    public var isPlanted: Bool { low | high != 0 }
    /// Whether this rule is broken.
    @inline(__always)
    public func contains(_ fault: PlantedFault) -> Bool {
        fault.rawValue < 64
            ? low & 1 << UInt64(fault.rawValue) != 0 : high & 1 << UInt64(fault.rawValue - 64) != 0
    }
}
