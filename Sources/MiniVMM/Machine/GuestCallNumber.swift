// SPDX-License-Identifier: MIT
/// The guest calls, by the number in RAX; guest/include/guest.h has the same numbers.
public enum GuestCallNumber: UInt64, CaseIterable, Sendable {
    /// Linux's own hypercall: converts pages to private or shared.
    case mapGPARange = 12
    /// The host takes references on RCX pages, starting at the address in RBX. With 0 in RDX a conversion may
    /// ask for their release; with 1 only ``release`` releases them.
    case hold = 0x4d56_0001
    /// The host releases all its references.
    case release = 0x4d56_0002
    /// The host reads 8 bytes at the address in RBX into RCX; `-EFAULT` if a page is private.
    case peek = 0x4d56_0003
    /// The host writes the 8 bytes in RCX to the address in RBX; `-EFAULT` if a page is private.
    case poke = 0x4d56_0004
    /// Sets RAX to 0 if the page at the address in RBX is shared and to 1 if it is private.
    case state = 0x4d56_0005
    /// Ends the time slice of the vCPU, on backends where vCPUs run in turns.
    case yield = 0x4d56_0006
    /// The point at which a hostile host (``HostBehaviour``) acts on the pages at the addresses in RBX and RCX; `-ENOSYS` if
    /// the host is honest.
    case hostActs = 0x4d56_0007

    /// The name in the header.
    public var name: String {
        switch self {
        case .mapGPARange: "KVM_HC_MAP_GPA_RANGE"
        case .hold: "HC_HOLD"
        case .release: "HC_RELEASE"
        case .peek: "HC_PEEK"
        case .poke: "HC_POKE"
        case .state: "HC_STATE"
        case .yield: "HC_YIELD"
        case .hostActs: "HC_HOST_ACTS"
        }
    }
}
