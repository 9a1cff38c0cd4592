// SPDX-License-Identifier: MIT
/// What to do when the kernel says that a page is in use (`EAGAIN`).
public struct RetryPolicy: Sendable, Equatable {
    /// What is done about the rest of the range when one page is in use.
    public enum InUse: String, Sendable, CaseIterable {
        /// The request fails whole where it meets the page.
        case fail
        /// Convert around the page (bisect at `error_offset`), park it, and come back to it.
        case bisect
    }
    /// Calls for one piece before it is given up, at least 1.
    public var attempts: Int
    /// Nanoseconds before the second attempt; doubled for each further one up to ``longestBackoff``.
    public var firstBackoff: UInt64
    /// Nanoseconds, the longest pause between two attempts.
    public var longestBackoff: UInt64
    /// Nanoseconds for the whole request, from its first call.
    public var deadline: UInt64
    /// Whether a piece is split around a page in use.
    public var inUse: InUse

    /// By default 16 attempts, pauses from 20 µs to 10 ms, 1 s for the whole request, and no splitting. Fewer
    /// than one attempt is one.
    public init(
        attempts: Int = 16, firstBackoff: UInt64 = 20_000, longestBackoff: UInt64 = 10_000_000,
        deadline: UInt64 = 1_000_000_000, inUse: InUse = .fail
    ) {
        self.attempts = max(1, attempts)
        self.firstBackoff = firstBackoff
        self.longestBackoff = longestBackoff
        self.deadline = deadline
        self.inUse = inUse
    }

    /// Nanoseconds to wait after attempt number `attempt`, counted from 1.
    func backoff(after attempt: Int) -> UInt64 {
        let doublings = UInt64(min(max(attempt, 1) - 1, 40))
        let (wait, overflow) = firstBackoff.multipliedReportingOverflow(by: 1 << doublings)
        return overflow ? longestBackoff : min(wait, longestBackoff)
    }
}
