// SPDX-License-Identifier: MIT
public import MiniVMM
public import SoftKVM
public import SystemPackage

/// A backend for the in-place interface of Linux 7.4, in order from the closest to that kernel.
///
/// ```swift
/// let chosen = try Backend.automatic()
/// print(chosen.backend.identity)
/// ```
public enum BackendKind: String, CaseIterable, Sendable {
    /// ``LinuxKVM``: /dev/kvm converts in place.
    case linux
    /// ``PerVMAttributesKVM``: /dev/kvm with the per-VM attributes of Linux 6.8 to 7.3.
    case perVMAttributes = "per-vm-attributes"
    /// ``MemslotTrapKVM``: any /dev/kvm.
    case memslotTrap = "memslot-trap"
    /// ``SoftKVM``: a KVM in user space, without /dev/kvm.
    case soft
}

/// The features that a caller needs from a backend besides running guests.
public struct BackendNeeds: Sendable {
    /// With two, the VMs distinguish private from shared accesses by address.
    public var aliases: Aliases
    /// Conversions must be able to preserve contents.
    public var preservation: Bool
    /// SNP and TDX VMs are models, which only SoftKVM has.
    public var vmType: VMType
    /// The configuration of SoftKVM.
    public var soft: SoftKVM.Configuration
    /// The KVM device. Every backend except ``BackendKind/soft`` opens it.
    public var device: FilePath

    /// Defaults: one alias, contents may be lost, a software-protected VM, and `/dev/kvm`.
    public init(
        aliases: Aliases = .one, preservation: Bool = false, vmType: VMType = .softwareProtected,
        soft: SoftKVM.Configuration = SoftKVM.Configuration(),
        device: FilePath = "/dev/kvm"
    ) {
        self.aliases = aliases
        self.preservation = preservation
        self.vmType = vmType
        self.soft = soft
        self.device = device
    }
}

/// Why ``BackendKind/automatic(_:)`` passed over a backend.
public enum Rejection: Sendable {
    /// The device cannot be used, which rules out every backend that needs it.
    case unavailable(KVMUnavailable)
    /// A conversion on a scratch VM failed.
    case cannotConvert(BackendKind, CallFailure)
    /// It does not preserve contents, which is needed.
    case losesContents(BackendKind)
}

/// A backend, and why it was chosen.
public struct ChosenBackend: Sendable {
    /// Whether the caller named the backend or it was chosen automatically.
    public enum Reason: Sendable {
        /// The caller named it. Whether it converts has not been tried.
        case requested
        /// Every backend before this one was tried and rejected, for these reasons.
        case automatic(passedOver: [Rejection])
        /// Only this backend has VMs of this type, as a model.
        case hasModel(of: VMType)
    }

    /// Every result must name its ``Backend/identity``. With two aliases it may be an ``AliasesKVM``
    /// on top of the backend.
    public let backend: any Backend
    /// The backend that converts.
    public let kind: BackendKind
    /// Includes the backends that were passed over.
    public let reason: Reason

    /// For a caller that opened a backend itself. ``hypercallInstruction`` may probe `backend`.
    public init(backend: any Backend, kind: BackendKind, reason: Reason) {
        self.backend = backend
        self.kind = kind
        self.reason = reason
    }

    /// Whether guests can call by VMMCALL or VMCALL. Where this is not known in advance it is probed on a scratch VM
    /// with a time limit, because on some kernels the instruction never returns.
    public var hypercallInstruction: Bool {
        switch kind {
        case .soft: true
        // The port works everywhere, and probing would cost more than it gains.
        case .memslotTrap: false
        case .linux, .perVMAttributes: BackendProbe(backend).hypercallInstruction().verdict == .yes
        }
    }
}

/// No backend can be used.
public struct BackendError: Error, Sendable {
    /// The missing feature.
    public enum Reason: Sendable {
        /// The device cannot be used.
        case unavailable(KVMUnavailable)
        /// A backend could not be tried.
        case untried(CallFailure)
        /// The software CPU's library is missing; the message of its loader.
        case noEngine(String)
    }
    /// The backend that was named, or the last one that was tried.
    public let reason: Reason
    /// The backends that were tried and rejected before this error.
    public let passedOver: [Rejection]

    /// Whether the host has run out of a resource, so that the backend's features are unknown.
    public var isHostLimit: Bool {
        switch reason {
        case .unavailable(let unavailable): unavailable.errno.isHostLimit
        case .untried(let failure): failure.errno.isHostLimit
        case .noEngine: false
        }
    }
}
