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
    /// Before the second attempt; doubled for each further one up to ``longestBackoff``.
    public var firstBackoff: Duration
    /// The longest pause between two attempts.
    public var longestBackoff: Duration
    /// For the whole request, from its first call.
    public var deadline: Duration
    /// Whether a piece is split around a page in use.
    public var inUse: InUse

    /// By default 16 attempts, pauses from 20 µs to 10 ms, 1 s for the whole request, and no splitting. Fewer
    /// than one attempt is one.
    public init(
        attempts: Int = 16, firstBackoff: Duration = .microseconds(20),
        longestBackoff: Duration = .milliseconds(10), deadline: Duration = .seconds(1), inUse: InUse = .fail
    ) {
        self.attempts = max(1, attempts)
        self.firstBackoff = firstBackoff
        self.longestBackoff = longestBackoff
        self.deadline = deadline
        self.inUse = inUse
    }

    /// How long to wait after attempt number `attempt`, counted from 1.
    func backoff(after attempt: Int) -> Duration {
        let doublings = UInt64(min(max(attempt, 1) - 1, 40))
        let (wait, overflow) = firstBackoff.wholeNanoseconds.multipliedReportingOverflow(by: 1 << doublings)
        return min(Duration(wholeNanoseconds: overflow ? .max : wait), longestBackoff)
    }
}
