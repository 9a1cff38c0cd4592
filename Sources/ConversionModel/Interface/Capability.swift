// SPDX-License-Identifier: MIT
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

extension Rules {
    /// `KVM_CHECK_EXTENSION` on a VM of this type; 0 for a capability that the model does not have.
    public func checkExtension(_ capability: Capability, on type: VMType) -> Int {
        let hasPrivate = type == .softwareProtected
        switch capability {
        case .memslots: return Int(KernelModel.slotLimit)
        case .maxVCPUs: return KernelModel.vcpuLimit
        case .exitHypercall: return 1 << MapRequest.number
        case .userMemory2, .memoryFaultInfo, .guestMemfd, .preFaultMemory: return 1
        case .vmTypes: return 1 << VMType.default.rawValue | 1 << VMType.softwareProtected.rawValue
        case .guestMemfdFlags: return Int(allowedFlags(type).rawValue)
        case .memoryAttributes: return hasPrivate && !convertsInPlace ? Int(MemoryAttributes.private) : 0
        case .guestMemfdMemoryAttributes:
            return hasPrivate && convertsInPlace && !faults.contains(.capabilityHidden)
                ? Int(MemoryAttributes.private) : 0
        default: return 0
        }
    }
}

extension KernelModel {
    /// The most vCPUs that a VM can have.
    public static var vcpuLimit: Int { 256 }
}
