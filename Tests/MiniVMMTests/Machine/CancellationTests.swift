// SPDX-License-Identifier: MIT
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Cancellation", .timeLimit(.minutes(120)))
struct CancellationTests {
    @Test func nothingCancelsByItself() {
        let cancellation = Cancellation()
        #expect(!cancellation.isCancelled && cancellation.outcome == nil && cancellation.remaining == nil)
    }

    @Test func theFirstReasonCounts() {
        let cancellation = Cancellation()
        cancellation.cancel(.interrupted(signal: 2))
        cancellation.cancel(.halted)
        guard case .interrupted(2)? = cancellation.outcome else { return #expect(Bool(false)) }
        #expect(cancellation.isCancelled)
    }

    @Test func theTimeLimitCancels() {
        let cancellation = Cancellation(timeout: .nanoseconds(1))
        while !cancellation.isCancelled {}
        guard case .timeLimit(.nanoseconds(1))? = cancellation.outcome else { return #expect(Bool(false)) }
        #expect(cancellation.remaining == .zero)
    }

    /// Between two calls of one conversion.
    @Test func aConversionInManyChunksEnds() throws {
        let cancellation = Cancellation()
        let bench = try ConverterBench(pages: [1 << 20], chunk: pageSize, cancellation: cancellation)
        bench.file.state.withLock {
            $0.onCall = { call in if call.offset == 9 * pageSize { cancellation.cancel(.halted) } }
        }
        let result = bench.convert(0, 1 << 20)
        #expect(result.error?.reason == .cancelled && result.error?.errno == .canceled)
        #expect(result.converted == [0...9])
        #expect(bench.shadowMatches)
    }

    /// While pages that were shared before are overwritten.
    @Test func zeroingEnds() throws {
        let cancellation = Cancellation()
        let bench = try ConverterBench(pages: [1 << 20], cancellation: cancellation)
        bench.file.state.withLock { $0.onCall = { _ in cancellation.cancel(.halted) } }
        let result = bench.convert(0, 1 << 20, to: .shared, .zero)
        #expect(result.error?.reason == .zeroing(.canceled, gpa: 0))
    }

    @Test func theBuildingOfAMachineEnds() throws {
        let cancellation = Cancellation()
        cancellation.cancel(.timeLimit(.nanoseconds(1)))
        #expect(throws: MachineError.self) {
            try Machine(
                backend: FakeBackend(), configuration: MachineConfiguration(), image: try .flat([0xf4]),
                console: Console(nil), cancellation: cancellation)
        }
    }
}
