// SPDX-License-Identifier: MIT
/// The four designs of the decision whether a conversion preserves contents, as discussed in February 2026 (docs/ABI.md,
/// section 3), two of them with both settings. In each of them a conversion that must preserve contents and cannot
/// is `EINVAL`, and a conversion that need not preserve them overwrites them.
///
/// Linux 7.4 has none of them. They are implemented so that tests can compare them.
public enum ContentDesign: String, Sendable, CaseIterable {
    /// A flag of `KVM_CREATE_GUEST_MEMFD` (``creationFlagBit``), set once for each file.
    case creationFlag = "creation-flag"
    /// A build option of the kernel: every conversion preserves contents.
    case buildPreserve = "build-preserve"
    /// The same build option: every conversion overwrites the pages that change state with noise.
    case buildScramble = "build-scramble"
    /// A module parameter, set once for each host: every conversion preserves contents.
    case modulePreserve = "module-preserve"
    /// The same module parameter: every conversion overwrites the pages that change state with noise.
    case moduleScramble = "module-scramble"
    /// A flag of the conversion call (``callFlagBit``), set on each request.
    case callFlag = "call-flag"

    /// A bit that no version of the interface uses.
    public static var creationFlagBit: GuestMemfdFlags { GuestMemfdFlags(rawValue: 1 << 2) }
    /// `SET_MEMORY_ATTRIBUTES2_FLAG_PRESERVE_CONTENTS`, as proposed.
    public static var callFlagBit: UInt64 { 1 << 0 }

    /// Whether a conversion must preserve contents, given the flags of the file and of the call.
    func preserves(fileFlags: GuestMemfdFlags, callFlags: UInt64) -> Bool {
        switch self {
        case .creationFlag: fileFlags.contains(Self.creationFlagBit)
        case .buildPreserve, .modulePreserve: true
        case .buildScramble, .moduleScramble: false
        case .callFlag: callFlags == Self.callFlagBit
        }
    }
}
