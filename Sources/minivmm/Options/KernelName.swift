// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends

/// `--kernel`.
enum KernelName: String, ExpressibleByArgument, CaseIterable {
    case auto
    case linux
    case perVMAttributes = "per-vm-attributes"
    case memslotTrap = "memslot-trap"
    case soft

    /// Nil for `auto`.
    var backend: Backend? {
        switch self {
        case .auto: nil
        case .linux: .linux
        case .perVMAttributes: .perVMAttributes
        case .memslotTrap: .memslotTrap
        case .soft: .soft
        }
    }

    func open(_ needs: BackendNeeds) throws(BackendError) -> ChosenKernel {
        guard let backend else { return try Backend.automatic(needs) }
        return try backend.open(needs)
    }
}
