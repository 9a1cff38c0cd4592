// SPDX-License-Identifier: MIT
/// A version of the in-place interface, as posted for review or as applied. The raw value is the argument of
/// `--abi`.
public enum InterfaceVersion: String, Sendable, CaseIterable {
    /// October 2025. The call is number 0xd6, with a struct of 64 bytes.
    case rfcV1 = "rfc-v1"
    /// February 2026. `error_offset` other than 0 on input is `EINVAL` (hazard H1).
    case rfcV2 = "rfc-v2"
    /// March 2026. `flags` has a content mode; H1 remains.
    case rfcV3 = "rfc-v3"
    /// March or April 2026. For this project the same as ``rfcV3``.
    case rfcV4 = "rfc-v4"
    /// April 2026. As ``rfcV4``, but `error_offset` is ignored on input.
    case rfcV5 = "rfc-v5"
    /// Versions 6 to 8, May 2026. No content flags; a vCPU's page fault can make a conversion `EAGAIN`
    /// (hazard H2).
    case v6 = "v6"
    /// The version that was applied to Linux 7.4.
    case linux74 = "7.4"

    /// The version and its date for people: `RFC v2 (February 2026)`.
    public var name: String {
        switch self {
        case .rfcV1: "RFC v1 (October 2025)"
        case .rfcV2: "RFC v2 (February 2026)"
        case .rfcV3: "RFC v3 (March 2026)"
        case .rfcV4: "RFC v4 (March or April 2026)"
        case .rfcV5: "RFC v5 (April 2026)"
        case .v6: "version 6 and later (May 2026)"
        case .linux74: "Linux 7.4, as applied"
        }
    }

    /// Whether the call has number 0xd6 and a struct of 64 bytes.
    var hasFirstCall: Bool { self == .rfcV1 }
    /// Whether a size is silently rounded down to whole pages (H24).
    var truncatesSize: Bool { self == .rfcV1 }
    /// Whether a conversion to shared checks references, too.
    var checksReferencesToShared: Bool { self == .rfcV1 }
    /// Whether an `error_offset` other than 0 on input is `EINVAL` (H1).
    var refusesErrorOffset: Bool { [.rfcV2, .rfcV3, .rfcV4].contains(self) }
    /// Whether `flags` has a content mode.
    var hasContentModes: Bool { [.rfcV3, .rfcV4, .rfcV5].contains(self) }
    /// Whether a vCPU that faults a page in holds a reference for a moment (H2).
    var faultsHoldReferences: Bool { self != .linux74 }

    var explanation: Explanation {
        var text = Explanation(.version, rawValue, "the in-place interface of \(name)")
        switch self {
        case .rfcV1:
            text.add(
                .means,
                "The call has number 0xd6 and a struct of 64 bytes; KVM_SET_MEMORY_ATTRIBUTES2 fails with ENOTTY. References are "
                    + "checked in both directions, and a size that is not a multiple of the page size is silently rounded down."
            )
            text.add(
                .advice, "Use 0xd6 if KVM_SET_MEMORY_ATTRIBUTES2 fails with ENOTTY, and round sizes yourself."
            )
        case .rfcV2:
            text.add(
                .means,
                "The call is as in Linux 7.4, except that an error_offset other than 0 on input is EINVAL: a retry with the struct "
                    + "of a failed call fails for that reason alone. Contents are undefined.")
            text.add(
                .advice,
                "Fill in a new struct for every attempt. Copy contents yourself, or refuse requests to preserve them."
            )
        case .rfcV3, .rfcV4, .rfcV5:
            text.add(
                .means,
                "flags has a content mode: bit 0 is ZERO, bit 1 is PRESERVE. Both bits or any other bit is EINVAL, and a mode that "
                    + "the VM type does not support in that direction is EOPNOTSUPP before any other check. A software-protected VM "
                    + "supports PRESERVE in both directions and ZERO to shared only. With flags 0, existing pages are overwritten with "
                    + "random bytes, even where no attribute changes.")
            if refusesErrorOffset {
                text.add(.means, "An error_offset other than 0 on input is EINVAL, as in RFC v2.")
            }
            if self == .rfcV5 {
                text.add(
                    .means, "It adds PRESERVE to private on SNP and TDX, until the launch is finalised.")
            }
            text.add(
                .advice,
                "Pass PRESERVE whenever the bytes matter. To get zeros in private pages, write zeros and then convert with PRESERVE."
            )
        case .v6:
            text.add(
                .means,
                "There are no content modes, and flags must be 0. Up to version 8, a vCPU that faults a page in holds a reference "
                    + "for a moment; a conversion at that moment fails with EAGAIN.")
            text.add(
                .advice,
                "Retry at once after EAGAIN: the reference is released when the vCPU has mapped the page.")
        case .linux74:
            text.add(
                .means,
                "One ioctl on the guest_memfd converts a range in place, all or nothing. flags and reserved words must be 0. The "
                    + "call has no content mode: a software-protected VM preserves contents in both directions, on SNP and TDX the "
                    + "firmware decides.")
            text.add(
                .advice,
                "Confirm it by behaviour: with size 0 the call fails with EINVAL if it exists and with ENOTTY if it does not."
            )
        }
        let hazards = Hazard.all.filter { $0.isIn(self) && $0.isHistoric }.map(\.id)
        if !hazards.isEmpty { text.add(.see, "hazards of this version: " + hazards.joined(separator: ", ")) }
        return text
    }
}
