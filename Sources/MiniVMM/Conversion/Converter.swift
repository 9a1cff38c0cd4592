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
    /// - Throws: ``ConversionError``, whose `result.converted` is exactly what changed nevertheless.
    @discardableResult
    public func convert(_ request: ConversionRequest, by actor: Actor) throws(ConversionError)
        -> ConversionResult
    {
        var work = Work(request: request, actor: actor, result: ConversionResult(means: .notRequested))
        // Contents are read only if they are traced.
        trace?.record(.conversionStarted(request, before: memory.firstBytes(of: request.range)), by: actor)
        do throws(ConversionError) {
            work.result.means = try means(for: request, work)
            guard request.range.end <= memory.size else { throw work.failed(.outsideRAM(size: memory.size)) }
            work.started = backend.now()
            for part in memory.parts(of: request.range) {
                for piece in part.gpa.chunks(of: chunk) { try convert(piece, in: part.region, &work) }
            }
            try convertParked(&work)
        } catch {
            trace?.record(.conversionFailed(error), by: actor)
            throw error
        }
        trace?.record(
            .conversionFinished(request, work.result, after: memory.firstBytes(of: request.range)), by: actor)
        return work.result
    }

    private struct Work {
        let request: ConversionRequest
        let actor: Actor
        var result: ConversionResult
        var started: UInt64 = 0
        /// Pages found in use while bisecting, in order.
        var parked: [(region: MemoryRegion, gpa: PageRange)] = []

        func failed(_ reason: ConversionError.Reason) -> ConversionError {
            var result = result
            result.sortConverted()
            return ConversionError(reason: reason, request: request, result: result)
        }

        func gaveUp(on page: PageRange) -> ConversionError {
            let pages = parked.isEmpty ? [page] : parked.map(\.gpa)
            return failed(.inUse(pages.sorted { $0.start < $1.start }))
        }
    }

    // MARK: contents

    /// How the policy will be honoured. Decided before anything changes.
    private func means(for request: ConversionRequest, _ work: Work) throws(ConversionError) -> ContentMeans {
        // That of an SNP or TDX VM changes when its launch ends.
        let promise = vm.contentPromise
        switch request.contents {
        case .unspecified: return .notRequested
        // The monitor can zero the pages itself once they are in their new state, unless they are encrypted. With per-call
        // content flags the kernel zeroes pages that become shared, but never pages that become private.
        case .zero:
            guard request.target == .shared || promise.zeroesPrivate else {
                throw work.failed(.refused(.onlyGuestInitialises))
            }
            let byFlag = request.target == .shared && promise.toShared == .byFlag
            return byFlag ? .zeroedByFlag : .zeroedByMonitor
        case .preserve:
            switch promise.fate(to: request.target) {
            case .preserved: return .promisedByABI
            case .byFlag: return .keptByFlag
            case .undefined: throw work.failed(.refused(.noPromise(to: request.target)))
            case .lost: throw work.failed(.refused(.twoPlaces(to: request.target)))
            }
        }
    }

    /// Zeroes a converted piece. Called after the conversion, so that a failed conversion loses no contents.
    ///
    /// Pages that were private are punched out: nothing can hold a reference on them, and untouched pages stay
    /// unallocated. Pages that were shared before and after are overwritten, because a hole would leave a holder
    /// with the old page.
    private func zero(
        _ region: MemoryRegion, _ piece: PageRange, _ before: [(range: PageRange, value: PageState)],
        target: PageState
    ) -> (Errno, UInt64)? {
        for run in target == .private ? [(range: piece, value: .private)] : before {
            do throws(Errno) {
                guard !cancellation.isCancelled else { throw .canceled }
                if run.value == .private {
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

    // MARK: calls and retries

    /// The kernel's answer to one call.
    private enum Answer {
        case done
        case busy(PageRange)
        case failed(ConversionError.Reason)
    }

    /// Makes one `KVM_SET_MEMORY_ATTRIBUTES2` call and acts on the answer.
    private func attempt(_ piece: PageRange, in region: MemoryRegion, _ work: inout Work) -> Answer {
        guard !cancellation.isCancelled else { return .failed(.cancelled) }
        let request = work.request
        let zeroing = work.result.means == .zeroedByMonitor
        // A new struct for each attempt: after a failed call the struct contains an error_offset, which
        // RFC v2 refuses (hazard H1).
        var call = ckvm_memory_attributes2()
        call.offset = piece.start - region.gpa.start
        call.size = piece.size
        call.attributes = request.target == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
        call.flags = work.result.means.mode.rawValue
        work.result.calls += 1
        let begun = trace.map { _ in backend.now() }
        var ended: UInt64?
        let (answer, errno) = memory.changingStates { states -> (Answer, Errno?) in
            do throws(Errno) {
                defer { ended = begun.map { _ in backend.now() } }
                try region.file.convertInPlace(&call)
            } catch {
                let page = page(at: call.error_offset, in: piece, region)
                switch (error, page) {
                case (.resourceTemporarilyUnavailable, let page?): return (.busy(page), error)
                case (.noMemory, let page): return (.failed(.backend(error, gpa: page?.start)), error)
                default: return (.failed(.backend(error, gpa: nil)), error)
                }
            }
            let before = zeroing ? Array(states.runs(in: piece)) : []
            states.set(piece, to: request.target)
            if zeroing, let (errno, gpa) = zero(region, piece, before, target: request.target) {
                return (.failed(.zeroing(errno, gpa: gpa)), nil)
            }
            return (.done, nil)
        }
        trace?.record(
            .attributesCall(
                offset: call.offset, size: call.size, target: request.target, errno, call.error_offset,
                gpa: piece.start, nanoseconds: ended.flatMap { end in begun.map { end &- $0 } }),
            by: work.actor)
        switch answer {
        case .done, .failed(.zeroing): work.result.add(piece)
        case .busy: work.result.busyAnswers += 1
        case .failed: break
        }
        return answer
    }

    /// The page that contains `error_offset`; nil if it is outside the piece that was requested.
    private func page(at offset: UInt64, in piece: PageRange, _ region: MemoryRegion) -> PageRange? {
        let (gpa, overflow) = region.gpa.start.addingReportingOverflow(offset & ~(pageSize - 1))
        return !overflow && piece.contains(gpa) ? PageRange(start: gpa, size: pageSize) : nil
    }

    private func convert(_ piece: PageRange, in region: MemoryRegion, _ work: inout Work)
        throws(ConversionError)
    {
        // Ranges still to convert after `next`, in descending order. A list, because the number of splits is not
        // limited.
        var rest: [PageRange] = []
        var next: PageRange? = piece
        var attempts = 1
        while let current = next {
            switch attempt(current, in: region, &work) {
            case .done: next = rest.popLast()
            case .failed(let reason): throw work.failed(reason)
            case .busy(let page):
                let released = askHolders(of: page.start, work)
                guard policy.inUse == .bisect else {
                    try backOff(attempt: attempts, on: page, waiting: !released, &work)
                    attempts += 1
                    continue
                }
                work.parked.append((region, page))
                // A range full of busy pages takes many calls without any waiting, so check the time here.
                guard spent(work) < policy.deadline else { throw work.gaveUp(on: page) }
                if let after = PageRange(start: page.end, size: current.end - page.end) { rest.append(after) }
                // The reported page is the lowest in use, so all pages before it can be converted now.
                next = PageRange(start: current.start, size: page.start - current.start) ?? rest.popLast()
            }
        }
    }

    /// Retries all parked pages in rounds until they are converted or the policy gives up.
    private func convertParked(_ work: inout Work) throws(ConversionError) {
        guard !work.parked.isEmpty else { return }
        var attempts = 1
        while !work.parked.isEmpty {
            let pages = work.parked
            work.parked = []
            var released = false
            for page in pages {
                switch attempt(page.gpa, in: page.region, &work) {
                case .done: break
                case .failed(let reason): throw work.failed(reason)
                case .busy(let busy):
                    if askHolders(of: busy.start, work) { released = true }
                    work.parked.append(page)
                }
            }
            guard let first = work.parked.first else { break }
            try backOff(attempt: attempts, on: first.gpa, waiting: !released, &work)
            attempts += 1
        }
        work.result.sortConverted()
    }

    private func askHolders(of gpa: UInt64, _ work: Work) -> Bool {
        let (released, refused) = holds.askToRelease(gpa: gpa) { range in
            trace?.record(.released(range), by: work.actor)
        }
        if released + refused > 0 {
            trace?.record(.holdersAsked(gpa: gpa, released: released, refused: refused), by: work.actor)
        }
        return released > 0
    }

    /// Waits before the next attempt, or gives up.
    ///
    /// - Parameter waiting: false if a holder has just released its page, so that waiting is unnecessary.
    private func backOff(
        attempt: Int, on page: PageRange, waiting: Bool, _ work: inout Work
    ) throws(ConversionError) {
        let spent = spent(work)
        let wait = waiting ? policy.backoff(after: attempt) : .zero
        guard attempt < policy.attempts, spent < policy.deadline, wait <= policy.deadline - spent else {
            throw work.gaveUp(on: page)
        }
        guard waiting else { return }
        trace?.record(
            .waiting(gpa: page.start, nanoseconds: wait.wholeNanoseconds, attempt: attempt), by: work.actor)
        backend.sleep(for: wait)
        work.result.waited += wait
    }

    private func spent(_ work: Work) -> Duration { Duration(wholeNanoseconds: backend.now() &- work.started) }
}

extension ConversionResult {
    /// Parked pages were added last; sorts the ranges and joins them.
    fileprivate mutating func sortConverted() {
        let sorted = converted.sorted { $0.start < $1.start }
        converted = []
        for range in sorted { add(range) }
    }
}
