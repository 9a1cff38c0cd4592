// SPDX-License-Identifier: MIT
import Foundation
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// A backend that a test runs on.
enum BackendUnderTest: String, CaseIterable, Sendable {
    /// This machine's /dev/kvm, which converts in place.
    case inPlace
    /// This machine's /dev/kvm with its per-VM attributes.
    case perVM
    /// This machine's /dev/kvm, with carved memslots.
    case trap
    /// SoftKVM.
    case software
    /// The memslot adapter over a default VM of SoftKVM: the same carving, deterministic.
    case trapOverSoftware
    /// Two aliases by memslots over SoftKVM, which converts.
    case aliasesOverSoftware

    /// Backends to run on, by name and separated by commas. A lab that tests one kernel requests that one;
    /// without the variable all are used.
    private static let asked = ProcessInfo.processInfo.environment["MINIVMM_TEST_KERNELS"].map {
        $0.split(separator: ",").map(String.init)
    }

    /// The requested ones among `backends`.
    static func asked(of backends: [BackendUnderTest] = allCases) -> [BackendUnderTest] {
        guard let asked else { return backends }
        return backends.filter { asked.contains($0.rawValue) }
    }

    /// Why it is not available here; nil if it is.
    var absence: Comment? {
        switch self {
        case .inPlace: Self.inPlaceFailure
        case .perVM: Self.perVMFailure
        case .trap: TrapHost.canTrap ? nil : TrapHost.reason
        case .software, .trapOverSoftware, .aliasesOverSoftware:
            if case .missing(let message) = SoftKVM().engineStatus { Comment(rawValue: message) } else { nil }
        }
    }

    private static let inPlaceFailure: Comment? = {
        guard let kvm = TrapHost.kvm else { return "no /dev/kvm" }
        return BackendProbe(kvm).conversionFailure().map {
            "/dev/kvm cannot convert in place (\($0.call): \($0.errno.name))"
        }
    }()

    private static let perVMFailure: Comment? = {
        guard let kvm = TrapHost.kvm else { return "no /dev/kvm" }
        return BackendProbe(PerVMAttributesKVM(over: kvm)).conversionFailure().map {
            "/dev/kvm has no per-VM attributes (\($0.call): \($0.errno.name))"
        }
    }()

    func open(aliases: Aliases = .one) throws -> any Backend {
        switch self {
        case .inPlace: Self.withAliases(aliases, try #require(TrapHost.kvm))
        case .perVM: Self.withAliases(aliases, PerVMAttributesKVM(over: try #require(TrapHost.kvm)))
        case .trap: MemslotTrapKVM(over: try #require(TrapHost.kvm))
        case .software: SoftKVM()
        case .trapOverSoftware: MemslotTrapKVM(over: SoftKVM())
        case .aliasesOverSoftware: AliasesKVM(over: SoftKVM())
        }
    }

    private static func withAliases(_ aliases: Aliases, _ backend: any Backend) -> any Backend {
        aliases == .one ? backend : AliasesKVM(over: backend)
    }

    /// The backend, or a cancelled test with the reason why it is missing.
    func required(aliases: Aliases = .one) throws -> any Backend {
        if let absence { try Test.cancel(absence) }
        return try open(aliases: aliases)
    }

    /// Whether VMMCALL returns and reaches the monitor.
    var hypercallInstruction: Bool {
        switch self {
        case .software, .aliasesOverSoftware: true
        case .trap, .trapOverSoftware: false
        case .inPlace: Self.inPlaceHypercall
        case .perVM: Self.perVMHypercall
        }
    }

    private static let inPlaceHypercall =
        TrapHost.kvm.map { BackendProbe($0).hypercallInstruction().verdict == .yes } ?? false
    private static let perVMHypercall =
        TrapHost.kvm.map {
            BackendProbe(PerVMAttributesKVM(over: $0)).hypercallInstruction().verdict == .yes
        } ?? false
}
