// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// docs/ABI.md, section 2, row by row. `error_offset` is 0xdead before each call, so that a write to it shows.
struct ConversionTableTests {
    private func answer(
        _ file: SoftGuestMemfd, _ request: ckvm_memory_attributes2
    ) -> (errno: Errno?, errorOffset: UInt64) {
        var request = request
        request.error_offset = 0xdead
        let result = errno { () throws(Errno) in try file.setMemoryAttributes2(&request) }
        return (result, request.error_offset)
    }

    private func expect(
        _ file: SoftGuestMemfd, _ request: ckvm_memory_attributes2, _ errno: Errno?,
        errorOffset: UInt64 = 0xdead, location: SourceLocation = #_sourceLocation
    ) {
        let got = answer(file, request)
        #expect(got.errno == errno, sourceLocation: location)
        #expect(got.errorOffset == errorOffset, sourceLocation: location)
    }

    @Test func row0CallIsMissingWithoutTheSeries() throws {
        let without = SoftKVM.Configuration(inPlaceConversion: false)
        let model = try ModelVM(flags: .mmap, without)
        var wrongInEveryWay = request(1, 0, ~0)
        wrongInEveryWay.flags = 1
        expect(model.file, wrongInEveryWay, .inappropriateIOCTLForDevice)
        #expect(try model.vm.checkExtension(.guestMemfdMemoryAttributes) == 0)
    }

    @Test(arguments: [1, 2, 1 << 63] as [UInt64])
    func row2FlagsMustBeZero(flags: UInt64) throws {
        let model = try ModelVM()
        var bad = request(0, pageSize)
        bad.flags = flags
        expect(model.file, bad, .invalidArgument)
        #expect(model.states() == String(repeating: "s", count: 16))
    }

    @Test(arguments: 0..<11)
    func row3ReservedWordsMustBeZero(word: Int) throws {
        let model = try ModelVM()
        var bad = request(0, pageSize)
        withUnsafeMutableBytes(of: &bad) {
            $0.storeBytes(of: 1, toByteOffset: 40 + word * 8, as: UInt64.self)
        }
        expect(model.file, bad, .invalidArgument)
    }

    @Test func row3ErrorOffsetOnInputIsIgnored() throws {
        let model = try ModelVM()
        expect(model.file, request(0, pageSize), nil)
        #expect(model.states().hasPrefix("Ps"))
    }

    @Test func row4DefaultVMHasNoPrivateMemory() throws {
        let model = try ModelVM(type: .default)
        expect(model.file, request(0, pageSize), .invalidArgument)
        // Not even a call that changes nothing succeeds.
        expect(model.file, request(0, pageSize, 0), .invalidArgument)
    }

    @Test(arguments: [1, 4, 9, 16, 1 << 63, ~0] as [UInt64])
    func row5OnlyThePrivateBitIsAccepted(attributes: UInt64) throws {
        let model = try ModelVM()
        expect(model.file, request(0, pageSize, attributes), .invalidArgument)
    }

    @Test func row6EmptyAndWrappingRanges() throws {
        let model = try ModelVM()
        expect(model.file, request(0, 0), .invalidArgument)
        expect(model.file, request(pageSize, 0 &- pageSize), .invalidArgument)
        expect(model.file, request(0 &- pageSize, pageSize), .invalidArgument)
        expect(model.file, request(.max, .max), .invalidArgument)
    }

    @Test(
        arguments: [(1, 4096), (4095, 4096), (0, 1), (0, 4095), (0, 4097), (2048, 2048)] as [(UInt64, UInt64)]
    )
    func row7Alignment(offset: UInt64, size: UInt64) throws {
        let model = try ModelVM()
        expect(model.file, request(offset, size), .invalidArgument)
    }

    @Test func row8RangesPastTheEndOfTheFile() throws {
        let model = try ModelVM(pages: 16)
        expect(model.file, request(15 * pageSize, pageSize), nil)
        expect(model.file, request(15 * pageSize, 2 * pageSize), .invalidArgument)
        expect(model.file, request(16 * pageSize, pageSize), .invalidArgument)
        expect(model.file, request(0, 17 * pageSize), .invalidArgument)
        expect(model.file, request(1 << 62, 1 << 62), .invalidArgument)
        expect(model.file, request(0, 16 * pageSize), nil)
    }

    @Test func row9UniformRangeSucceedsDespiteAPin() throws {
        let model = try ModelVM()
        let hold = try model.mapping.hold(at: 0, length: pageSize)
        // To shared where all pages are shared: no check and no unmapping.
        expect(model.file, request(0, 4 * pageSize, 0), nil)
        #expect(model.file.hostMappedPages(in: PageRange(start: 0, size: 4 * pageSize)!) == 1)
        // The same pin with a range that is not uniform: hazard A10.
        #expect(model.file.convert(0, 4, to: .private).errno == .resourceTemporarilyUnavailable)
        hold.release()
    }

    @Test func row10NoMemoryForTheTrackingStructure() throws {
        let model = try ModelVM(.init(maximumAttributeRuns: 4))
        #expect(model.file.convert(2, 1, to: .private).errno == nil)  // three runs
        expect(model.file, request(5 * pageSize, pageSize), .noMemory, errorOffset: 5 * pageSize)
        #expect(model.states() == "ssPsssssssssssss")
        // Row 9 precedes row 10, and row 10 precedes row 11.
        expect(model.file, request(2 * pageSize, pageSize), nil)
        let hold = try model.mapping.hold(at: 6 * pageSize, length: pageSize)
        expect(model.file, request(5 * pageSize, 2 * pageSize), .noMemory, errorOffset: 5 * pageSize)
        #expect(model.file.hostMappedPages(in: PageRange(start: 6 * pageSize, size: pageSize)!) == 1)
        hold.release()
    }

    @Test func row11ErrorOffsetIsTheLowestPageInUse() throws {
        let model = try ModelVM()
        let holds = try [9, 5, 12].map { try model.mapping.hold(at: $0 * pageSize, length: pageSize) }
        expect(
            model.file, request(0, 16 * pageSize), .resourceTemporarilyUnavailable, errorOffset: 5 * pageSize)
        expect(
            model.file, request(6 * pageSize, 10 * pageSize), .resourceTemporarilyUnavailable,
            errorOffset: 9 * pageSize)
        // All or nothing: not even the pages before error_offset have changed.
        #expect(model.states() == String(repeating: "s", count: 16))
        expect(model.file, request(0, 5 * pageSize), nil)
        holds[1].release()
        expect(
            model.file, request(0, 16 * pageSize), .resourceTemporarilyUnavailable, errorOffset: 9 * pageSize)
        #expect(model.states() == "PPPPPsssssssssss")
        for hold in holds { hold.release() }
        expect(model.file, request(0, 16 * pageSize), nil)
    }

    @Test func row11FailedCallUnmapsTheHostAndKeepsContents() throws {
        let model = try ModelVM()
        let all = try #require(PageRange(start: 0, size: 16 * pageSize))
        try model.mapping.put([1, 2, 3], at: 3 * pageSize)
        let hold = try model.mapping.hold(at: 7 * pageSize, length: pageSize)
        #expect(model.file.hostMappedPages(in: all) == 2)
        #expect(model.file.convert(0, 16, to: .private).errno == .resourceTemporarilyUnavailable)
        #expect(model.file.hostMappedPages(in: all) == 0)
        #expect(try model.mapping.bytes(at: 3 * pageSize, 3) == [1, 2, 3])
        #expect(model.file.hostMappedPages(in: all) == 1)
        hold.release()
    }

    @Test func row11MixedRangeIsCheckedCompletely() throws {
        let model = try ModelVM()
        #expect(model.file.convert(0, 1, to: .private).errno == nil)
        let hold = try model.mapping.hold(at: pageSize, length: pageSize)
        #expect(model.file.convert(0, 1, to: .private).errno == nil)
        #expect(model.file.convert(0, 4, to: .private) == (.resourceTemporarilyUnavailable, pageSize))
        #expect(model.file.convert(2, 2, to: .private).errno == nil)
        hold.release()
        #expect(model.file.convert(0, 4, to: .private).errno == nil)
    }

    @Test func conversionToSharedNeitherChecksNorUnmaps() throws {
        let model = try ModelVM()
        #expect(model.file.convert(0, 2, to: .private).errno == nil)
        let hold = try model.mapping.hold(at: 2 * pageSize, length: pageSize)
        #expect(model.file.convert(0, 4, to: .shared).errno == nil)
        #expect(model.file.hostMappedPages(in: try #require(PageRange(start: 0, size: 4 * pageSize))) == 1)
        hold.release()
    }

    /// A request with two errors gets the result of the earlier row. The EINVAL rows cannot be told apart by errno,
    /// so each is tested against rows 9 to 11, which a valid request would reach.
    @Test func earlierRowsTakePrecedence() throws {
        let model = try ModelVM()
        let hold = try model.mapping.hold(at: 0, length: pageSize)
        expect(model.file, request(0, pageSize), .resourceTemporarilyUnavailable, errorOffset: 0)
        let mistakes: [(inout ckvm_memory_attributes2) -> Void] = [
            { $0.flags = 1 }, { $0.reserved.10 = 1 }, { $0.attributes |= 1 }, { $0.size = 0 },
            { $0.size += 1 },
            { $0.size = 17 * pageSize },
        ]
        for mistake in mistakes {
            var bad = request(0, pageSize)
            mistake(&bad)
            expect(model.file, bad, .invalidArgument)
            // A uniform request, which row 9 would let succeed, is EINVAL, too.
            bad.attributes &= ~privateAttribute
            expect(model.file, bad, .invalidArgument)
        }
        hold.release()
    }

    @Test func structIsUnchangedOnSuccess() throws {
        let model = try ModelVM()
        var bytes = request(0, pageSize)
        bytes.error_offset = 0x1234
        let before = withUnsafeBytes(of: bytes) { Array($0) }
        try model.file.setMemoryAttributes2(&bytes)
        #expect(withUnsafeBytes(of: bytes) { Array($0) } == before)
    }
}
