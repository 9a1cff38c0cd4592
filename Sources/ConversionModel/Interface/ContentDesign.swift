// SPDX-License-Identifier: MIT
/// Where it is decided whether a conversion keeps contents: the four places that were weighed in February 2026 (ABI
/// §3). What is to be kept and cannot be is `EINVAL` in each of them; what is not to be kept is overwritten.
///
/// None of them is in Linux 7.4. They are here so that the arguments can be run.
public enum ContentDesign: String, Sendable, CaseIterable {
    /// By a flag of `KVM_CREATE_GUEST_MEMFD` (``creationFlagBit``), once for a file.
    case creationFlag = "creation-flag"
    /// A build option, once for all hosts that run the kernel: every conversion keeps contents.
    case buildPreserve = "build-preserve"
    /// The same build option: every conversion overwrites the pages that change state with noise.
    case buildScramble = "build-scramble"
    /// A module parameter, once for a host: every conversion keeps contents.
    case modulePreserve = "module-preserve"
    /// The same module parameter: every conversion overwrites the pages that change state with noise.
    case moduleScramble = "module-scramble"
    /// By a flag of the conversion call (``callFlagBit``), on each request.
    case callFlag = "call-flag"

    /// A bit that no version of the interface uses.
    public static var creationFlagBit: GuestMemfdFlags { GuestMemfdFlags(rawValue: 1 << 2) }
    /// `SET_MEMORY_ATTRIBUTES2_FLAG_PRESERVE_CONTENTS` as it was proposed.
    public static var callFlagBit: UInt64 { 1 << 0 }

    /// Whether a conversion of a file created with these flags, asked for with these flags, is to keep contents.
    func preserves(fileFlags: GuestMemfdFlags, callFlags: UInt64) -> Bool {
        switch self {
        case .creationFlag: fileFlags.contains(Self.creationFlagBit)
        case .buildPreserve, .modulePreserve: true
        case .buildScramble, .moduleScramble: false
        case .callFlag: callFlags == Self.callFlagBit
        }
    }
}
