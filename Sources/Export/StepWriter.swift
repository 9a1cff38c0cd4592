// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

/// Writes the steps of a test as C, in the order of the text, and notes what the program needs for them.
///
/// The files and views that exist are followed step by step, for values that a step takes from an earlier one.
struct StepWriter {
    struct View {
        var file: Name
        var offset: UInt64
        var size: UInt64
    }

    let test: LitmusTest
    let late: LateUses
    private var rule: StepRule
    private var names: CNames
    var views: [Name: View] = [:]
    /// Views that were unmapped or moved.
    var gone: [Name: View] = [:]
    /// The sizes of the files in bytes.
    var sizes: [Name: UInt64] = [:]
    var holders: [Name: HoldKind] = [:]
    /// The access that `again` repeats.
    var pending: [Int: Step] = [:]
    let ending: Set<Name>
    let countsPages: Bool
    let poisons: Bool

    /// The objects of the program by their C names, in the order in which steps first name them.
    private(set) var files: [String] = []
    private(set) var viewNames: [String] = []
    private(set) var holds: [(name: String, kind: HoldKind)] = []
    private(set) var children: [String] = []
    private(set) var vcpus: [(name: String, number: Int)] = []
    private(set) var vms: [VMName] = []
    /// Whether a vCPU makes hypercalls, so that memslots are noted.
    let hasHypercalls: Bool
    /// Whether a guest asks the monitor for zeros.
    var zeroesForGuest = false
    private(set) var repeatsSteps = false
    /// Whether every run can begin with the same VM and files, after pages and holds were put back.
    var canRestore = true
    /// The page of a repeated step, as a C expression.
    var repeatedOffset: String?
    /// Whether other actors act concurrently.
    var isRacing = false
    private var hasForked = false
    /// Whether a default VM has lost a memslot, and with it all pages in its tables, since a vCPU last made an access.
    private var hasEmptiedTables = false

    init(_ test: LitmusTest, _ runtime: CRuntime) {
        self.test = test
        late = LateUses(test)
        ending = Set(test.steps.compactMap(\.action.endedView))
        countsPages = test.steps.contains { $0.action == .zapped }
        poisons = test.steps.contains {
            if case .advise(_, let advice) = $0.action { advice == .hwPoison } else { false }
        }
        hasHypercalls = test.steps.contains {
            if case .hypercall = $0.action.single { true } else { false }
        }
        names = CNames(
            reserved: runtime.names.union([
                "vm", "default_vm", "protected_vm", "second_vm", "seen", "at", "run",
            ]))
        rule = StepRule(test)
        for memory in test.memory {
            let size = memory.pages * pageSize
            sizes[memory.name] = size
            views[memory.name] = View(file: memory.name, offset: 0, size: size)
        }
        // The first memory keeps its plain name whatever follows.
        for memory in test.memory { _ = (file(memory.name), view(memory.name)) }
    }

    // MARK: names

    mutating func file(_ name: Name) -> String {
        let text = names.name("file", "\(name)", ["", "_file"])
        if !files.contains(text) { files.append(text) }
        return text
    }

    mutating func view(_ name: Name) -> String {
        let text = names.name("view", "\(name)", ["_view"])
        if !viewNames.contains(text) { viewNames.append(text) }
        return text
    }

    mutating func hold(_ name: Name, _ kind: HoldKind) -> String {
        let text = names.name("hold", "\(name)", ["_hold"])
        holds.removeAll { $0.name == text }
        holds.append((text, kind))
        return text
    }

    mutating func child(_ number: Int) -> String {
        let text = names.name("child", number == 0 ? "child" : "child\(number)", ["", "_process"])
        if !children.contains(text) { children.append(text) }
        return text
    }

    mutating func vcpu(_ number: Int) -> String {
        let text = names.name("vcpu", "vcpu\(number)", ["", "_cpu"])
        if !vcpus.contains(where: { $0.number == number }) { vcpus.append((text, number)) }
        _ = vm(nil)
        return text
    }

    mutating func vm(_ name: VMName?) -> String {
        let main = VMName(test.vm)
        let name = name ?? main
        if !vms.contains(name) { vms.append(name) }
        return Self.variable(name, main)
    }

    /// The views of the program that are mapped after all steps, with their sizes in bytes.
    var mappedViews: [(String, UInt64)] {
        views.map { (names.known("view", "\($0.key)") ?? "", $0.value.size) }.filter { !$0.0.isEmpty }.sorted
        { $0.0 < $1.0 }
    }

    static func variable(_ name: VMName, _ main: VMName) -> String {
        switch name {
        case main: "vm"
        case .protected: "protected_vm"
        case .second: "second_vm"
        case .default: "default_vm"
        case .snp: "snp_vm"
        case .tdx: "tdx_vm"
        }
    }

    // MARK: steps

    /// A step outside of parallel blocks, as lines of a function's body.
    mutating func lines(_ step: Step) throws(ExportProblem) -> [String] {
        isRacing = false
        noteTables(step)
        var lines = CText.comment(rule.comment(step) + (countsOwnPages(step) ? Self.ownPages : ""))
        if case .every(let pattern, let action) = step.action {
            lines += try repeated(step, pattern, action)
        } else {
            lines += try plain(step)
        }
        if countsPages, case .vcpu = step.actor { lines.append("\tpages = mapped_pages(\(vm(nil)));") }
        return lines
    }

    private mutating func plain(_ step: Step) throws(ExportProblem) -> [String] {
        if let statement = try statement(step) { return ["\t\(statement)"] }
        var lines = ["\t" + verdict(step, try expression(step))]
        lines += try after(step)
        return lines
    }

    /// The step of an actor of a parallel block.
    mutating func racingLines(_ step: Step, result: String) throws(ExportProblem) -> [String] {
        isRacing = true
        defer { isRacing = false }
        if let statement = try statement(step) { return ["\t\(statement)", "\t\(result) = \"ok\";"] }
        return ["\t\(result) = \(try expression(step));"] + (try after(step))
    }

    /// A step of a parallel block without a result: it must end as expected.
    mutating func racingStep(_ step: Step) throws(ExportProblem) -> [String] {
        isRacing = true
        defer { isRacing = false }
        return try plain(step)
    }

    private mutating func noteTables(_ step: Step) {
        if case .vcpu = step.actor {
            hasEmptiedTables = false
        } else if case .unbind(_, let vm) = step.action, test.vm == .default, (vm ?? .default) == .default {
            hasEmptiedTables = true
        }
    }

    private func countsOwnPages(_ step: Step) -> Bool { step.action == .zapped && hasEmptiedTables }
    private static let ownPages = "; here the guest has one page of its own, and in minivmm five"

    /// An outcome of the program, whose guest has fewer pages of its own. Only a protected VM can have two aliases.
    private func ofProgram(_ outcome: StepOutcome, of step: Step) -> StepOutcome {
        let further = UInt8(GuestReach.agentPages(hasTwoAliases: false).nonzeroBitCount - 1)
        guard countsOwnPages(step), case .value(let pages) = outcome, pages > further else { return outcome }
        return .value(pages - further)
    }

    private func verdict(_ step: Step, _ expression: String) -> String {
        let patterns: [String] =
            switch step.expectation {
            case .anyOf(let outcomes):
                outcomes.flatMap { CText.patterns(ofProgram($0, of: step), poisons: poisons) }
            case .unspecified, .named:
                if case .advise(_, .hwPoison) = step.action {
                    ["ok", "EBUSY"]
                } else if step.action.canReturnByte {
                    ["ok", "0x*"]
                } else {
                    ["ok"]
                }
            }
        let pattern = CText.string(
            patterns.count == 1 ? patterns[0] : "@(\(patterns.joined(separator: "|")))")
        let line = "expect(\(expression), \(pattern));"
        return line.utf8.count <= 92 ? line : "expect(\(expression),\n\t       \(pattern));"
    }

    /// A child has the views that existed when it was forked, under the addresses that they have then.
    func checkView(_ name: Name, of step: Step) throws(ExportProblem) {
        guard hasForked else { return }
        for other in test.steps where other.action.extent?.name == name {
            if case .child = other.actor {
                throw .step(
                    step.text,
                    reason: "a child of a program has no view of an address that changes after the fork")
            }
        }
    }

    /// A step that has no outcome.
    private mutating func statement(_ step: Step) throws(ExportProblem) -> String? {
        switch step.action {
        case .release(let name):
            guard let kind = holders[name] else {
                throw .step(step.text, reason: "no earlier step takes this hold")
            }
            return "\(Self.release(kind))(&\(hold(name, kind)));"
        case .fork(let number):
            hasForked = true
            return "fork_child(&\(child(number)));"
        default: return nil
        }
    }

    static func release(_ kind: HoldKind) -> String {
        kind == .vmsplice ? "release_pipe" : "release_\(kind.rawValue)"
    }

    private mutating func repeated(
        _ step: Step, _ pattern: Pattern, _ action: Action
    ) throws(ExportProblem) -> [String] {
        guard let count = pattern.count else {
            throw .step(step.text, reason: "the pattern is not whole pages")
        }
        // The last page is inside the range, whose end fits 64 bits.
        let last = pattern.extent.offset + (count - 1) * pattern.stride * pageSize
        repeatsSteps = true
        repeatedOffset = "at"
        defer { repeatedOffset = nil }
        var single = step
        single.action = action
        let first = CText.bytes(pattern.extent.offset)
        let call = try expression(single)
        return [
            "\tseen = \"ok\";",
            "\tfor (at = \(first); at <= \(CText.bytes(last)); at += \(CText.bytes(pattern.stride * pageSize)))",
            "\t\tif (!goes_on(&seen, \(call), at, at == \(first)))",
            "\t\t\tbreak;",
            "\t" + verdict(step, "seen"),
        ]
    }

    /// Statements after a step that begins or ends an object.
    private mutating func after(_ step: Step) throws(ExportProblem) -> [String] {
        switch step.action {
        case .create(let new) where late.files.contains(new.name):
            return ["\treserve_descriptor(&\(file(new.name)));"]
        default: return []
        }
    }
}

extension Action {
    /// Whether it can succeed with a byte.
    fileprivate var canReturnByte: Bool {
        switch single {
        case .read, .again, .peek, .node, .dirty, .zapped, .present, .extension: true
        default: false
        }
    }
}
