// SPDX-License-Identifier: MIT
/// A version of the in-place interface, as posted for review or as applied. The raw value is the argument of
/// `--abi`.
public enum InterfaceVersion: String, Sendable, CaseIterable {
    /// October 2025. The call is number 0xd6, with a struct of 64 bytes.
    case rfcV1 = "rfc-v1"
    /// February 2026. `error_offset` other than 0 on input is `EINVAL` (hazard H1).
    case rfcV2 = "rfc-v2"
    /// March 2026. `flags` say what happens to the contents; H1 remains.
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

    /// The call is number 0xd6, its struct 64 bytes.
    var hasFirstCall: Bool { self == .rfcV1 }
    /// What a size has beyond whole pages is left out, silently (H24).
    var truncatesSize: Bool { self == .rfcV1 }
    /// To-shared looks for references as well.
    var checksReferencesToShared: Bool { self == .rfcV1 }
    /// error_offset ≠ 0 on input is `EINVAL` (H1).
    var refusesErrorOffset: Bool { [.rfcV2, .rfcV3, .rfcV4].contains(self) }
    /// `flags` say what becomes of the contents.
    var hasContentModes: Bool { [.rfcV3, .rfcV4, .rfcV5].contains(self) }
    /// A vCPU that faults a page in holds a reference for a moment (H2).
    var faultsHoldReferences: Bool { self != .linux74 }

    var explanation: Explanation {
        var text = Explanation(.version, rawValue, "the in-place interface of \(name)")
        switch self {
        case .rfcV1:
            text.add(
                .means,
                "The call has number 0xd6 and a struct of 64 bytes; KVM_SET_MEMORY_ATTRIBUTES2 is ENOTTY. References are "
                    + "checked in both directions, and a size that is no whole number of pages is cut down without a word."
            )
            text.add(
                .advice, "Send 0xd6 where KVM_SET_MEMORY_ATTRIBUTES2 is ENOTTY, and round sizes yourself.")
        case .rfcV2:
            text.add(
                .means,
                "The call as it is today, but an error_offset other than 0 on input is EINVAL: a retry with the struct of "
                    + "a failed call fails for that reason alone. Nothing is said about contents.")
            text.add(.advice, "Fill a new struct for every attempt. Carry contents over yourself, or refuse.")
        case .rfcV3, .rfcV4, .rfcV5:
            text.add(
                .means,
                "flags say what becomes of contents: bit 0 is ZERO, bit 1 is PRESERVE, both or another bit is EINVAL, and a "
                    + "mode that the VM type does not offer in that direction is EOPNOTSUPP before anything else. On a "
                    + "software-protected VM PRESERVE works both ways and ZERO to shared only. With no flag the pages that "
                    + "exist are overwritten with noise, even where no attribute changes.")
            if refusesErrorOffset { text.add(.means, "error_offset ≠ 0 on input is EINVAL, as in RFC v2.") }
            if self == .rfcV5 {
                text.add(
                    .means, "It adds PRESERVE to private on SNP and TDX, before the launch is finalised.")
            }
            text.add(
                .advice,
                "Pass PRESERVE whenever the bytes matter. For zeros in private pages: write them, then PRESERVE."
            )
        case .v6:
            text.add(
                .means,
                "Content modes are gone and flags must be 0. Up to version 8 a vCPU that faults a page in holds a "
                    + "reference for a moment, which a conversion meets as EAGAIN.")
            text.add(.advice, "Retry an EAGAIN at once; it goes when the vCPU has mapped the page.")
        case .linux74:
            text.add(
                .means,
                "One ioctl on the guest_memfd converts a range in place, all or nothing. flags and reserved words are 0. "
                    + "Contents are not part of the call: a software-protected VM keeps them both ways, on SNP and TDX the "
                    + "firmware decides.")
            text.add(
                .advice,
                "Confirm it by behaviour: with size 0 the call is EINVAL where it exists and ENOTTY where not."
            )
        }
        let hazards = Hazard.all.filter { $0.isIn(self) && $0.isHistoric }.map(\.id)
        if !hazards.isEmpty { text.add(.see, "hazards of this version: " + hazards.joined(separator: ", ")) }
        return text
    }
}
