// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// Converts guest memory between private and shared. Honours the content policy or refuses, and retries busy pages.
///
/// Any thread may call it. Each kernel call and the update of the shadow map that follows it happen under the
/// lock of ``GuestMemory``. No lock is held while it waits or asks holders to release a page.
public final class Converter: Sendable {
    private let backend: any Backend
    private let vm: any KVMVirtualMachine
    private let memory: GuestMemory
    /// The holders that are asked to release a page in use.
    public let holds: HoldRegistry
    private let policy: RetryPolicy
    private let chunk: UInt64
    private let trace: Trace?
    private let cancellation: Cancellation

    /// - Parameters:
    ///   - chunk: the largest single call, in bytes. A call for a gigabyte holds the file's lock for long.
    ///   - cancellation: checked before each call and while pages are zeroed.
    public init(
        backend: any Backend, vm: any KVMVirtualMachine, memory: GuestMemory, holds: HoldRegistry,
        policy: RetryPolicy, chunk: UInt64 = Converter.defaultChunk, trace: Trace?,
        cancellation: Cancellation = Cancellation()
    ) {
        self.backend = backend
        self.cancellation = cancellation
        self.vm = vm
        self.memory = memory
        self.holds = holds
        self.policy = policy
        self.chunk = max(pageSize, chunk & ~(pageSize - 1))
        self.trace = trace
    }

    /// 256 MiB.
    public static let defaultChunk: UInt64 = 256 << 20

    /// Converts a range.
    ///
    /// - Parameter actor: who requested it, for the trace.
    /// - Throws: `ConversionError`, whose `result.converted` is exactly what changed nevertheless.
    @discardableResult
    public func convert(_ request: ConversionRequest, by actor: Actor) throws(ConversionError)
        -> ConversionResult
    {
        // Contents are read only if they are traced.
        trace?.record(.conversionStarted(request, before: memory.firstBytes(of: request.range)), by: actor)
        do throws(ConversionError) {
            var loop = ConversionLoop(
                request, policy: policy, chunk: chunk,
                in: Calls(converter: self, actor: actor, started: backend.now()))
            let result = try loop.run()
            trace?.record(
                .conversionFinished(request, result, after: memory.firstBytes(of: request.range)), by: actor)
            return result
        } catch {
            trace?.record(.conversionFailed(error), by: actor)
            throw error
        }
    }

    /// The calls of one request.
    private struct Calls: ConvertibleMemory {
        let converter: Converter
        let actor: Actor
        let started: UInt64

        var contentPromise: ContentPromise { converter.vm.contentPromise }
        var size: UInt64 { converter.memory.size }
        var regionCount: Int { converter.memory.regions.count }
        func region(_ index: Int) -> PageRange { converter.memory.regions[index].gpa }
        var spent: Duration { Duration(wholeNanoseconds: converter.backend.now() &- started) }

        func call(
            _ piece: PageRange, in region: Int, to target: PageState, _ mode: ContentMode, zeroes: Bool
        ) -> ConversionAnswer {
            converter.call(piece, in: converter.memory.regions[region], to: target, mode, zeroes, by: actor)
        }

        func askHolders(of gpa: UInt64) -> Bool { converter.askHolders(of: gpa, by: actor) }

        func wait(_ duration: Duration, for gpa: UInt64, attempt: Int) {
            converter.trace?.record(
                .waiting(gpa: gpa, nanoseconds: duration.wholeNanoseconds, attempt: attempt), by: actor)
            converter.backend.sleep(for: duration)
        }
    }

    /// Makes one `KVM_SET_MEMORY_ATTRIBUTES2` call, and zeroes the pages if `zeroes` is true. A failed conversion loses no
    /// contents, because the zeroing comes after it.
    private func call(
        _ piece: PageRange, in region: MemoryRegion, to target: PageState, _ mode: ContentMode,
        _ zeroes: Bool,
        by actor: Actor
    ) -> ConversionAnswer {
        guard !cancellation.isCancelled else { return .cancelled }
        // A new struct for each attempt: after a failed call the struct contains an error_offset, which
        // RFC v2 refuses (hazard H1).
        var call = ckvm_memory_attributes2()
        call.offset = piece.start - region.gpa.start
        call.size = piece.size
        call.attributes = target == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
        call.flags = mode.rawValue
        let begun = trace.map { _ in backend.now() }
        var ended: UInt64?
        let (answer, errno) = memory.changingStates { states -> (ConversionAnswer, Errno?) in
            do throws(Errno) {
                defer { ended = begun.map { _ in backend.now() } }
                try region.file.convertInPlace(&call)
            } catch {
                return (.failed(ErrorNumber(error), errorOffset: call.error_offset), error)
            }
            let before = zeroes ? Array(states.runs(in: piece)) : []
            states.set(piece, to: target)
            guard zeroes, let (error, gpa) = zero(region, piece, before, target) else { return (.done, nil) }
            return (.notZeroed(ErrorNumber(error), gpa: gpa), nil)
        }
        trace?.record(
            .attributesCall(
                offset: call.offset, size: call.size, target: target, errno, call.error_offset,
                gpa: piece.start, nanoseconds: ended.flatMap { end in begun.map { end &- $0 } }),
            by: actor)
        return answer
    }

    /// Zeroes a converted piece.
    ///
    /// - Returns: the errno, and the address of the first pages that were not zeroed; nil after a success.
    private func zero(
        _ region: MemoryRegion, _ piece: PageRange, _ before: [(range: PageRange, value: PageState)],
        _ target: PageState
    ) -> (Errno, UInt64)? {
        for run in ZeroedRun.runs(of: piece, before, to: target) {
            do throws(Errno) {
                guard !cancellation.isCancelled else { throw .canceled }
                if run.isHole {
                    try region.file.allocate(
                        punchHole: true, offset: run.range.start - region.gpa.start, length: run.range.size)
                } else {
                    try overwriteWithZeros(region, run.range)
                }
            } catch {
                return (error, run.range.start)
            }
        }
        return nil
    }

    private func overwriteWithZeros(_ region: MemoryRegion, _ range: PageRange) throws(Errno) {
        let zeros = [UInt8](repeating: 0, count: Int(min(range.size, 1 << 20)))
        var position = range.start - region.gpa.start
        let end = range.end - region.gpa.start
        while position < end {
            guard !cancellation.isCancelled else { throw .canceled }
            let count = Int(min(UInt64(zeros.count), end - position))
            var outcome: Result<Int, Errno> = .success(0)
            unsafe zeros.withUnsafeBytes { bytes in
                do throws(Errno) {
                    let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<count])
                    outcome = .success(try unsafe region.mapping.write(at: position, from: part))
                } catch {
                    outcome = .failure(error)
                }
            }
            let written = try outcome.get()
            guard written > 0 else { throw .badAddress }
            position += UInt64(written)
        }
    }

    private func askHolders(of gpa: UInt64, by actor: Actor) -> Bool {
        let (released, refused) = holds.askToRelease(gpa: gpa) { range in
            trace?.record(.released(range), by: actor)
        }
        if released + refused > 0 {
            trace?.record(.holdersAsked(gpa: gpa, released: released, refused: refused), by: actor)
        }
        return released > 0
    }
}
