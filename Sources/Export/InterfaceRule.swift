// SPDX-License-Identifier: MIT
public import Litmus
import MiniVMM
import SystemPackage

/// A sentence of docs/ABI.md that says how a step must end.
public struct InterfaceRule: Sendable, Hashable {
    /// Where it stands: `section 2, row 11`.
    public let place: String
    /// Its words, without markup.
    public let text: String

    /// The rules for an outcome of a step. At least one.
    ///
    /// - Parameters:
    ///   - step: the step.
    ///   - outcome: how it must end.
    ///   - test: the test, for the sizes of files.
    public static func rules(for step: Step, _ outcome: StepOutcome, in test: LitmusTest) -> [InterfaceRule] {
        if case .convert(let conversion) = step.action.single {
            if case .errno(let errno, _) = outcome, let row = StepRule(test).row(errno, conversion),
                let rule = rows.first(where: { $0.rule.place == "section 2, row \(row.rawValue)" })
            {
                return [rule.rule]
            }
            return Self.conversion(outcome)
        }
        if case .sigbus = outcome { return [hostAccess] }
        if case .fault = outcome { return [memoryFaults] }
        if case .mmio = outcome { return [slotDeletion] }
        switch step.action.single {
        case .hypercall: return conversion(outcome)
        case .read, .write, .fill, .check, .again:
            if case .vcpu = step.actor { return [memslots, contents] }
            return [hostAccess, contents]
        case .peek, .map, .unmap, .remap, .protect, .syscall: return [hostAccess]
        case .punch, .allocate, .advise(_, .remove): return [fallocate]
        case .hold, .release: return [reference]
        case .bind, .unbind, .dirty: return [memslots]
        case .preFault: return [severalSteps]
        case .zapped: return [zapping]
        case .setAttributes: return [perVM]
        case .create, .close, .dup, .fork, .extension, .present, .advise, .mbind, .migrate, .node, .clock,
            .every,
            .convert, .confidential:
            return [serialised]
        }
    }

    /// The rules for the outcome of steps that run concurrently.
    public static let concurrent = [serialised, allOrNothing]

    private static func conversion(_ outcome: StepOutcome) -> [InterfaceRule] {
        guard case .errno(let number, _) = outcome else { return [allOrNothing, contents] }
        let rows = rows.filter { $0.errno == number }
        return rows.isEmpty ? [allOrNothing] : rows.map(\.rule)
    }

    private static let rows: [(errno: Int32, rule: InterfaceRule)] = [
        row(
            0, .inappropriateIOCTLForDevice, "the kernel does not have the series, or the parameter is off",
            "ENOTTY"),
        row(1, .badAddress, "the 128 bytes of the struct cannot be read", "EFAULT"),
        row(2, .invalidArgument, "flags are not 0", "EINVAL"),
        row(3, .invalidArgument, "a reserved word is not 0; error_offset is ignored on input", "EINVAL"),
        row(4, .invalidArgument, "the type of the VM has no private memory", "EINVAL"),
        row(5, .invalidArgument, "attributes has a bit other than PRIVATE", "EINVAL"),
        row(6, .invalidArgument, "size is 0, or offset + size exceeds 64 bits", "EINVAL"),
        row(7, .invalidArgument, "offset or size is not a multiple of the page size", "EINVAL"),
        row(8, .invalidArgument, "the range does not lie inside the file", "EINVAL"),
        row(10, .noMemory, "no memory for the tracking structure", "ENOMEM"),
        row(11, .resourceTemporarilyUnavailable, "to private, and an allocated page is in use", "EAGAIN"),
        row(12, .badAddress, "the result cannot be written back", "EFAULT instead of EAGAIN or ENOMEM"),
    ]

    private static func row(
        _ number: Int, _ errno: Errno, _ condition: String, _ result: String
    ) -> (errno: Int32, rule: InterfaceRule) {
        (errno.rawValue, InterfaceRule(place: "section 2, row \(number)", text: "\(condition) | \(result)"))
    }

    private static let allOrNothing = InterfaceRule(
        place: "section 2",
        text: "All or nothing. After EAGAIN or ENOMEM every page of the range still has its previous state.")
    private static let serialised = InterfaceRule(
        place: "section 2",
        text:
            "Conversions of one file are serialised with each other, with host faults, vCPU faults and fallocate."
    )
    private static let reference = InterfaceRule(
        place: "section 2",
        text: "A page is in use if it is pinned for DMA, still mapped, or has more references than expected")
    private static let zapping = InterfaceRule(
        place: "section 2",
        text:
            "A conversion in either direction removes exactly the mapped pages of its range from the guest's page tables"
    )
    private static let contents = InterfaceRule(
        place: "section 2, Contents",
        text: "On a software-protected VM they survive a conversion in both directions")
    private static let hostAccess = InterfaceRule(
        place: "section 2, Host access",
        text:
            "An access to a private page, or to one past the end, raises SIGBUS; a system call with such an address fails with EFAULT"
    )
    private static let fallocate = InterfaceRule(
        place: "section 2, fallocate",
        text: "FALLOC_FL_PUNCH_HOLE frees pages, which read as zeros afterwards and keep their state.")
    private static let memslots = InterfaceRule(
        place: "section 2, Memslots",
        text: "With a guest_memfd, private and shared accesses both go to the file.")
    private static let slotDeletion = InterfaceRule(
        place: "section 2, Memslots", text: "Deleting a memslot turns its addresses into MMIO.")
    private static let memoryFaults = InterfaceRule(
        place: "section 2, Memory faults",
        text:
            "On a software-protected VM an access takes its kind from the state of the page and cannot mismatch"
    )
    private static let severalSteps = InterfaceRule(
        place: "section 2, Calls in several steps", text: "KVM_PRE_FAULT_MEMORY works page by page")
    private static let perVM = InterfaceRule(
        place: "section 4",
        text: "KVM_SET_MEMORY_ATTRIBUTES on the VM sets the attribute of guest-physical addresses.")

    /// Every rule.
    static var all: [InterfaceRule] {
        rows.map(\.rule) + [
            allOrNothing, serialised, reference, zapping, contents, hostAccess, fallocate, memslots,
            slotDeletion,
            memoryFaults, severalSteps, perVM,
        ]
    }
}
