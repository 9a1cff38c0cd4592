// SPDX-License-Identifier: MIT
public import CKVMShim

extension Advice {
    /// The `MADV_*` number.
    var number: Int32 {
        switch self {
        case .dontNeed: 4
        case .remove: 9
        case .populateRead: 22
        case .populateWrite: 23
        case .collapse: 25
        case .hwPoison: 100
        case .softOffline: 101
        }
    }
}

/// Which backend answered.
public struct BackendIdentity: Sendable, Equatable {
    /// Which part of the system answers the calls of the in-place interface.
    public enum Kind: Sendable {
        /// Linux itself, which converts with its own ioctl.
        case linux
        /// This library, using the interfaces of an older kernel.
        case adapter
        /// A KVM in user space; no real kernel is involved.
        case simulated
    }

    /// The backend: `LinuxKVM`, `PerVMAttributesKVM`, `MemslotTrapKVM`, `SoftKVM`.
    public let name: String
    /// The layer below it, for instance `Linux 6.18.44` or `Unicorn 2.0.1`.
    public let host: String
    /// For decisions by programs; the name is for people.
    public let kind: Kind

    /// `name` and `host` are printed verbatim. Programs decide by `kind` only.
    public init(name: String, host: String, kind: Kind) {
        self.name = name
        self.host = host
        self.kind = kind
    }
}

extension BackendIdentity: CustomStringConvertible {
    /// For people: `SoftKVM (Unicorn 2.0.1)`.
    public var description: String { "\(name) (\(host))" }
}

/// The entries of `KVM_GET_SUPPORTED_CPUID` and `KVM_SET_CPUID2`.
public struct CPUIDTable: Sendable {
    /// In the kernel's order. ``KVMVCPU/setCPUID(_:)`` accepts at most 256.
    public var entries: [ckvm_cpuid_entry2]

    /// Accepts any number of entries in any order.
    public init(entries: [ckvm_cpuid_entry2]) {
        self.entries = entries
    }

    /// The first entry of a leaf; nil if the table does not have it.
    ///
    /// - Parameter index: the subleaf (ECX), 0 for a leaf without subleaves.
    public func entry(function: UInt32, index: UInt32 = 0) -> ckvm_cpuid_entry2? {
        entries.first { $0.function == function && $0.index == index }
    }

    /// Width of a guest-physical address: CPUID 0x80000008 EAX[7:0], 36 if the leaf is missing.
    public var physicalAddressBits: Int {
        entry(function: 0x8000_0008).map { Int($0.eax & 0xff) } ?? 36
    }

    /// Whether the CPU's hypercall is VMMCALL (AMD, Hygon) and not VMCALL (all others).
    public var hasVMMCALL: Bool {
        // "Auth" of AuthenticAMD, "Hygo" of HygonGenuine.
        entry(function: 0).map { [0x6874_7541, 0x6f67_7948].contains($0.ebx) } ?? false
    }

    /// Whether the CPU has 1 GiB pages: CPUID 0x80000001 EDX bit 26.
    public var hasGigabytePages: Bool {
        entry(function: 0x8000_0001).map { $0.edx & (1 << 26) != 0 } ?? false
    }
}
