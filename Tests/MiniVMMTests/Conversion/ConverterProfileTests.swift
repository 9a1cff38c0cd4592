// SPDX-License-Identifier: MIT
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// The converter on every posted version: how the content policy was honoured, and what happened to the contents.
@Suite("Conversion: versions of the interface")
struct ConverterProfileTests {
    private struct Bench {
        let converter: Converter
        let mapping: any HostMapping
        static let pages: UInt64 = 8

        init(_ abi: ABIProfile) throws {
            let backend = SoftKVM(.init(seed: 5, abi: abi))
            let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
            let size = Self.pages * pageSize
            let file = try vm.createGuestMemfd(size: size, flags: [.mmap, .initShared])
            mapping = try file.map(offset: 0, length: size)
            let gpa = try #require(PageRange(start: 0, size: size))
            let memory = GuestMemory(
                regions: [MemoryRegion(gpa: gpa, file: file, mapping: mapping)], initial: .shared)
            converter = Converter(
                backend: backend, vm: vm, memory: memory, holds: HoldRegistry(),
                policy: RetryPolicy(attempts: 3), trace: nil)
        }

        func convert(
            to target: PageState, _ contents: ContentPolicy, pages: UInt64 = Self.pages
        ) throws -> ConversionResult {
            let range = try #require(PageRange(start: 0, size: pages * pageSize))
            return try converter.convert(
                ConversionRequest(range: range, to: target, contents: contents), by: .monitor)
        }

        func fill(_ byte: UInt8) throws {
            let bytes = [UInt8](repeating: byte, count: Int(Self.pages * pageSize))
            _ = try bytes.withUnsafeBytes { try mapping.write(at: 0, from: $0) }
        }

        /// Every byte that the host reads.
        func bytes() throws -> Set<UInt8> {
            var bytes = [UInt8](repeating: 0, count: Int(Self.pages * pageSize))
            let count = try bytes.withUnsafeMutableBytes { try mapping.read(at: 0, into: $0) }
            return Set(bytes.prefix(count))
        }
    }

    /// To private and back with the same policy; every page or a refusal.
    @Test(arguments: ABIProfile.allCases) func preserve(abi: ABIProfile) throws {
        let bench = try Bench(abi)
        try bench.fill(7)
        let means: ContentMeans?
        switch abi {
        case .rfcV1, .rfcV2: means = nil
        case .rfcV4, .rfcV5: means = .keptByFlag
        case .linux74: means = .promisedByABI
        }
        for target in [PageState.private, .shared] {
            do {
                #expect(try bench.convert(to: target, .preserve).means == means)
            } catch let error as ConversionError {
                guard case .refused = error.reason else { throw error }
                #expect(means == nil && error.result.calls == 0)
            }
        }
        #expect(try bench.bytes() == [7])
    }

    @Test(arguments: ABIProfile.allCases) func zero(abi: ABIProfile) throws {
        let bench = try Bench(abi)
        let hasModes = abi == .rfcV4 || abi == .rfcV5
        try bench.fill(7)
        #expect(try bench.convert(to: .private, .zero).means == .zeroedByMonitor)
        #expect(try bench.convert(to: .shared, .zero).means == (hasModes ? .zeroedByFlag : .zeroedByMonitor))
        #expect(try bench.bytes() == [0])
        // Shared already, and zeroed nevertheless.
        try bench.fill(7)
        _ = try bench.convert(to: .shared, .zero)
        #expect(try bench.bytes() == [0])
        // Partly shared.
        try bench.fill(7)
        _ = try bench.convert(to: .private, .unspecified, pages: 3)
        _ = try bench.convert(to: .shared, .zero)
        #expect(try bench.bytes() == [0])
        // To private: the pages are zero after a preserving conversion back.
        try bench.fill(7)
        _ = try bench.convert(to: .private, .zero)
        if hasModes || abi == .linux74 {
            _ = try bench.convert(to: .shared, .preserve)
            #expect(try bench.bytes() == [0])
        }
    }

    @Test(arguments: ABIProfile.allCases) func unspecified(abi: ABIProfile) throws {
        let bench = try Bench(abi)
        try bench.fill(7)
        #expect(try bench.convert(to: .private, .unspecified).means == .notRequested)
        #expect(try bench.convert(to: .shared, .unspecified).means == .notRequested)
        #expect(try (bench.bytes() == [7]) == (abi == .linux74))
    }

    /// Busy pages are retried and reported on every version; to shared too, if the version checks references there
    /// (hazards H1, H24).
    @Test(arguments: ABIProfile.allCases) func busyPages(abi: ABIProfile) throws {
        let bench = try Bench(abi)
        let hold = try bench.mapping.hold(at: 2 * pageSize, length: 1)
        #expect(throws: ConversionError.self) { try bench.convert(to: .private, .unspecified) }
        hold.release()
        #expect(try bench.convert(to: .private, .unspecified).calls == 1)
        #expect(try bench.convert(to: .shared, .unspecified).calls == 1)
    }

    /// The probe's findings about each version.
    @Test(arguments: ABIProfile.allCases) func theProbeDistinguishesThem(abi: ABIProfile) throws {
        let findings = BackendProbe(SoftKVM(.init(abi: abi))).findings()
        let call = try #require(findings.first { $0.key == "in-place-conversion" })
        #expect(call.verdict == (abi == .rfcV1 ? .no : .yes))
        #expect(call.meaning.contains("RFC v1") == (abi == .rfcV1))
        let modes = try #require(findings.first { $0.key == "content-modes" })
        let hasModes = abi == .rfcV4 || abi == .rfcV5
        #expect(modes.verdict == (hasModes ? .yes : .no))
        #expect(modes.answer == (hasModes ? "ZERO, and PRESERVE to private and to shared" : "not supported"))
    }
}
