// SPDX-License-Identifier: MIT
import Explain
import Litmus
import MiniVMM
import SystemPackage

/// Explains in a comment how a step must end, and by which rule of docs/ABI.md.
struct StepRule {
    /// Whether the VM of a file has private memory, and the file's size in bytes; nil if it is not known.
    private let file: (Name) -> (hasPrivateMemory: Bool, size: UInt64)?

    /// The rules for the steps of a test, whose files are those of its header and its `create` steps.
    init(_ test: LitmusTest) {
        var files: [Name: (hasPrivateMemory: Bool, size: UInt64)] = [:]
        for memory in test.memory {
            files[memory.name] = (test.vm == .softwareProtected, memory.pages * pageSize)
        }
        for step in test.steps {
            guard case .create(let new) = step.action else { continue }
            files[new.name] = ((new.vm ?? VMName(test.vm)) != .default, new.size)
        }
        file = { files[$0] }
    }

    /// Why a step must end so, and where docs/ABI.md says it; nil if no single place does.
    private struct Reason {
        var text: String
        var place: String?
    }

    /// The reasons that an earlier comment has given.
    private var told: Set<String> = []

    /// The step as the test writes it, and why it must end so. A reason is given once, and later by its place alone.
    mutating func comment(_ step: Step) -> String {
        let text = step.text + (step.answer.map { " => \($0)" } ?? "")
        let given = reasons(step).map { reason in
            let isNew = told.insert(reason.text).inserted
            return (isNew: isNew || reason.place == nil, reason)
        }
        let new = given.filter(\.isNew).map { $0.1.text + ($0.1.place.map { " (\($0))" } ?? "") }
        let known = given.filter { !$0.isNew }.compactMap { $0.1.place }
        return text + (known.isEmpty ? "" : " (\(known.joined(separator: ", ")))")
            + (new.isEmpty ? "" : ": " + new.joined(separator: "; "))
    }

    private func reasons(_ step: Step) -> [Reason] {
        let success = success(step.action).map { [$0] } ?? []
        switch step.expectation {
        case .named: return []
        case .unspecified: return success
        case .anyOf(let outcomes):
            let reasons = outcomes.compactMap { reason($0, step) }
            return reasons.isEmpty ? success : reasons
        }
    }

    private func success(_ action: Action) -> Reason? {
        switch action.single {
        case .convert: Reason(text: "every check passes", place: "section 2")
        case .bind: Reason(text: "the guest gets this part of the file")
        case .unbind: Reason(text: "accesses there are MMIO from here on", place: "section 2, Memslots")
        case .punch: Reason(text: "the pages are freed and keep their state", place: "section 2, fallocate")
        default: nil
        }
    }

    private func reason(_ outcome: StepOutcome, _ step: Step) -> Reason? {
        switch (outcome, step.action.single) {
        case (.errno(let number, _), .convert(let conversion)): reason(number, conversion)
        case (.errno(let number, _), .hypercall) where number == Errno.resourceTemporarilyUnavailable.rawValue:
            Reason(text: "a page is in use", place: "row 11")
        case (.sigbus, _):
            Reason(text: "the host can access shared pages only", place: "section 2, Host access")
        case (.fault, _): Reason(text: "the exit names the page", place: "section 2, Memory faults")
        case (.mmio, _): Reason(text: "no memslot has the address, or it is read-only")
        default: nil
        }
    }

    private func reason(_ errno: Int32, _ conversion: Conversion) -> Reason {
        guard let row = row(errno, conversion) else {
            return Reason(text: "no row of the table in section 2 has this errno")
        }
        return Reason(text: row.condition, place: "row \(row.rawValue)")
    }

    /// The row of the table of docs/ABI.md, section 2, by which the call fails with this errno; nil if none has it.
    func row(_ errno: Int32, _ conversion: Conversion) -> ConversionRow? {
        var call = ConversionArguments()
        call.offset = conversion.extent.offset
        call.size = conversion.extent.size
        call.attributes = conversion.attributes
        call.flags = conversion.flags
        call.reserved = conversion.reserved.first?.value ?? 0
        if let file = file(conversion.extent.name) {
            call.fileSize = file.size
            call.hasPrivateMemory = file.hasPrivateMemory
        }
        let error = Errno(rawValue: errno)
        let row =
            switch conversion.structure {
            case .writable: ValidationTable().possibilities(call).first { $0.errno == error }?.row
            case .readOnly: ConversionRow.unwritable
            case .unmapped, .cut: ConversionRow.unreadable
            }
        return row ?? ConversionRow.allCases.first { $0.errno == error }
    }
}
