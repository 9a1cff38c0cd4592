// SPDX-License-Identifier: MIT
public import MiniVMM
import SoftKVM

/// Finds out which planted faults a collection of tests catches, and with which tests. A fault that no test catches
/// shows that a test is missing.
public struct FaultSearch: Sendable {
    private let sources: [Source]
    /// The tests that pass without a planted fault, those with the fewest calls first. The others cannot catch one.
    private let usable: [Int]

    /// Only verdicts are needed.
    private static let options = Runner.Options(asksModel: false, findsOrders: false)

    /// Runs every test once without a fault. Tests that do not pass then are not used.
    public init(_ sources: [Source]) {
        self.sources = sources
        let runner = Runner(SoftKVM(), Self.options)
        usable = sources.indices.filter { runner.run(sources[$0]) == .passed }
            .map { ($0, sources[$0].test.calls) }.sorted { ($0.1, $0.0) < ($1.1, $1.0) }.map(\.0)
    }

    /// The indices of the tests that fail when the fault is planted, ascending.
    ///
    /// - Parameter limit: the number of failing tests after which the search ends. By default all tests run. Tests with
    ///   few calls run first.
    public func catching(_ fault: PlantedFault, limit: Int = .max) -> [Int] {
        let runner = Runner(SoftKVM(SoftKVM.Configuration(plantedFaults: [fault])), Self.options)
        var found: [Int] = []
        for index in usable where found.count < limit {
            if case .failed = runner.run(sources[index]) { found.append(index) }
        }
        return found.sorted()
    }
}

extension LitmusTest {
    /// The number of calls of all steps, which patterns make many.
    fileprivate var calls: UInt64 {
        steps.reduce(0) { sum, step in
            guard case .every(let pattern, _) = step.action else { return sum + 1 }
            return sum + (pattern.count ?? 0)
        }
    }
}
