// SPDX-License-Identifier: MIT
public import MiniVMM
import SoftKVM

/// Whether a collection of tests looks: which faults that are planted in the software kernel it catches, and by which
/// tests. A fault that none of them catches is a test that is missing.
public struct FaultSearch: Sendable {
    private let sources: [Source]
    /// Those that pass where no fault is planted; the others can catch none.
    private let usable: [Int]

    public init(_ sources: [Source]) {
        self.sources = sources
        let runner = Runner(SoftKVM())
        usable = sources.indices.filter { runner.run(sources[$0]) == .passed }
    }

    /// The indices of the tests that fail with the fault planted.
    ///
    /// - Parameter limit: as many are enough.
    public func catching(_ fault: PlantedFault, limit: Int = .max) -> [Int] {
        let runner = Runner(SoftKVM(SoftKVM.Configuration(plantedFaults: [fault])))
        var found: [Int] = []
        for index in usable where found.count < limit {
            if case .failed = runner.run(sources[index]) { found.append(index) }
        }
        return found
    }
}
