import Foundation
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// A kernel that a test runs on.
enum KernelUnderTest: String, CaseIterable, Sendable {
    /// This machine's /dev/kvm, which converts in place.
    case inPlace
    /// This machine's /dev/kvm, with memslots carved.
    case trap
    /// KVM in user space.
    case software
    /// The memslot adapter over a default VM of the software kernel: the same carving, deterministic.
    case trapOverSoftware
    /// Two doors made of memslots over a software kernel that converts by itself.
    case doorsOverSoftware
    /// This machine's /dev/kvm with its per-VM attributes: contents are lost.
    case perVM

    /// Kernels to run on, by name and with commas between; without the variable all that there are.
    private static let asked = ProcessInfo.processInfo.environment["MINIVMM_TEST_KERNELS"].map {
        $0.split(separator: ",").map(String.init)
    }

    /// Why it cannot be had here; nil if it can.
    var absence: Comment? {
        if let asked = Self.asked, !asked.contains(rawValue) { return "MINIVMM_TEST_KERNELS leaves it out" }
        return switch self {
        case .inPlace: Self.conversionFailure
        case .trap: TrapHost.canTrap ? nil : TrapHost.reason
        case .perVM: Self.attributesFailure
        case .software, .trapOverSoftware, .doorsOverSoftware:
            if case .missing(let message) = SoftKVM().engineStatus { Comment(rawValue: message) } else { nil }
        }
    }

    private static let conversionFailure: Comment? = {
        guard let kvm = TrapHost.kvm else { return "no /dev/kvm" }
        return KernelProbe(kvm).conversionFailure().map {
            "/dev/kvm cannot convert in place (\($0.call): \($0.errno.name))"
        }
    }()

    private static let attributesFailure: Comment? = {
        guard let kvm = TrapHost.kvm else { return "no /dev/kvm" }
        return KernelProbe(PerVMAttributesKVM(over: kvm)).conversionFailure().map {
            "/dev/kvm has no per-VM attributes, Linux 6.8 to 7.3 with KVM_SW_PROTECTED_VM (\($0.call): \($0.errno.name))"
        }
    }()

    /// Conversions can preserve contents.
    var preserves: Bool { self != .perVM }

    func open(doors: Doors = .one) throws -> any KVMInterface {
        switch self {
        case .inPlace:
            doors == .one
                ? try #require(TrapHost.kvm) : MemslotTrapKVM(doorsOver: try #require(TrapHost.kvm))
        case .trap: MemslotTrapKVM(over: try #require(TrapHost.kvm))
        case .software: SoftKVM()
        case .trapOverSoftware: MemslotTrapKVM(over: SoftKVM())
        case .doorsOverSoftware: MemslotTrapKVM(doorsOver: SoftKVM())
        case .perVM: try perVM(doors)
        }
    }

    private func perVM(_ doors: Doors) throws -> any KVMInterface {
        let kernel = PerVMAttributesKVM(over: try #require(TrapHost.kvm))
        return doors == .one ? kernel : MemslotTrapKVM(doorsOver: kernel)
    }

    /// The kernel, or the end of the test with the reason why there is none.
    func required(doors: Doors = .one) throws -> any KVMInterface {
        if let absence { try Test.cancel(absence) }
        return try open(doors: doors)
    }

    /// VMMCALL returns and reaches the monitor.
    var hypercallInstruction: Bool {
        switch self {
        case .software, .doorsOverSoftware: true
        case .trap, .trapOverSoftware, .perVM: false
        case .inPlace: Self.hasHypercall
        }
    }

    private static let hasHypercall: Bool =
        TrapHost.kvm.map { KernelProbe($0).hypercallInstruction().verdict == .yes } ?? false
}
