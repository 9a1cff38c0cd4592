// SPDX-License-Identifier: MIT
/// The results of `minivmm bench --instructions --json` (schema `minivmm.costs/1`). Only the keys used here.
struct CostResults: Decodable {
    let schema: String
    let backend: String
    let interface: String
    let costs: [Cost]

    struct Cost: Decodable {
        let key: String
        let median: UInt64
        let least: UInt64
        let most: UInt64
    }
}

/// The results of `minivmm litmus --format json` (schema `minivmm.litmus/1`). Only the keys used here.
struct LitmusResults: Decodable {
    let schema: String
    let backend: String
    let host: String
    let tests: [Test]

    struct Test: Decodable {
        let file: String
        let verdict: String
        /// Why it was skipped.
        let reason: String?
        /// Of a failure: the step, its answer in the test and the answer seen.
        let step: String?
        let expected: String?
        let seen: String?
        let blocks: [Block]?
    }

    struct Block: Decodable {
        let line: Int
        let outcomes: [Outcome]
    }

    struct Outcome: Decodable {
        let results: String
        /// In how many runs it was seen; nil if all interleavings were explored.
        let count: Int?
    }
}

/// The results of `minivmm explore --json` (schema `minivmm.explore/1`). Only the keys used here.
struct ExploreResults: Decodable {
    let schema: String
    let backend: String
    let host: String
    let seed: UInt64
    /// How often each kind of step had each kind of answer.
    let coverage: [String: [String: Int]]
    let end: String
    let findings: [Finding]

    struct Finding: Decodable {
        let step: String
        let model: String
        let seen: String
        let litmus: String
    }
}

/// The results of one kernel. Nil: not requested.
struct KernelResults {
    let name: String
    let costs: CostResults?
    let litmus: LitmusResults?
    let explore: ExploreResults?

    /// The backend and the form of conversion.
    var backend: String {
        if let costs { return "\(costs.backend), \(costs.interface)" }
        if let litmus { return "\(litmus.backend) (\(litmus.host))" }
        return explore.map { "\($0.backend) (\($0.host))" } ?? "not known"
    }
}
