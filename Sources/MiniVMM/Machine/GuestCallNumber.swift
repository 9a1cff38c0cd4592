// SPDX-License-Identifier: MIT
/// The guest's calls, by the number in RAX; guest/include/guest.h has the same.
public enum GuestCallNumber: UInt64, CaseIterable, Sendable {
    /// Linux's own, for pages to become private or shared.
    case mapGPARange = 12
    case hold = 0x4d56_0001
    case release = 0x4d56_0002
    case peek = 0x4d56_0003
    case poke = 0x4d56_0004
    case state = 0x4d56_0005
    case yield = 0x4d56_0006

    /// As the header spells it.
    public var name: String {
        switch self {
        case .mapGPARange: "KVM_HC_MAP_GPA_RANGE"
        case .hold: "HC_HOLD"
        case .release: "HC_RELEASE"
        case .peek: "HC_PEEK"
        case .poke: "HC_POKE"
        case .state: "HC_STATE"
        case .yield: "HC_YIELD"
        }
    }
}
