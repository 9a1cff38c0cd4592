// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// Pages that something on the host really uses, with each kind of holder.
@Suite("Pages in use", .serialized, .timeLimit(.minutes(120)))
struct HolderTests {
    /// A backend and a kind of holder.
    struct Case: Sendable, CustomTestStringConvertible {
        let backend: BackendUnderTest
        let kind: HoldKind
        var testDescription: String { "\(kind.rawValue) on \(backend.rawValue)" }
    }
    static let cases = BackendUnderTest.asked(of: [.inPlace, .software, .trap]).flatMap { backend in
        HoldKind.allCases.map { Case(backend: backend, kind: $0) }
    }

    /// Eight shared pages with their numbers in them, one of which is held.
    private struct Fixture {
        static let pages: UInt64 = 8
        static let held: UInt64 = 5
        let backend: any Backend
        let vm: any KVMVirtualMachine
        let file: any KVMGuestMemfd
        let view: any HostMapping
        let hold: any PageHold

        init(_ test: Case) throws {
            backend = try test.backend.required()
            vm = try backend.createVM(.softwareProtected, sharedBit: nil)
            file = try vm.createGuestMemfd(size: Self.pages * pageSize, flags: [.mmap, .initShared])
            view = try file.map(offset: 0, length: Self.pages * pageSize)
            for page in 0..<Self.pages { try view.putWord(page * pageSize, page) }
            do throws(Errno) {
                hold = try view.hold(at: Self.held * pageSize, length: pageSize, by: test.kind)
            } catch {
                // Without privilege or the device this kind of holder is not available; any other error is a failure.
                let absent: [Errno] = [
                    .noSuchFileOrDirectory, .noSuchAddressOrDevice, .permissionDenied, .notPermitted,
                    .noFunction,
                ]
                guard absent.contains(error) else { throw error }
                try Test.cancel("no \(test.kind.rawValue) holder here: \(error.name)")
            }
        }

        func refusal(_ page: UInt64, _ count: UInt64) -> (errno: Errno?, errorOffset: UInt64?) {
            file.refusal(of: .conversion(page * pageSize, count * pageSize, .private))
        }

        /// The host can read every page, and each has its number in it.
        func expectAllSharedAndIntact() throws {
            for page in 0..<Self.pages { #expect(try view.word(page * pageSize) == page) }
        }
    }

    @Test(arguments: cases) func theRequestFailsAtTheHeldPageAndNothingChanges(_ test: Case) throws {
        let fixture = try Fixture(test)
        let held = Fixture.held
        #expect(fixture.refusal(0, Fixture.pages) == (.resourceTemporarilyUnavailable, held * pageSize))
        try fixture.expectAllSharedAndIntact()
        #expect(fixture.refusal(held, 1) == (.resourceTemporarilyUnavailable, held * pageSize))
        #expect(fixture.refusal(held - 1, 3) == (.resourceTemporarilyUnavailable, held * pageSize))
        // The other pages are not held.
        for page in 0..<Fixture.pages where page != held {
            #expect(fixture.refusal(page, 1) == (nil, nil), "page \(page)")
        }
        try fixture.file.convert(0, held * pageSize, to: .shared)
        try fixture.file.convert((held + 1) * pageSize, 2 * pageSize, to: .shared)
        try fixture.expectAllSharedAndIntact()

        fixture.hold.release()
        #expect(fixture.refusal(0, Fixture.pages) == (nil, nil))
        #expect(throws: Errno.badAddress) { try fixture.view.word(held * pageSize) }
        try fixture.file.convert(0, Fixture.pages * pageSize, to: .shared)
        try fixture.expectAllSharedAndIntact()
    }

    private func converter(_ fixture: Fixture, _ policy: RetryPolicy) throws -> (Converter, GuestMemory) {
        let range = try #require(PageRange(start: 0, size: Fixture.pages * pageSize))
        let memory = GuestMemory(
            regions: [MemoryRegion(gpa: range, file: fixture.file, mapping: fixture.view)], initial: .shared)
        let converter = Converter(
            backend: fixture.backend, vm: fixture.vm, memory: memory, holds: HoldRegistry(), policy: policy,
            trace: nil)
        return (converter, memory)
    }

    @Test(arguments: cases) func aHolderThatReleasesWhenAskedCostsARetry(_ test: Case) throws {
        let fixture = try Fixture(test)
        // An O_DIRECT write releases its pages when the device has finished, which may take a second.
        var policy = RetryPolicy()
        policy.deadline = .seconds(30)
        let (converter, memory) = try converter(fixture, policy)
        let page = try #require(PageRange(start: Fixture.held * pageSize, size: pageSize))
        converter.holds.add(fixture.hold, range: page, yields: true)
        let all = try #require(PageRange(start: 0, size: Fixture.pages * pageSize))
        let result = try converter.convert(
            ConversionRequest(range: all, to: .private, contents: .preserve), by: .monitor)
        #expect(result.busyAnswers >= 1)
        #expect(result.converted == [all])
        #expect(memory.uniformState(of: all) == .private)
        try converter.convert(ConversionRequest(range: all, to: .shared, contents: .preserve), by: .monitor)
        try fixture.expectAllSharedAndIntact()
    }

    @Test(arguments: cases) func bisectingConvertsAllButTheHeldPage(_ test: Case) throws {
        let fixture = try Fixture(test)
        var policy = RetryPolicy()
        policy.inUse = .bisect
        policy.attempts = 2
        // A holder that cannot be asked, like another process. An O_DIRECT write may end by itself meanwhile.
        policy.deadline = .milliseconds(50)
        let (converter, memory) = try converter(fixture, policy)
        let all = try #require(PageRange(start: 0, size: Fixture.pages * pageSize))
        do throws(ConversionError) {
            try converter.convert(
                ConversionRequest(range: all, to: .private, contents: .preserve), by: .monitor)
            Issue.record("the held page was converted")
        } catch {
            guard case .inUse(let pages) = error.reason else {
                Issue.record("\(error)")
                return
            }
            #expect(pages.map(\.start) == [Fixture.held * pageSize])
            #expect(error.result.converted.map(\.size) == [5 * pageSize, 2 * pageSize])
        }
        for page in 0..<Fixture.pages {
            #expect(memory.state(at: page * pageSize) == (page == Fixture.held ? .shared : .private))
        }
        #expect(try fixture.view.word(Fixture.held * pageSize) == Fixture.held)
        #expect(throws: Errno.badAddress) { try fixture.view.word(0) }
        fixture.hold.release()
        #expect(fixture.refusal(0, Fixture.pages) == (nil, nil))
    }
}
