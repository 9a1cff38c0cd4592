// SPDX-License-Identifier: MIT
/// A rule of the interface that a kernel breaks on purpose, so that a check of kernels can be checked itself: one
/// that finds nothing wrong with the fault planted does not look.
public enum PlantedFault: UInt8, Sendable, CaseIterable {
    // Validation.
    case flagsIgnored, reservedIgnored, errorOffsetRefused, defaultTypeConverts, unknownAttributesIgnored
    case emptyRangeAccepted, wrapAccepted, sizeTruncated, offsetTruncated, endOffByOne, startPastEndAccepted
    case uniformBeforeValidation, busyBeforeBounds, structPartlyRead, copyOutUnchecked
    // A range that has the attribute already.
    case uniformRangeChecked, uniformRangeUnmapped, uniformRangeZapped
    // No memory.
    case memoryAfterBusyCheck, noMemoryNamesNothing, noMemoryConvertsFirstPage
    // Pages in use.
    case busyCheckMissing, firstPageUnchecked, lastPageUnchecked, mixedRangeUnchecked, toSharedChecked
    case busyNamesHighest, busyNamesStart, busyNamesNothing, busyWithOtherErrno
    case busyConvertsBefore, busyConvertsAll, busyLosesContents, releaseForgotten
    // Effects of a conversion.
    case toPrivateKeepsHostMappings, toSharedDropsHostMappings, errorOffsetWrittenOnSuccess
    case lastPageLeftOut, neighbourConverted, untouchedPagesForgotten, guestViewKept, neighbourZapped
    case contentsLostToPrivate, contentsLostToShared, contentsScrambledToPrivate, contentsScrambledToShared
    // Host access.
    case hostReadsPrivate, hostWritesPrivate, mmapNeedsNoFlag
    case punchChangesState, punchKeepsContents, punchKeepsHolders, unalignedPunchAccepted
    // Files and slots.
    case initSharedIgnored, startsShared, unknownFileFlagsAccepted, capabilityHidden
    case attributesLostWithSlot, pageBoundTwice, foreignFileBound, deletedSlotStaysMapped
    // Guest accesses.
    case faultFlagWrong, faultNamesNextPage, faultReturnsSuccess, mismatchIgnored
}

/// The faults of one kernel, as bits: to ask for one costs a test.
public struct PlantedFaults: Hashable, Sendable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0

    public init(_ faults: some Sequence<PlantedFault> = []) {
        for fault in faults {
            if fault.rawValue < 64 {
                low |= 1 << UInt64(fault.rawValue)
            } else {
                high |= 1 << UInt64(fault.rawValue - 64)
            }
        }
    }

    public var isPlanted: Bool { low | high != 0 }
    @inline(__always)
    public func contains(_ fault: PlantedFault) -> Bool {
        fault.rawValue < 64
            ? low & 1 << UInt64(fault.rawValue) != 0 : high & 1 << UInt64(fault.rawValue - 64) != 0
    }
}
