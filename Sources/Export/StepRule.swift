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

    /// The step as the test writes it, and why it must end so.
    func comment(_ step: Step) -> String {
        let text = step.text + (step.answer.map { " => \($0)" } ?? "")
        return reason(step).map { "\(text): \($0)" } ?? text
    }

    private func reason(_ step: Step) -> String? {
        switch step.expectation {
        case .named: return nil
        case .unspecified: return success(step.action)
        case .anyOf(let outcomes):
            let reasons = outcomes.compactMap { reason($0, step) }
            return reasons.isEmpty ? success(step.action) : reasons.joined(separator: "; ")
        }
    }

    private func success(_ action: Action) -> String? {
        switch action.single {
        case .convert: "every check passes (section 2)"
        case .bind: "the guest gets this part of the file"
        case .unbind: "accesses there are MMIO from here on (section 2, Memslots)"
        case .punch: "the pages are freed and keep their state (section 2, fallocate)"
        default: nil
        }
    }

    private func reason(_ outcome: StepOutcome, _ step: Step) -> String? {
        switch (outcome, step.action.single) {
        case (.errno(let number, _), .convert(let conversion)): reason(number, conversion)
        case (.errno(let number, _), .hypercall) where number == Errno.resourceTemporarilyUnavailable.rawValue:
            "a page is in use (row 11)"
        case (.sigbus, _): "the host can access shared pages only (section 2, Host access)"
        case (.fault, _): "the exit names the page (section 2, Memory faults)"
        case (.mmio, _): "no memslot has the address, or it is read-only"
        default: nil
        }
    }

    private func reason(_ errno: Int32, _ conversion: Conversion) -> String {
        guard let row = row(errno, conversion) else {
            return "no row of the table in section 2 has this errno"
        }
        return "\(row.condition) (row \(row.rawValue))"
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
