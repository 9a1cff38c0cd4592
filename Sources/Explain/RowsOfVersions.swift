// SPDX-License-Identifier: MIT
// The rows of the validation table in posted versions, where they differ from Linux 7.4.

extension ConversionRow {
    func condition(in version: InterfaceVersion) -> String {
        switch self {
        case .flags where version.hasContentModes: "flags has more than one content mode, or another bit"
        case .alignment where version.truncatesSize: "offset is not a multiple of the page size"
        case .inUse where version.checksReferencesToShared: "a page of the range is in use"
        default: condition
        }
    }

    func means(in version: InterfaceVersion) -> String {
        switch self {
        case .noSuchCall where version.hasFirstCall:
            "In this version the call is number 0xd6, with a struct of 64 bytes. KVM_SET_MEMORY_ATTRIBUTES2 does not "
                + "exist."
        case .noSuchCall where version != .linux74:
            "This kernel was built without the series, or in-place conversion is off."
        case .unreadable where version.hasFirstCall:
            "The kernel reads all 64 bytes of the struct, and some of them are not mapped or not readable."
        case .flags where version.hasContentModes:
            "flags may be 0, ZERO (1) or PRESERVE (2)."
        case .flags where version != .linux74: "This version has no flags."
        case .reserved where version.refusesErrorOffset || version.hasFirstCall:
            "A reserved word after error_offset was not cleared."
        case .alignment where version.truncatesSize:
            "This version silently rounds the size down to whole pages (hazard H24), but does not round the offset."
        case .unchanged where version.hasContentModes:
            means
                + " The content mode was applied all the same: with flags 0, existing pages now have random bytes (hazard H22)."
        case .inUse where version.checksReferencesToShared:
            means + " This version checks references in both directions." + Self.transient
        case .inUse where version.faultsHoldReferences: means + Self.transient
        case .converted where version.hasContentModes:
            means + " With flags 0, existing pages now have random bytes."
        default: means
        }
    }

    private static let transient =
        " In this version, a vCPU that faults the page in also holds a reference for a moment (hazard H2)."

    func advice(in version: InterfaceVersion) -> String {
        switch self {
        case .noSuchCall where version.hasFirstCall: "Use number 0xd6 with the struct of that version."
        case .noSuchCall where version != .linux74:
            "minivmm probe lists what this kernel supports. Make the call on the guest_memfd, not on the VM."
        case .unreadable where version.hasFirstCall:
            "Pass the address of a whole struct, cleared before it is filled in."
        case .flags where version.hasContentModes:
            "Pass PRESERVE to keep the bytes or ZERO to clear them, and never both."
        case .alignment where version.truncatesSize:
            "Align the offset to 4096 bytes, and round the size yourself."
        case .unchanged where version.hasContentModes: "Pass PRESERVE whenever the bytes matter."
        case .converted where version.hasContentModes: "Pass PRESERVE whenever the bytes matter. " + advice
        default: advice
        }
    }
}

extension ConversionRow {
    /// The hazards in which this row is the answer.
    func hazards(in version: InterfaceVersion) -> [String] {
        let ids: [String] =
            switch self {
            case .reserved: ["H1"]
            case .flags, .converted: []
            case .alignment: ["H24"]
            case .unchanged: ["A10", "H22"]
            case .noMemory: ["A16"]
            case .inUse: ["A3", "A4", "A5", "A6", "A7", "A8", "H2"]
            case .unwritable: ["A13"]
            case .noSuchCall, .unreadable, .vmType, .attributes, .size, .endOfFile: []
            }
        return ids.filter { id in Hazard.named(id)?.isIn(version) ?? false }
    }

    /// One or two files in litmus/ that show this row, without `.litmus`.
    var litmus: [String] {
        switch self {
        case .noSuchCall: ["row-0-no-such-call"]
        case .unreadable: ["row-1-no-struct", "row-1-half-a-struct"]
        case .flags: ["row-2-flags"]
        case .reserved: ["row-3-reserved-words"]
        case .vmType: ["row-4-default-vm"]
        case .attributes: ["row-5-attributes"]
        case .size: ["row-6-size", "row-6-no-bytes"]
        case .alignment: ["row-7-alignment"]
        case .endOfFile: ["row-8-bounds", "row-8-the-last-page"]
        case .unchanged: ["row-9-nothing-changes"]
        case .noMemory: ["row-10-no-memory", "row-10-nothing-has-changed"]
        case .inUse: ["row-11-page-in-use", "row-11-lowest-page"]
        case .unwritable: ["row-12-eagain-is-hidden", "row-12-enomem-is-hidden"]
        case .converted: []
        }
    }
}
