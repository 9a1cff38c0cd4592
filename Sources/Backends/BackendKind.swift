// SPDX-License-Identifier: MIT
public import MiniVMM
public import SoftKVM
public import SystemPackage

/// A way to get the in-place interface of Linux 7.4 on this machine, the one closest to that kernel first.
///
/// ```swift
/// let chosen = try Backend.automatic()
/// print(chosen.kernel.identity)
/// ```
public enum BackendKind: String, CaseIterable, Sendable {
    /// ``LinuxKVM``: /dev/kvm converts in place.
    case linux
    /// ``PerVMAttributesKVM``: /dev/kvm with the attributes of Linux 6.8 to 7.3.
    case perVMAttributes = "per-vm-attributes"
    /// ``MemslotTrapKVM``: any /dev/kvm.
    case memslotTrap = "memslot-trap"
    /// ``SoftKVM``: no /dev/kvm.
    case soft
}

/// The features that a caller needs besides running guests.
public struct BackendNeeds: Sendable {
    /// With two, the VMs tell a private access from a shared one by its address.
    public var aliases: Aliases
    /// Conversions must be able to preserve contents.
    public var preservation: Bool
    /// The configuration of the software kernel.
    public var soft: SoftKVM.Configuration
    /// The KVM device. Every backend except ``BackendKind/soft`` opens it.
    public var device: FilePath

    /// By default one alias, contents may be lost, and `/dev/kvm`.
    public init(
        aliases: Aliases = .one, preservation: Bool = false,
        soft: SoftKVM.Configuration = SoftKVM.Configuration(),
        device: FilePath = "/dev/kvm"
    ) {
        self.aliases = aliases
        self.preservation = preservation
        self.soft = soft
        self.device = device
    }
}

/// Why ``BackendKind/automatic(_:)`` did not take a backend.
public enum Rejection: Sendable {
    /// The device cannot be used, and so no backend that needs it.
    case unavailable(KVMUnavailable)
    /// A conversion on a scratch VM failed.
    case cannotConvert(BackendKind, CallFailure)
    /// It does not preserve contents, which was asked for.
    case losesContents(BackendKind)
}

/// A kernel, and why it is the one.
public struct ChosenBackend: Sendable {
    /// Whether the caller named the backend or it was chosen automatically.
    public enum Reason: Sendable {
        /// The caller named it. It was not tried whether it converts.
        case requested
        /// Every backend before this one was tried, and why it was not taken.
        case automatic(passedOver: [Rejection])
    }

    /// Its ``Backend/identity`` belongs to every result. With two aliases it may be an ``AliasesKVM``
    /// over the backend.
    public let backend: any Backend
    /// The one that converts.
    public let kind: BackendKind
    /// Also says which backends were passed over, and why.
    public let reason: Reason

    /// For a caller that opened a kernel itself. `backend` decides what ``hypercallInstruction`` asks.
    public init(backend: any Backend, kind: BackendKind, reason: Reason) {
        self.backend = backend
        self.kind = kind
        self.reason = reason
    }

    /// Whether guests may ask by VMMCALL or VMCALL. Kernels whose answer is known are not asked. The others are, on a
    /// scratch VM with a time limit, because on some the instruction never returns.
    public var hypercallInstruction: Bool {
        switch kind {
        case .soft: true
        // The port does the same everywhere, and finding out costs more than it gives.
        case .memslotTrap: false
        case .linux, .perVMAttributes: BackendProbe(backend).hypercallInstruction().verdict == .yes
        }
    }
}

/// No kernel can be had.
public struct BackendError: Error, Sendable {
    /// The missing feature.
    public enum Reason: Sendable {
        /// The device cannot be used.
        case unavailable(KVMUnavailable)
        /// A kernel could not be tried.
        case untried(CallFailure)
        /// The library of the software CPU is missing; its loader's message.
        case noEngine(String)
    }
    /// The backend that was named, or the last one that was tried.
    public let reason: Reason
    /// The backends that were tried and rejected before this error.
    public let passedOver: [Rejection]

    /// The host has no more of something: what its kernel can do is not known.
    public var isHostLimit: Bool {
        switch reason {
        case .unavailable(let unavailable): unavailable.errno.isHostLimit
        case .untried(let failure): failure.errno.isHostLimit
        case .noEngine: false
        }
    }
}
