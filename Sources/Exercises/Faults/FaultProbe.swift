// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// For each planted fault a short test to which a sound kernel and a kernel with the fault give different answers.
struct FaultProbe: Sendable {
    let fault: PlantedFault
    /// Lines of a test, with `; ` between them.
    let text: String

    init(_ fault: PlantedFault, _ text: String) {
        self.fault = fault
        self.text = text
    }

    /// The lines of the probe; empty if the fault has none.
    static func lines(of fault: PlantedFault) -> [String] {
        guard let probe = all.first(where: { $0.fault == fault }) else { return [] }
        return probe.text.utf8.split(separator: UInt8(ascii: ";"))
            .map { AnswerFile.normal(String(decoding: $0, as: UTF8.self)) }
    }

    /// The lines of one of the probes of a VM with one alias, counted round and round.
    static func lines(ofNumber number: UInt64) -> [String] {
        let plain = all.filter { !$0.text.utf8.starts(with: "aliases".utf8) }
        return lines(of: plain[Int(number % UInt64(max(1, plain.count)))].fault)
    }

    static func test(of fault: PlantedFault) -> LitmusTest? {
        var text = TestText(["test \"a probe\""])
        for line in lines(of: fault) { text.add(line) }
        return try? text.parsed()
    }

    /// Whether one of their probes tells two kernels with these faults apart.
    static func differ(_ a: PlantedFault, _ b: PlantedFault) -> Bool {
        for fault in [a, b] {
            guard let test = test(of: fault),
                let one = try? test.trace(on: ModelKernel(faults: [a]), ignoring: nil),
                let other = try? test.trace(on: ModelKernel(faults: [b]), ignoring: nil)
            else { continue }
            if one.outcomes != other.outcomes { return true }
        }
        return false
    }

    static let all = requests + pages + objects

    /// Rows 1 to 12 of the validation table.
    private static let requests = [
        FaultProbe(.flagsIgnored, "memory 2 pages shared; host convert 0 private flags 2"),
        FaultProbe(.reservedIgnored, "memory 2 pages shared; host convert 0 private reserved 3 = 1"),
        FaultProbe(.errorOffsetRefused, "memory 2 pages shared; host convert 0 private error_offset 4096"),
        FaultProbe(.defaultTypeConverts, "vm default; memory 2 pages shared; host convert 0 private"),
        FaultProbe(.unknownAttributesIgnored, "memory 2 pages shared; host convert 0 attributes 0x9"),
        FaultProbe(.emptyRangeAccepted, "memory 2 pages shared; host convert @0+0 private"),
        FaultProbe(.wrapAccepted, "memory 2 pages shared; host convert @4096+0xfffffffffffff000 private"),
        FaultProbe(.sizeTruncated, "memory 2 pages shared; host convert @0+5000 private"),
        FaultProbe(.offsetTruncated, "memory 2 pages shared; host convert @512+4096 private"),
        FaultProbe(
            .sizeLosesHighBits,
            "memory 1048580 pages shared; host write 1 0x41; host convert @0+0x100001000 private; host read 1"
        ),
        FaultProbe(.endOffByOne, "memory 2 pages shared; host convert 1..2 private"),
        FaultProbe(.startPastEndAccepted, "memory 2 pages shared; host convert 5 private"),
        FaultProbe(.uniformBeforeValidation, "memory 2 pages shared; host convert 0 shared flags 2"),
        FaultProbe(.busyBeforeBounds, "memory 2 pages shared; host hold 0 as h; host convert 0..2 private"),
        FaultProbe(.structPartlyRead, "memory 2 pages shared; host convert 0 private struct cut"),
        FaultProbe(
            .copyOutUnchecked,
            "memory 2 pages shared; host hold 0 as h; host convert 0 private struct readonly"),
        FaultProbe(
            .uniformRangeChecked,
            "memory 2 pages shared; host hold 0 as h; host convert 0 shared; host release h; "
                + "host punch 0; host hold 1 as g; host convert 1 shared"),
        FaultProbe(
            .uniformRangeUnmapped,
            "memory 2 pages shared; host fill 0..1 0x41; host convert 0..1 shared; host present 0..1"),
        FaultProbe(
            .uniformRangeZapped,
            "memory 2 pages shared; vcpu0 write 0 0x41; host convert 0 shared; host zapped"),
        FaultProbe(
            .memoryAfterBusyCheck,
            "kernel runs 1; memory 3 pages shared; host fill 0..2 0x41; host hold 1 as h; host convert 1 private"
        ),
        FaultProbe(.noMemoryNamesNothing, "kernel runs 1; memory 3 pages shared; host convert 1 private"),
        FaultProbe(
            .noMemoryConvertsFirstPage,
            "kernel runs 1; memory 3 pages shared; host fill 0..2 0x41; host convert 1 private; host read 1"),
        FaultProbe(
            .busyCheckMissing,
            "memory 3 pages shared; host fill 0..2 0x41; host hold 1 as h; host convert 1 private"),
        FaultProbe(
            .firstPageUnchecked,
            "memory 3 pages shared; host fill 0..2 0x41; host hold 0 as h; host convert 0..2 private"),
        FaultProbe(
            .lastPageUnchecked,
            "memory 3 pages shared; host fill 0..2 0x41; host hold 2 as h; host convert 0..2 private"),
        FaultProbe(
            .laterPagesUnchecked,
            "memory 40 pages shared; host fill 0..39 0x41; host hold 35 as h; host convert 0..39 private"),
        FaultProbe(
            .mixedRangeUnchecked,
            "memory 4 pages shared; host fill 0..3 0x41; host convert 0 private; host hold 2 as h; host convert 0..3 private"
        ),
        FaultProbe(
            .toSharedChecked,
            "memory 3 pages shared; host fill 0..2 0x41; host convert 0 private; host hold 1 as h; host convert 0..2 shared"
        ),
        FaultProbe(
            .busyNamesHighest,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 1 as g; host hold 2 as h; host convert 0..3 private"
        ),
        FaultProbe(
            .busyNamesStart,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 2 as h; host convert 1..3 private"),
        FaultProbe(
            .busyNamesNothing,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 2 as h; host convert 1..3 private"),
        FaultProbe(
            .busyWithOtherErrno,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 2 as h; host convert 1..3 private"),
        FaultProbe(
            .busyConvertsBefore,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 2 as h; host convert 0..3 private; host read 0"
        ),
        FaultProbe(
            .busyConvertsAll,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 2 as h; host convert 0..3 private; host read 3"
        ),
        FaultProbe(
            .busyLosesContents,
            "memory 4 pages shared; host fill 0..3 0x41; host hold 2 as h; host convert 0..3 private; host read 0"
        ),
        FaultProbe(
            .releaseForgotten,
            "memory 2 pages shared; host fill 0..1 0x41; host hold 1 as h; host release h; host convert 0..1 private"
        ),
    ]

    /// Probes of the effect of a conversion on pages and contents.
    private static let pages = [
        FaultProbe(
            .toPrivateKeepsHostMappings,
            "memory 2 pages shared; host fill 0..1 0x41; host convert 0..1 private; host present 0..1"),
        FaultProbe(
            .toSharedDropsHostMappings,
            "memory 3 pages shared; host fill 0..2 0x41; host convert 0 private; host convert 0..2 shared; host present 0..2"
        ),
        FaultProbe(
            .errorOffsetWrittenOnSuccess, "memory 2 pages shared; host convert 0 private error_offset 1"),
        FaultProbe(
            .lastPageLeftOut,
            "memory 3 pages shared; host fill 0..2 0x41; host convert 0..2 private; host read 2"),
        FaultProbe(
            .laterRunsLeftOut,
            "memory 3 pages shared; host fill 0..2 0x41; host convert 1 private; host convert 0..2 private; host read 2"
        ),
        FaultProbe(
            .neighbourConverted,
            "memory 3 pages shared; host fill 0..2 0x41; host convert 0 private; host read 1"),
        FaultProbe(.untouchedPagesForgotten, "memory 3 pages shared; host convert 1 private; host read 1"),
        FaultProbe(
            .guestMappingsKept,
            "aliases two; memory 2 pages private; vcpu0 write 0 0x41; host convert 0 shared; vcpu0 read 0"
        ),
        FaultProbe(
            .laterSlotsKept,
            "memory 1 page shared; host create pair 2 pages mmap init_shared; host map pair:0..1 as pairview; "
                + "host bind slot 4 to pair:0 at 64; host bind slot 5 to pair:1 at 65; vcpu0 write 64 0x41; "
                + "vcpu0 write 65 0x42; host convert pair:0..1 private; host zapped"),
        FaultProbe(
            .neighbourZapped,
            "memory 3 pages shared; vcpu0 write 0 0x41; vcpu0 write 2 0x42; host convert 0 private; host zapped"
        ),
        FaultProbe(
            .contentsLostToPrivate,
            "memory 1 page shared; host write 0 0x41; host convert 0 private; vcpu0 read 0"),
        FaultProbe(
            .contentsLostToShared,
            "memory 1 page private; vcpu0 write 0 0x41; host convert 0 shared; host read 0"),
        FaultProbe(
            .contentsScrambledToPrivate,
            "memory 1 page shared; host write 0 0x41; host convert 0 private; vcpu0 read 0"),
        FaultProbe(
            .contentsScrambledToShared,
            "memory 1 page private; vcpu0 write 0 0x41; host convert 0 shared; host read 0"),
        FaultProbe(.hostReadsPrivate, "memory 2 pages private; host read 1"),
        FaultProbe(.hostWritesPrivate, "memory 2 pages private; host write 1 0x41"),
        FaultProbe(
            .punchChangesState, "memory 2 pages private; vcpu0 write 1 0x41; host punch 1; host read 1"),
        FaultProbe(
            .punchKeepsContents, "memory 2 pages shared; host write 1 0x41; host punch 1; host read 1"),
        FaultProbe(
            .punchKeepsHolders,
            "memory 2 pages shared; host fill 0..1 0x41; host hold 1 as h; host punch 1; host write 1 0x42; "
                + "host convert 1 private"),
        FaultProbe(
            .unalignedPunchAccepted,
            "memory 3 pages shared; host fill 0..2 0x41; host punch @0x1800+0x1000; host read 1"),
    ]

    /// Files, memslots and exits.
    private static let objects = [
        FaultProbe(.mmapNeedsNoFlag, "memory 1 page shared; host create f 2 pages; host map f:0..1 as v"),
        FaultProbe(
            .initSharedIgnored,
            "memory 1 page shared; host create f 2 pages mmap init_shared; host map f:0..1 as v; host read v:0"
        ),
        FaultProbe(
            .startsShared,
            "memory 1 page shared; host create f 2 pages mmap; host map f:0..1 as v; host read v:0"),
        FaultProbe(.unknownFileFlagsAccepted, "memory 1 page shared; host create f 2 pages mmap flags 0x100"),
        FaultProbe(.capabilityHidden, "memory 1 page shared; host extension 252"),
        FaultProbe(
            .attributesLostWithSlot,
            "memory 2 pages shared; host fill 0..1 0x41; host convert 1 private; host unbind slot 0; host read 1"
        ),
        FaultProbe(.pageBoundTwice, "memory 2 pages shared; host bind slot 1 to ram:0..1 at 16"),
        FaultProbe(
            .foreignFileBound,
            "memory 1 page shared; host create f 2 pages mmap init_shared on second; host map f:0..1 as v; "
                + "host bind slot 7 to f:0..1 at 64 address v:0"),
        FaultProbe(
            .deletedSlotStaysMapped,
            "memory 2 pages shared; vcpu0 write 0 0x41; host unbind slot 0; vcpu0 read 0"),
        FaultProbe(
            .faultFlagWrong, "aliases two; memory 2 pages shared; host convert 0 private; vcpu0 read shared:0"
        ),
        FaultProbe(
            .faultNamesNextPage,
            "aliases two; memory 2 pages shared; host convert 0 private; vcpu0 read shared:0"),
        FaultProbe(
            .faultReturnsSuccess,
            "aliases two; memory 2 pages shared; host convert 0 private; vcpu0 read shared:0"),
        FaultProbe(
            .mismatchIgnored,
            "aliases two; memory 2 pages shared; host convert 0 private; vcpu0 read shared:0"),
    ]
}
