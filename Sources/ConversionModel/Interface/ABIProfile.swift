// SPDX-License-Identifier: MIT
/// A posted or applied version of the in-place conversion interface. Rules without a property below are the same in
/// every version: those of Linux 7.4 (docs/ABI.md, section 3).
///
/// Each property below is one difference and names the row of the validation table that it changes. Only the code
/// of that row reads it.
public enum ABIProfile: String, Sendable, CaseIterable {
    /// As posted in October 2025.
    case rfcV1 = "rfc-v1"
    /// As posted in February 2026. Contents are undefined after a conversion.
    case rfcV2 = "rfc-v2"
    /// As posted in March 2026. Each call has a content mode.
    case rfcV4 = "rfc-v4"
    /// As posted in April 2026. It adds content modes for SNP and TDX only, which the model does not cover.
    case rfcV5 = "rfc-v5"
    /// As applied.
    case linux74 = "7.4"

    /// For display: `RFC v2`, `Linux 7.4`.
    public var name: String {
        switch self {
        case .rfcV1: "RFC v1"
        case .rfcV2: "RFC v2"
        case .rfcV4: "RFC v4"
        case .rfcV5: "RFC v5"
        case .linux74: "Linux 7.4"
        }
    }
}

extension ABIProfile {
    /// Row 0: the ioctl is number 0xd6 with a struct of 64 bytes, and `KVM_SET_MEMORY_ATTRIBUTES2` is `ENOTTY`.
    var hasFirstCall: Bool { self == .rfcV1 }

    /// Row 2: flags hold a content mode. Both modes at once or an unknown bit is `EINVAL`. A mode that the VM type
    /// does not offer in this direction is `EOPNOTSUPP` with error_offset = start, before any other check.
    ///
    /// Row 9: the content mode applies even if no attribute changes (hazard H22).
    var hasContentModes: Bool { self == .rfcV4 || self == .rfcV5 }

    /// Row 3: error_offset ≠ 0 on input is `EINVAL`, so a retry that reuses the struct of a failed call fails
    /// (hazard H1).
    var refusesErrorOffset: Bool { self == .rfcV2 || self == .rfcV4 }

    /// Row 7: a size that is not whole pages is silently rounded down (hazard H24).
    var truncatesSize: Bool { self == .rfcV1 }

    /// Row 11: a conversion to shared checks references, too.
    var checksReferencesToShared: Bool { self == .rfcV1 }

    /// Row 11: a vCPU holds a reference on a page between finding and mapping it (hazard H2, up to version 8).
    ///
    /// The model gives that reference to the page that the vCPU faulted in last before its time slice ran out. It
    /// is dropped by the next conversion that fails on it with `EAGAIN`, or when the vCPU runs again.
    var faultsHoldReferences: Bool { self != .linux74 }

    /// The effect of a conversion on contents.
    var contentPromise: ContentPromise {
        switch self {
        case .rfcV1, .rfcV2: .undefined
        case .rfcV4, .rfcV5: .byFlag
        case .linux74: .preserved
        }
    }
}
