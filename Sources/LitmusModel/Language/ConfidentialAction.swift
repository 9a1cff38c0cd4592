// SPDX-License-Identifier: MIT
import ConversionModel

/// An action that only SNP and TDX VMs have. Addresses are guest-physical.
public enum ConfidentialAction: Sendable, Hashable {
    /// `pvalidate`: PVALIDATE of each page by an SNP vCPU, in ascending order, until one answer is not `ok`. `rescind`
    /// takes validation back; `large` asks for 2 MiB at the first page only.
    case validate(Extent, isValid: Bool, isLarge: Bool)
    /// `accept`: TDG.MEM.PAGE.ACCEPT of each page by a TDX vCPU, in the same way.
    case accept(Extent, isLarge: Bool)
    /// `launch`: measures private pages into the guest, with the bytes that the host has put there
    /// (`KVM_SEV_SNP_LAUNCH_UPDATE`, `KVM_TDX_INIT_MEM_REGION`).
    case launch(Extent)
    /// `finalize`: ends the launch. A test without this step begins after it.
    case finalize
    /// `remap`: the hypervisor gives a guest page another page of the same file.
    case remap(gpa: UInt64, to: Place)
    /// `take`: the hypervisor takes private pages from the guest without being asked.
    case take(Extent)
    /// `block`: TDH.MEM.RANGE.BLOCK.
    case block(Extent)
    /// `track`: TDH.MEM.TRACK.
    case track
    /// `remove`: TDH.MEM.PAGE.REMOVE.
    case remove(Extent)
    /// `ve`: SEPT_VE_DISABLE is clear, so that a touch of a pending page raises #VE.
    case raiseVE
    /// `answer`: the monitor answers the next request of a guest (`KVM_EXIT_HYPERCALL`) with this `hypercall.ret`, and converts
    /// nothing.
    case answer(UInt64)
}

/// The answer to an instruction or request of an SNP or TDX guest, or to a call of a TDX host.
public enum ArchitectureStatus: String, Sendable, CaseIterable {
    /// The page was in that state before: PVALIDATE with CF 1, TDX_PAGE_ALREADY_ACCEPTED.
    case unchanged = "UNCHANGED"
    /// The operand is malformed: PVALIDATE with EAX 1, TDX_OPERAND_INVALID, MapGPA INVALID_OPERAND.
    case invalid = "INVALID"
    /// 2 MiB were asked for, and the page is 4 KiB: PVALIDATE with EAX 6, TDX_PAGE_SIZE_MISMATCH.
    case sizeMismatch = "SIZE_MISMATCH"
    /// A page state change was refused. The place is that of the first entry that was not done (cur_entry).
    case refused = "REFUSED"
    /// MapGPA has to be called again from the place (R11) on.
    case retry = "RETRY"
    /// #VC with error code 0x404: the page is not validated.
    case vc = "VC"
    /// #VE: the page is pending.
    case ve = "VE"
    /// The TDX module refused a call of the host: the page is not blocked.
    case notBlocked = "NOT_BLOCKED"
    /// The TDX module refused a call of the host: TDH.MEM.TRACK has not run since the page was blocked.
    case notTracked = "NOT_TRACKED"
    /// The TDX module refused a call of the host: the entry is in another state.
    case wrongState = "WRONG_STATE"
}

extension ConfidentialAction {
    /// The words with which the actions begin.
    package static let words = [
        "pvalidate", "accept", "launch", "finalize", "remap", "take", "block", "track", "remove", "ve",
        "answer",
    ]

    package var word: String {
        switch self {
        case .validate: "pvalidate"
        case .accept: "accept"
        case .launch: "launch"
        case .finalize: "finalize"
        case .remap: "remap"
        case .take: "take"
        case .block: "block"
        case .track: "track"
        case .remove: "remove"
        case .raiseVE: "ve"
        case .answer: "answer"
        }
    }

    package var arguments: String {
        switch self {
        case .validate(let extent, let isValid, let isLarge):
            "\(extent)" + (isValid ? "" : " rescind") + (isLarge ? " large" : "")
        case .accept(let extent, let isLarge): "\(extent)" + (isLarge ? " large" : "")
        case .launch(let extent), .take(let extent), .block(let extent), .remove(let extent): "\(extent)"
        case .remap(let gpa, let place): "\(written(gpa)) to \(place)"
        case .answer(let number): "\(number)"
        case .finalize, .track, .raiseVE: ""
        }
    }

    /// Whether a vCPU performs it; otherwise the host does.
    package var isOfGuest: Bool {
        switch self {
        case .validate, .accept: true
        case .launch, .finalize, .remap, .take, .block, .track, .remove, .raiseVE, .answer: false
        }
    }

    /// The guest-physical pages; nil if it names none.
    package var extent: Extent? {
        switch self {
        case .validate(let extent, _, _), .accept(let extent, _), .launch(let extent), .take(let extent),
            .block(let extent), .remove(let extent):
            extent
        case .remap(let gpa, _): Extent(offset: gpa, size: pageSize)
        case .finalize, .track, .raiseVE, .answer: nil
        }
    }

    /// The VM type that has the action; nil for both.
    package var architecture: VMType? {
        switch self {
        case .validate: .snp
        case .accept, .block, .track, .remove, .raiseVE: .tdx
        case .launch, .finalize, .remap, .take, .answer: nil
        }
    }

    /// Whether it can end with this status.
    package func canEnd(with status: ArchitectureStatus) -> Bool {
        switch (self, status) {
        case (.validate, .unchanged), (.validate, .invalid), (.validate, .sizeMismatch): true
        case (.accept, .unchanged), (.accept, .invalid), (.accept, .sizeMismatch): true
        case (.block, .wrongState): true
        case (.remove, .notBlocked), (.remove, .notTracked), (.remove, .wrongState): true
        default: false
        }
    }
}

extension LineParser {
    /// The action that begins with one of ``ConfidentialAction/words``.
    package mutating func confidentialAction(_ word: String) throws(SyntaxError) -> ConfidentialAction {
        switch word {
        case "pvalidate":
            let (extent, isRescind) = (try extent(), take("rescind"))
            return .validate(extent, isValid: !isRescind, isLarge: take("large"))
        case "accept": return .accept(try extent(), isLarge: take("large"))
        case "launch": return .launch(try extent())
        case "remap":
            let gpa = try offset("a guest page")
            try require("to")
            return .remap(gpa: gpa, to: try place())
        case "take": return .take(try extent())
        case "block": return .block(try extent())
        case "remove": return .remove(try extent())
        case "track": return .track
        case "ve": return .raiseVE
        case "answer": return .answer(try number("the number that the monitor writes into hypercall.ret"))
        default: return .finalize
        }
    }
}

extension Check {
    package mutating func confidential(_ action: ConfidentialAction) throws(TestProblem) {
        try require(vm.isConfidential, "`\(action.word)` is for `vm snp` and `vm tdx`")
        if let type = action.architecture {
            let other = action.word == "pvalidate" ? ": the guest of `vm tdx` uses `accept`" : ""
            let hint = action.word == "accept" ? ": the guest of `vm snp` uses `pvalidate`" : other
            try require(vm == type, "`\(action.word)` is for `vm \(type.word)`\(hint)")
        }
        if let extent = action.extent {
            try require(
                extent.name == .ram && PageRange(start: extent.offset, size: extent.size) != nil,
                "`\(action.word)` is for whole guest-physical pages: omit the name, and use page numbers")
            try require(extent.size <= LitmusTest.mostTouched, "one step is for at most 64 MiB")
        }
        if case .remap(_, let place) = action { try file(place.name) }
        if action == .finalize {
            try require(!hasFinalized, "there is already a `finalize` step")
            hasFinalized = true
        }
    }
}
