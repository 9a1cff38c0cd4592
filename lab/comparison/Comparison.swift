// SPDX-License-Identifier: MIT
/// The differences between the results of two kernels, as the JSON object that is printed (schema
/// `minivmm.comparison/1`).
struct Comparison: Encodable {
    let schema = "minivmm.comparison/1"
    let kernels: [Kernel]
    let same: Bool
    let costs: [CostPair]?
    let litmus: Litmus?
    let explore: Explore?

    struct Kernel: Encodable {
        let name: String
        let backend: String
    }

    /// A cost on both kernels, in instructions. Nil: that kernel does not have it.
    struct CostPair: Encodable {
        let key: String
        let a: UInt64?
        let b: UInt64?
        /// b - a.
        let difference: Int64?
        /// Whether the repetitions of the two kernels do not overlap.
        let differs: Bool
    }

    struct Litmus: Encodable {
        let tests: Int
        let differences: [Test]
    }

    /// A test that is answered differently.
    struct Test: Encodable {
        let test: String
        let a: [String]
        let b: [String]
        let outcomes: [Outcome]
    }

    /// An outcome of a parallel block that one kernel never had.
    struct Outcome: Encodable {
        let line: Int
        let results: String
        let a: Int
        let b: Int
    }

    struct Explore: Encodable {
        let seeds: [UInt64]
        let findings: [Finding]
        let answers: [Answer]
    }

    /// A difference from the model that one kernel has.
    struct Finding: Encodable {
        let on: String
        let step: String
        let model: String
        let seen: String
        let litmus: String
    }

    /// An answer to a kind of step that one kernel never gave.
    struct Answer: Encodable {
        let step: String
        let answer: String
        let a: Int
        let b: Int
    }

    /// An outcome of a race counts as a difference if one kernel had it this often and the other never. By chance, with the same
    /// probability on both, that happens less than once in a million.
    static let leastRuns = 20

    init(_ a: KernelResults, _ b: KernelResults) {
        kernels = [Kernel(name: a.name, backend: a.backend), Kernel(name: b.name, backend: b.backend)]
        let costs = Self.both(a.costs, b.costs).map { Self.costs($0.costs, $1.costs) }
        let litmus = Self.both(a.litmus, b.litmus).map(Self.litmus)
        let explore = Self.both(a.explore, b.explore).map(Self.explore)
        self.costs = costs
        self.litmus = litmus
        self.explore = explore
        same =
            costs?.contains(where: \.differs) != true && litmus?.differences.isEmpty != false
            && explore?.findings.isEmpty != false && explore?.answers.isEmpty != false
    }

    private static func both<Value>(_ a: Value?, _ b: Value?) -> (Value, Value)? {
        guard let a, let b else { return nil }
        return (a, b)
    }

    // MARK: costs

    /// In the order of the first kernel, then those of the second alone.
    private static func costs(_ a: [CostResults.Cost], _ b: [CostResults.Cost]) -> [CostPair] {
        let others = Dictionary(b.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
        let known = Set(a.map(\.key))
        return a.map { pair($0.key, $0, others[$0.key]) }
            + b.filter { !known.contains($0.key) }.map { pair($0.key, nil, $0) }
    }

    private static func pair(_ key: String, _ a: CostResults.Cost?, _ b: CostResults.Cost?) -> CostPair {
        guard let a, let b else {
            return CostPair(key: key, a: a?.median, b: b?.median, difference: nil, differs: true)
        }
        return CostPair(
            key: key, a: a.median, b: b.median,
            difference: Int64(clamping: b.median).subtractingReportingOverflow(Int64(clamping: a.median))
                .partialValue,
            differs: a.most < b.least || b.most < a.least)
    }

    // MARK: litmus tests

    private static func litmus(_ a: LitmusResults, _ b: LitmusResults) -> Litmus {
        let others = Dictionary(b.tests.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        let known = Set(a.tests.map(\.name))
        let pairs: [(String, LitmusResults.Test?, LitmusResults.Test?)] =
            a.tests.map { ($0.name, $0, others[$0.name]) }
            + b.tests.filter { !known.contains($0.name) }.map { ($0.name, nil, $0) }
        return Litmus(
            tests: pairs.count,
            differences: pairs.compactMap { name, a, b in
                let outcomes = outcomes(a?.blocks ?? [], b?.blocks ?? [])
                guard a?.answer != b?.answer || !outcomes.isEmpty else { return nil }
                return Test(
                    test: name, a: a?.lines ?? ["not run"], b: b?.lines ?? ["not run"], outcomes: outcomes)
            })
    }

    private static func outcomes(_ a: [LitmusResults.Block], _ b: [LitmusResults.Block]) -> [Outcome] {
        // A test that one kernel skipped has no outcomes there.
        guard !a.isEmpty, !b.isEmpty else { return [] }
        struct Place: Hashable {
            let line: Int
            let results: String
        }
        func counts(_ blocks: [LitmusResults.Block]) -> [Place: Int] {
            var counts: [Place: Int] = [:]
            for block in blocks {
                for outcome in block.outcomes {
                    counts[Place(line: block.line, results: outcome.results), default: 0] +=
                        outcome.count ?? leastRuns
                }
            }
            return counts
        }
        let (first, second) = (counts(a), counts(b))
        return Set(first.keys).union(second.keys).compactMap { place in
            let (a, b) = (first[place] ?? 0, second[place] ?? 0)
            guard min(a, b) == 0, max(a, b) >= leastRuns else { return nil }
            return Outcome(line: place.line, results: place.results, a: a, b: b)
        }.sorted { ($0.line, $0.results) < ($1.line, $1.results) }
    }

    // MARK: explore

    private static func explore(_ a: ExploreResults, _ b: ExploreResults) -> Explore {
        func only(_ on: String, _ these: ExploreResults, _ others: ExploreResults) -> [Finding] {
            let known = Set(others.findings.map(\.difference))
            return these.findings.filter { !known.contains($0.difference) }.map {
                Finding(on: on, step: $0.step, model: $0.model, seen: $0.seen, litmus: $0.litmus)
            }
        }
        let steps = Set(a.coverage.keys).union(b.coverage.keys).sorted()
        let answers = steps.flatMap { step -> [Answer] in
            let first = a.coverage[step] ?? [:]
            let second = b.coverage[step] ?? [:]
            return Set(first.keys).union(second.keys).sorted().compactMap { answer in
                let (a, b) = (first[answer] ?? 0, second[answer] ?? 0)
                return min(a, b) == 0 && max(a, b) > 0 ? Answer(step: step, answer: answer, a: a, b: b) : nil
            }
        }
        return Explore(
            seeds: a.seed == b.seed ? [a.seed] : [a.seed, b.seed],
            findings: only("A", a, b) + only("B", b, a),
            answers: answers)
    }
}

extension LitmusResults.Test {
    /// The name of its file without directory and ending.
    var name: String {
        let last = file.split(separator: "/").last.map(String.init) ?? file
        return last.hasSuffix(".litmus") ? String(last.dropLast(7)) : last
    }

    /// The compared keys. The reason of a skip is text for people.
    fileprivate var answer: [String?] { [verdict, step, expected, seen] }

    /// The printed lines.
    fileprivate var lines: [String] {
        var lines = [verdict + (reason.map { ": \($0)" } ?? "")]
        if let step { lines.append("step: \(step)") }
        if let expected { lines.append("expected: \(expected)") }
        if let seen { lines.append("seen: \(seen)") }
        return lines
    }
}

extension ExploreResults.Finding {
    /// Two findings with equal values are the same.
    fileprivate var difference: [String] { [step, model, seen] }
}
