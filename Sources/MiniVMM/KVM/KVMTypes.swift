// SPDX-License-Identifier: MIT
public import CKVMShim

/// A capability number of `KVM_CHECK_EXTENSION`, and its name.
///
/// Posted versions of the in-place series used numbers that released kernels use for other capabilities, so a
/// number alone proves nothing: the probe confirms it by behaviour.
public struct Capability: RawRepresentable, Hashable, Sendable {
    /// The argument of `KVM_CHECK_EXTENSION`.
    public let rawValue: UInt32
    /// Accepts any number, including those without a constant below.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_CAP_MAX_VCPUS`: the most vCPUs that a VM can have.
    public static let maxVCPUs = Capability(rawValue: 66)
    /// `KVM_CAP_NR_MEMSLOTS`: the most memslots that a VM can have.
    public static let memslots = Capability(rawValue: 10)
    /// `KVM_CAP_EXIT_HYPERCALL`: a bit for each hypercall number that can reach the monitor; bit 12 is
    /// `KVM_HC_MAP_GPA_RANGE`.
    public static let exitHypercall = Capability(rawValue: 201)
    /// `KVM_CAP_USER_MEMORY2`: `KVM_SET_USER_MEMORY_REGION2` (Linux 6.8).
    public static let userMemory2 = Capability(rawValue: 231)
    /// `KVM_CAP_MEMORY_FAULT_INFO`: `KVM_EXIT_MEMORY_FAULT` reports the page and the kind of access.
    public static let memoryFaultInfo = Capability(rawValue: 232)
    /// `KVM_CAP_MEMORY_ATTRIBUTES`: the attributes that `KVM_SET_MEMORY_ATTRIBUTES` accepts on the VM (Linux
    /// 6.8 to 7.3); 8 is private.
    public static let memoryAttributes = Capability(rawValue: 233)
    /// `KVM_CAP_GUEST_MEMFD`: `KVM_CREATE_GUEST_MEMFD` (Linux 6.8).
    public static let guestMemfd = Capability(rawValue: 234)
    /// `KVM_CAP_VM_TYPES`: a bit for each type of VM; bit 1 is software-protected.
    public static let vmTypes = Capability(rawValue: 235)
    /// `KVM_CAP_PRE_FAULT_MEMORY`: `KVM_PRE_FAULT_MEMORY` on a vCPU.
    public static let preFaultMemory = Capability(rawValue: 236)
    /// `KVM_CAP_GUEST_MEMFD_FLAGS`: the flags that `KVM_CREATE_GUEST_MEMFD` accepts, as ``GuestMemfdFlags``
    /// (Linux 6.18).
    public static let guestMemfdFlags = Capability(rawValue: 244)
    /// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES`: the attributes that `KVM_SET_MEMORY_ATTRIBUTES2` accepts on a
    /// guest_memfd (Linux 7.4); 8 is private.
    public static let guestMemfdMemoryAttributes = Capability(rawValue: 252)

    /// The name without the `KVM_CAP_` prefix, or nil for a number that this project does not use.
    public var name: String? {
        switch self {
        case .maxVCPUs: "MAX_VCPUS"
        case .memslots: "NR_MEMSLOTS"
        case .exitHypercall: "EXIT_HYPERCALL"
        case .userMemory2: "USER_MEMORY2"
        case .memoryFaultInfo: "MEMORY_FAULT_INFO"
        case .memoryAttributes: "MEMORY_ATTRIBUTES"
        case .guestMemfd: "GUEST_MEMFD"
        case .vmTypes: "VM_TYPES"
        case .preFaultMemory: "PRE_FAULT_MEMORY"
        case .guestMemfdFlags: "GUEST_MEMFD_FLAGS"
        case .guestMemfdMemoryAttributes: "GUEST_MEMFD_MEMORY_ATTRIBUTES"
        default: nil
        }
    }
}

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
