// SPDX-License-Identifier: MIT
import ConversionModel
import Foundation
import SoftKVM

/// How many seeds the tests try.
enum Seeds {
    /// Whether this is the long version of the tests, `make exercises`.
    static let areMany = ProcessInfo.processInfo.environment["MINIVMM_EXERCISES"] != nil

    static func first(_ few: UInt64, orIfMany many: UInt64) -> Range<UInt64> { 0..<(areMany ? many : few) }
}

/// The configuration of a kernel for the oracle.
struct SoftKernel {
    let configuration: SoftKVM.Configuration

    init(_ faults: [PlantedFault] = []) { configuration = SoftKVM.Configuration(plantedFaults: Set(faults)) }
}
