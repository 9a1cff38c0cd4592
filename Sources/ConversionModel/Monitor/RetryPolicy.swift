// SPDX-License-Identifier: MIT
/// How to handle pages that the kernel reports as in use (`EAGAIN`).
public struct RetryPolicy: Sendable, Equatable {
    /// The treatment of the rest of the range when one page is in use.
    public enum InUse: String, Sendable, CaseIterable {
        /// Retry the whole call; when that is given up, the request fails at the page.
        case fail
        /// Convert around the page (bisect at `error_offset`), park it, and retry it later.
        case bisect
    }
    /// Calls for one piece before the conversion gives up, at least 1.
    public var attempts: Int
    /// The pause before the second attempt; doubled for each further attempt, up to ``longestBackoff``.
    public var firstBackoff: Duration
    /// The longest pause between two attempts.
    public var longestBackoff: Duration
    /// The time limit for the whole request, from its first call.
    public var deadline: Duration
    /// Whether a piece is split around a page in use.
    public var inUse: InUse

    /// Defaults: 16 attempts, pauses from 20 µs to 10 ms, 1 s for the whole request, no splitting. At least one
    /// attempt is made.
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
    package func backoff(after attempt: Int) -> Duration {
        let doublings = UInt64(min(max(attempt, 1) - 1, 40))
        let (wait, overflow) = firstBackoff.wholeNanoseconds.multipliedReportingOverflow(by: 1 << doublings)
        return min(Duration(wholeNanoseconds: overflow ? .max : wait), longestBackoff)
    }
}
