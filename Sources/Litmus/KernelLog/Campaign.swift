// SPDX-License-Identifier: MIT
/// Explorations over many boots of a kernel that may crash: where the next boot begins, and what is known already.
public struct Campaign: Sendable {
    /// Where a boot begins.
    public struct Start: Sendable, Hashable {
        /// Seed of the random tests.
        public var seed: UInt64
        /// Number of the first test, from 1.
        public var firstTest = 1
        /// Kinds of steps and machines at whose first use the kernel crashed.
        public var excluded: Set<String> = []
        /// Whether the exhaustive part, which uses no seed, was completed with an earlier one.
        public var omitsScope = false
    }

    /// Where the next boot begins.
    public private(set) var start: Start
    /// How often each finding was seen in this campaign, by name.
    public private(set) var seen: [String: Int] = [:]
    /// Names of findings that have a file already.
    private var known: Set<String>

    /// - Parameters:
    ///   - seed: the first seed; the next ones follow it.
    ///   - firstTest: the number of the first test with that seed.
    ///   - known: names of findings of earlier campaigns.
    public init(seed: UInt64, firstTest: Int = 1, known: Set<String> = []) {
        start = Start(seed: seed, firstTest: firstTest)
        self.known = known
    }

    /// Whether a finding has a file already.
    public func isKnown(_ name: String) -> Bool { known.contains(name) }

    /// Counts a finding.
    ///
    /// - Returns: whether it is new.
    public mutating func note(_ name: String) -> Bool {
        seen[name, default: 0] += 1
        return known.insert(name).inserted
    }

    /// Goes on behind the test during which a boot ended.
    ///
    /// - Returns: false if there is nothing to go on behind: no test had begun, or the crash does not depend on it.
    public mutating func goOn(behind test: BootLog.Test?) -> Bool {
        if let step = test?.probed { return start.excluded.insert(step).inserted }
        guard let number = test?.number else { return false }
        let (next, overflow) = number.addingReportingOverflow(1)
        guard !overflow, next > start.firstTest else { return false }
        start.firstTest = next
        return true
    }

    /// Goes on with the next seed.
    public mutating func seedIsComplete() {
        start.seed &+= 1
        start.firstTest = 1
        start.omitsScope = true
    }
}
