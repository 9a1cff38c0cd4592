// SPDX-License-Identifier: MIT
/// A version of the in-place interface. Rules that do not depend on the version are those of Linux 7.4 (docs/ABI.md, section 3).
///
/// Each difference is a property below, with the row of the validation table that it changes. The rule of that row is the
/// only place that reads it.
public enum ABIProfile: String, Sendable, CaseIterable {
    /// As posted in October 2025.
    case rfcV1 = "rfc-v1"
    /// As posted in February 2026: nothing is said about contents.
    case rfcV2 = "rfc-v2"
    /// As posted in March 2026: each call has a content mode.
    case rfcV4 = "rfc-v4"
    /// As posted in April 2026. What it adds to content modes is for SNP and TDX, which this kernel does not have.
    case rfcV5 = "rfc-v5"
    /// As applied.
    case linux74 = "7.4"

    /// For people: `RFC v2`, `Linux 7.4`.
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
    /// Row 0: the call is number 0xd6 with 64 bytes, and `KVM_SET_MEMORY_ATTRIBUTES2` is `ENOTTY`.
    var hasFirstCall: Bool { self == .rfcV1 }

    /// Row 2: flags say what becomes of the contents. Both at once or an unknown one is `EINVAL`; one that this VM
    /// type and direction do not offer is `EOPNOTSUPP`, with error_offset = start, before anything else.
    ///
    /// Row 9: contents are settled where no attribute changes, too (hazard H22).
    var hasContentModes: Bool { self == .rfcV4 || self == .rfcV5 }

    /// Row 3: error_offset ≠ 0 on input is `EINVAL`, so that a retry with the struct of a failed call is (hazard H1).
    var refusesErrorOffset: Bool { self == .rfcV2 || self == .rfcV4 }

    /// Row 7: what a size has beyond whole pages is left out, silently (hazard H24).
    var truncatesSize: Bool { self == .rfcV1 }

    /// Row 11: to-shared looks for references as well.
    var checksReferencesToShared: Bool { self == .rfcV1 }

    /// Row 11: a vCPU holds a reference on a page between finding and mapping it (hazard H2, up to version 8).
    ///
    /// Here that is the page that a vCPU brought in last before its time slice ran out. The next call that finds it in
    /// use gets `EAGAIN`, once; so it goes as well when that vCPU runs on.
    var faultsHoldReferences: Bool { self != .linux74 }

    /// What a conversion does to contents.
    var contentPromise: ContentPromise {
        switch self {
        case .rfcV1, .rfcV2: .undefined
        case .rfcV4, .rfcV5: .byFlag
        case .linux74: .preserved
        }
    }
}
