// SPDX-License-Identifier: MIT

/// The memory that a ``ConversionLoop`` converts: of a machine on a kernel, or of the model.
package protocol ConvertibleMemory {
    /// The effect of the VM's conversions on contents. It changes when the launch of an SNP or TDX VM ends.
    var contentPromise: ContentPromise { get }
    /// The size of the guest's memory, bytes.
    var size: UInt64 { get }
    /// The number of regions. Each lies in one file.
    var regionCount: Int { get }
    /// The guest-physical pages of a region.
    func region(_ index: Int) -> PageRange

    /// Makes one `KVM_SET_MEMORY_ATTRIBUTES2` call, with a new struct.
    ///
    /// - Parameters:
    ///   - piece: guest-physical, inside the region.
    ///   - zeroes: whether the pages are zeroed after a success, as ``ZeroedRun/runs(of:_:to:)`` says.
    mutating func call(
        _ piece: PageRange, in region: Int, to target: PageState, _ mode: ContentMode, zeroes: Bool
    ) -> ConversionAnswer

    /// Asks the holders of a page to release it.
    ///
    /// - Returns: whether one has.
    mutating func askHolders(of gpa: UInt64) -> Bool
    /// Waits before the next attempt, which is number `attempt` + 1.
    mutating func wait(_ duration: Duration, for gpa: UInt64, attempt: Int)
    /// The time since the request began.
    var spent: Duration { get }
}

/// How one call of a ``ConversionLoop`` ended.
package enum ConversionAnswer {
    case done
    /// The errno, and `error_offset` after the call.
    case failed(ErrorNumber, errorOffset: UInt64)
    /// The state changed, but the pages from this address on could not be zeroed.
    case notZeroed(ErrorNumber, gpa: UInt64)
    /// The machine is shutting down, and the call was not made.
    case cancelled
}

/// Consecutive pages that the monitor zeroes in one way after their conversion.
///
/// Pages that were private are punched out: nothing can hold a reference on them, and untouched pages stay
/// unallocated. Pages that were shared before and after are overwritten, because a hole would leave a holder
/// with the old page.
package struct ZeroedRun {
    /// Guest-physical, or offsets in a file, as the runs that it was made from.
    package let range: PageRange
    /// Whether the pages are punched out. Otherwise they are overwritten.
    package let isHole: Bool

    /// - Parameter before: the states of the pages before the conversion.
    package static func runs(
        of piece: PageRange, _ before: [(range: PageRange, value: PageState)], to target: PageState
    ) -> [ZeroedRun] {
        guard target == .shared else { return [ZeroedRun(range: piece, isHole: true)] }
        return before.map { ZeroedRun(range: $0.range, isHole: $0.value == .private) }
    }
}

/// Carries out a conversion in calls of the kernel. Honours the content policy or refuses, and retries busy pages.
///
/// It belongs to the thread that made it.
package struct ConversionLoop<Memory: ConvertibleMemory> {
    /// The memory, with all effects of the calls.
    package var memory: Memory
    private let request: ConversionRequest
    private let policy: RetryPolicy
    private let chunk: UInt64
    private var result = ConversionResult(means: .notRequested)
    /// Pages found in use while bisecting, in order.
    private var parked: [(region: Int, gpa: PageRange)] = []

    /// - Parameter chunk: the largest single call, in bytes; at least a page.
    package init(_ request: ConversionRequest, policy: RetryPolicy, chunk: UInt64, in memory: Memory) {
        self.request = request
        self.policy = policy
        self.chunk = max(pageSize, chunk & ~(pageSize - 1))
        self.memory = memory
    }

    /// Converts the whole range.
    ///
    /// - Throws: ``ConversionError``, whose `result.converted` is exactly what changed nevertheless.
    package mutating func run() throws(ConversionError) -> ConversionResult {
        result.means = try means()
        guard request.range.end <= memory.size else { throw failed(.outsideRAM(size: memory.size)) }
        for region in 0..<memory.regionCount {
            guard let part = memory.region(region).intersection(request.range) else { continue }
            for piece in part.chunks(of: chunk) { try convert(piece, in: region) }
        }
        try convertParked()
        return result
    }

    private func failed(_ reason: ConversionError.Reason) -> ConversionError {
        var result = result
        result.sortConverted()
        return ConversionError(reason: reason, request: request, result: result)
    }

    private func gaveUp(on page: PageRange) -> ConversionError {
        let pages = parked.isEmpty ? [page] : parked.map { $0.gpa }
        return failed(.inUse(pages.sorted { $0.start < $1.start }))
    }

    /// How the policy will be honoured. Decided before anything changes.
    private func means() throws(ConversionError) -> ContentMeans {
        let promise = memory.contentPromise
        switch request.contents {
        case .unspecified: return .notRequested
        // The monitor can zero the pages itself once they are in their new state, unless they are encrypted. With per-call
        // content flags the kernel zeroes pages that become shared, but never pages that become private.
        case .zero:
            guard request.target == .shared || promise.zeroesPrivate else {
                throw failed(.refused(.onlyGuestInitialises))
            }
            let byFlag = request.target == .shared && promise.toShared == .byFlag
            return byFlag ? .zeroedByFlag : .zeroedByMonitor
        case .preserve:
            switch promise.fate(to: request.target) {
            case .preserved: return .promisedByABI
            case .byFlag: return .keptByFlag
            case .undefined: throw failed(.refused(.noPromise(to: request.target)))
            case .lost: throw failed(.refused(.twoPlaces(to: request.target)))
            }
        }
    }

    // MARK: calls and retries

    private enum Answer {
        case done
        case busy(PageRange)
        case failed(ConversionError.Reason)
    }

    /// Makes one call and acts on the answer.
    private mutating func attempt(_ piece: PageRange, in region: Int) -> Answer {
        let seen = memory.call(
            piece, in: region, to: request.target, result.means.mode,
            zeroes: result.means == .zeroedByMonitor)
        switch seen {
        case .cancelled: return .failed(.cancelled)
        case .done:
            result.calls += 1
            result.add(piece)
            return .done
        case .notZeroed(let error, let gpa):
            result.calls += 1
            result.add(piece)
            return .failed(.zeroing(error, gpa: gpa))
        case .failed(let error, let offset):
            result.calls += 1
            let page = page(at: offset, in: piece, memory.region(region))
            switch (error, page) {
            case (.resourceTemporarilyUnavailable, let page?):
                result.busyAnswers += 1
                return .busy(page)
            case (.noMemory, let page): return .failed(.backend(error, gpa: page?.start))
            default: return .failed(.backend(error, gpa: nil))
            }
        }
    }

    /// The page that contains `error_offset`; nil if it is outside the piece that was requested.
    private func page(at offset: UInt64, in piece: PageRange, _ region: PageRange) -> PageRange? {
        let (gpa, overflow) = region.start.addingReportingOverflow(offset & ~(pageSize - 1))
        return !overflow && piece.contains(gpa) ? PageRange(start: gpa, size: pageSize) : nil
    }

    private mutating func convert(_ piece: PageRange, in region: Int) throws(ConversionError) {
        // Ranges still to convert after `next`, in descending order. A list, because the number of splits is not
        // limited.
        var rest: [PageRange] = []
        var next: PageRange? = piece
        var attempts = 1
        while let current = next {
            switch attempt(current, in: region) {
            case .done: next = rest.popLast()
            case .failed(let reason): throw failed(reason)
            case .busy(let page):
                let released = memory.askHolders(of: page.start)
                guard policy.inUse == .bisect else {
                    try backOff(attempt: attempts, on: page, waiting: !released)
                    attempts += 1
                    continue
                }
                parked.append((region, page))
                // A range full of busy pages takes many calls without any waiting, so check the time here.
                guard memory.spent < policy.deadline else { throw gaveUp(on: page) }
                if let after = PageRange(start: page.end, size: current.end - page.end) { rest.append(after) }
                // The reported page is the lowest in use, so all pages before it can be converted now.
                next = PageRange(start: current.start, size: page.start - current.start) ?? rest.popLast()
            }
        }
    }

    /// Retries all parked pages in rounds until they are converted or the policy gives up.
    private mutating func convertParked() throws(ConversionError) {
        guard !parked.isEmpty else { return }
        var attempts = 1
        while !parked.isEmpty {
            let pages = parked
            parked = []
            var released = false
            for page in pages {
                switch attempt(page.gpa, in: page.region) {
                case .done: break
                case .failed(let reason): throw failed(reason)
                case .busy(let busy):
                    if memory.askHolders(of: busy.start) { released = true }
                    parked.append(page)
                }
            }
            guard let first = parked.first else { break }
            try backOff(attempt: attempts, on: first.gpa, waiting: !released)
            attempts += 1
        }
        result.sortConverted()
    }

    /// Waits before the next attempt, or gives up.
    ///
    /// - Parameter waiting: false if a holder has just released its page, so that waiting is unnecessary.
    private mutating func backOff(attempt: Int, on page: PageRange, waiting: Bool) throws(ConversionError) {
        let spent = memory.spent
        let wait = waiting ? policy.backoff(after: attempt) : .zero
        guard attempt < policy.attempts, spent < policy.deadline, wait <= policy.deadline - spent else {
            throw gaveUp(on: page)
        }
        guard waiting else { return }
        memory.wait(wait, for: page.start, attempt: attempt)
        result.waited += wait
    }
}

extension ConversionResult {
    mutating func add(_ range: PageRange) {
        if let last = converted.last, last.end == range.start,
            let joined = PageRange(start: last.start, size: last.size + range.size)
        {
            converted[converted.count - 1] = joined
        } else {
            converted.append(range)
        }
    }

    /// Parked pages were added last; sorts the ranges and joins them.
    fileprivate mutating func sortConverted() {
        let sorted = converted.sorted { $0.start < $1.start }
        converted = []
        for range in sorted { add(range) }
    }
}
