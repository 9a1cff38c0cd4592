// SPDX-License-Identifier: MIT
import ConversionModel
import SoftKVM

/// The configuration of a kernel for the oracle.
struct SoftKernel {
    let configuration: SoftKVM.Configuration

    init(_ faults: [PlantedFault] = []) { configuration = SoftKVM.Configuration(plantedFaults: Set(faults)) }
}
