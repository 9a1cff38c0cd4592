// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends

/// `--backend`.
enum BackendChoice: String, ExpressibleByArgument, CaseIterable {
    case auto
    case linux
    case perVMAttributes = "per-vm-attributes"
    case memslotTrap = "memslot-trap"
    case soft

    /// Nil for `auto`.
    var kind: BackendKind? {
        switch self {
        case .auto: nil
        case .linux: .linux
        case .perVMAttributes: .perVMAttributes
        case .memslotTrap: .memslotTrap
        case .soft: .soft
        }
    }

    func open(_ needs: BackendNeeds) throws(BackendError) -> ChosenBackend {
        guard let kind else { return try BackendKind.automatic(needs) }
        return try kind.open(needs)
    }
}
