// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

/// Writes the steps of a test as C, in the order of the text, and notes what the program needs for them.
///
/// The files and views that exist are followed step by step, for values that a step takes from an earlier one.
struct StepWriter {
    private struct View {
        var file: Name
        var offset: UInt64
        var size: UInt64
    }

    let test: LitmusTest
    private let late: LateUses
    private let rule: StepRule
    private var names: CNames
    private var views: [Name: View] = [:]
    /// Views that were unmapped or moved.
    private var gone: [Name: View] = [:]
    private var sizes: [Name: (size: UInt64, vm: VMName)] = [:]
    private var holders: [Name: HoldKind] = [:]
    /// The access that `again` repeats.
    private var pending: [Int: Step] = [:]
    private let ending: Set<Name>
    let countsPages: Bool
    private let poisons: Bool

    /// The objects of the program by their C names, in the order in which steps first name them.
    private(set) var files: [String] = []
    private(set) var viewNames: [String] = []
    private(set) var holds: [(name: String, kind: HoldKind)] = []
    private(set) var children: [String] = []
    private(set) var vcpus: [(name: String, number: Int)] = []
    private(set) var vms: [VMName] = []
    /// Whether a vCPU makes hypercalls, so that memslots are noted.
    let hasHypercalls: Bool
    private(set) var repeatsSteps = false
    /// Whether every run can begin with the same VM and files, after pages and holds were put back.
    private(set) var canRestore = true
    /// The page of a repeated step, as a C expression.
    private var repeatedOffset: String?
    /// Whether other actors act concurrently.
    private var isRacing = false

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
            reserved: runtime.names.union(["kvm", "vm", "default_vm", "second_vm", "seen", "at", "run"]))
        rule = StepRule(test)
        for memory in test.memory {
            let size = memory.pages * pageSize
            sizes[memory.name] = (size, VMName(test.vm))
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

    private mutating func hold(_ name: Name, _ kind: HoldKind) -> String {
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

    private mutating func vcpu(_ number: Int) -> String {
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
        }
    }

    // MARK: steps

    /// A step outside of parallel blocks, as lines of a function's body.
    mutating func lines(_ step: Step) throws(ExportProblem) -> [String] {
        isRacing = false
        var lines = CText.comment(rule.comment(step))
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
        if try statement(step) != nil {
            throw .step(step.text, reason: "it has no place in a parallel block of a program")
        }
        return ["\t\(result) = \(try expression(step));"] + (try after(step))
    }

    /// A step of a parallel block without a result: it must end as expected.
    mutating func racingStep(_ step: Step) throws(ExportProblem) -> [String] {
        isRacing = true
        defer { isRacing = false }
        return try plain(step)
    }

    private func verdict(_ step: Step, _ expression: String) -> String {
        let patterns: [String] =
            switch step.expectation {
            case .anyOf(let outcomes): outcomes.flatMap { CText.patterns($0, poisons: poisons) }
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

    /// A step that has no outcome.
    private mutating func statement(_ step: Step) throws(ExportProblem) -> String? {
        switch step.action {
        case .release(let name):
            guard let kind = holders[name] else {
                throw .step(step.text, reason: "no earlier step takes this hold")
            }
            return "\(Self.release(kind))(&\(hold(name, kind)));"
        case .fork(let number): return "fork_child(&\(child(number)));"
        default: return nil
        }
    }

    static func release(_ kind: HoldKind) -> String {
        kind == .vmsplice ? "release_pipe" : "release_\(kind.rawValue)"
    }

    private mutating func repeated(
        _ step: Step, _ pattern: Pattern, _ action: Action
    ) throws(ExportProblem) -> [String] {
        guard let last = pattern.offsets.reversed().first ?? pattern.count.map({ _ in pattern.extent.offset })
        else { throw .step(step.text, reason: "the pattern is not whole pages") }
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

    // MARK: expressions

    /// A part of a view, as address and length.
    private mutating func place(_ extent: Extent) -> String {
        let start = offset(extent.offset)
        return (start == "0" ? view(extent.name) : "\(view(extent.name)) + \(start)")
            + ", \(CText.bytes(extent.size))"
    }

    /// A place of guest memory, as the guest addresses it.
    private func address(_ name: Name, _ bytes: UInt64) -> String {
        let text = offset(bytes)
        guard test.hasTwoAliases, name == .shared else { return text }
        return text == "0" ? "SHARED_ALIAS" : "SHARED_ALIAS + \(text)"
    }

    private func offset(_ bytes: UInt64) -> String { repeatedOffset ?? CText.bytes(bytes) }
    private func range(_ extent: Extent) -> String { "\(offset(extent.offset)), \(CText.bytes(extent.size))" }

    /// The C expression of the step's outcome.
    private mutating func expression(_ step: Step) throws(ExportProblem) -> String {
        switch step.actor {
        case .vcpu(let number): return try guest(step, number)
        case .child(let number):
            let child = "&" + child(number) + ", "
            switch step.action {
            case .read(let place): return "child_read(\(child)\(view(place.name)), \(offset(place.offset)))"
            case .write(let place, let byte):
                return
                    "child_write(\(child)\(view(place.name)), \(offset(place.offset)), \(CText.byte(byte)))"
            case .fill(let extent, let byte):
                return "child_fill(\(child)\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
            case .check(let extent, let byte):
                return "child_check(\(child)\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
            default: throw .step(step.text, reason: "a child only accesses memory")
            }
        case .host: return try host(step)
        }
    }

    private mutating func host(_ step: Step) throws(ExportProblem) -> String {
        switch step.action {
        case .read(let place): return "read_byte(\(view(place.name)), \(offset(place.offset)))"
        case .write(let place, let byte):
            return "write_byte(\(view(place.name)), \(offset(place.offset)), \(CText.byte(byte)))"
        case .fill(let extent, let byte):
            return "fill(\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
        case .check(let extent, let byte):
            return "check(\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
        case .convert(let conversion): return try convert(step, conversion)
        case .map(let extent, let name):
            canRestore = false
            views[name] = View(file: extent.name, offset: extent.offset, size: extent.size)
            let function = ending.contains(name) ? "map_alone" : "map_file"
            return "\(function)(\(file(extent.name)), \(range(extent)), &\(view(name)))"
        case .unmap(let name):
            canRestore = false
            guard let old = views.removeValue(forKey: name) ?? gone[name] else {
                throw .step(step.text, reason: "no earlier step maps this view")
            }
            gone[name] = old
            return "answer(munmap(\(view(name)), \(CText.bytes(old.size))))"
        case .remap(let name, let pages, let new):
            canRestore = false
            guard let old = views.removeValue(forKey: name) ?? gone[name] else {
                throw .step(step.text, reason: "no earlier step maps this view")
            }
            gone[name] = old
            views[new] = View(file: old.file, offset: old.offset, size: pages &* pageSize)
            return
                "remap_view(\(view(name)), \(CText.bytes(old.size)), \(CText.bytes(pages &* pageSize)), &\(view(new)))"
        case .protect(let extent, let protection):
            canRestore = false
            return "answer(mprotect(\(place(extent)), \(CText.protection(protection))))"
        case .mbind(let extent, let policy, let flags):
            canRestore = false
            return available(
                step,
                "set_policy(\(view(extent.name)), \(range(extent)), \(CText.policy(policy)), \(flags.rawValue))"
            )
        case .migrate(let place, let node):
            canRestore = false
            return available(step, "move_page(\(view(place.name)), \(offset(place.offset)), \(node))")
        case .node(let place):
            return available(step, "move_page(\(view(place.name)), \(offset(place.offset)), -1)")
        case .advise(let extent, let advice):
            let arguments = "\(view(extent.name)), \(range(extent)), \(CText.advice(advice))"
            switch advice {
            case .hwPoison, .softOffline:
                canRestore = false
                return "fail_memory(\(arguments))"
            case .collapse: canRestore = false
            case .dontNeed, .remove, .populateRead, .populateWrite: break
            }
            return "answer(madvise(\(place(extent)), \(CText.advice(advice))))"
        case .allocate(let extent): return "allocate(\(file(extent.name)), \(range(extent)))"
        case .punch(let extent): return "punch_hole(\(file(extent.name)), \(range(extent)))"
        case .hold(let extent, let kind, let name):
            holders[name] = kind
            let call =
                "hold_by_\(kind.rawValue)(&\(hold(name, kind)), \(view(extent.name)), \(range(extent)))"
            let isExpected = kind == .vmsplice || Self.missingHolder.contains { step.expects($0) }
            return isExpected ? call : "need_holder(\"\(kind.rawValue)\", \(call))"
        case .create(let new):
            canRestore = false
            sizes[new.name] = (new.size, new.vm ?? VMName(test.vm))
            return
                "create_file(\(vm(new.vm)), &\(file(new.name)), \(CText.bytes(new.size)), \(flags(new.flags)))"
        case .close(let name):
            canRestore = false
            return "answer(close(\(file(name))))"
        case .dup(let name, let copy):
            canRestore = false
            sizes[copy] = sizes[name]
            return "duplicate_file(\(file(name)), &\(file(copy)))"
        case .bind(let binding): return try bind(step, binding)
        case .unbind(let slot, let name):
            canRestore = false
            if test.hasTwoAliases {
                throw .step(
                    step.text, reason: "a program with two aliases cannot change the guest's memslots")
            }
            let call = "delete_slot(\(vm(name)), \(slot))"
            return hasHypercalls && isMain(name) ? "unbind_noted(\(slot), \(call))" : call
        case .dirty(let slot, let name): return "dirty_log(\(vm(name)), \(slot))"
        case .setAttributes(let extent, let attributes, let flags, let name):
            canRestore = false
            return
                "set_vm_attributes(\(vm(name)), \(range(extent)), \(CText.attributes(attributes)), \(flags))"
        case .syscall(let name, let call):
            canRestore = false
            return CText.call(call, file(name))
        case .peek(let place): return "peek(\(view(place.name)), \(offset(place.offset)))"
        case .zapped: return "zapped_pages(\(vm(nil)), pages)"
        case .present(let extent): return "present_pages(\(view(extent.name)), \(range(extent)))"
        case .extension(let number): return "as_byte(ioctl(\(vm(nil)), KVM_CHECK_EXTENSION, \(number)))"
        case .release, .fork, .hypercall, .again, .preFault, .clock, .every:
            throw .step(step.text, reason: "\(step.actor) does not do that")
        }
    }

    private func isMain(_ name: VMName?) -> Bool { name == nil || name == VMName(test.vm) }

    private static let missingHolder: [Errno] = [
        .noSuchFileOrDirectory, .noFunction, .notPermitted, .permissionDenied, .operationNotSupportedByDevice,
        .noSuchAddressOrDevice,
    ]

    /// A call that some kernels do not support, which skips the test.
    private func available(_ step: Step, _ call: String) -> String {
        let missing: [Errno] = [.noFunction, .notPermitted, .notSupportedOnSocket]
        return missing.contains { step.expects($0) } ? call : "need_call(\(call))"
    }

    private func flags(_ flags: UInt64) -> String {
        switch flags {
        case 1: "GUEST_MEMFD_FLAG_MMAP"
        case 2: "GUEST_MEMFD_FLAG_INIT_SHARED"
        case 3: "GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED"
        default: CText.word(flags)
        }
    }

    private mutating func bind(_ step: Step, _ binding: Binding) throws(ExportProblem) -> String {
        canRestore = false
        if test.hasTwoAliases {
            throw .step(step.text, reason: "a program with two aliases cannot change the guest's memslots")
        }
        let extent = binding.extent
        let address: String
        if let place = binding.address {
            address = pointer(view(place.name), place.offset)
        } else if let known = views[extent.name], known.file == extent.name, extent.offset >= known.offset,
            case let start = extent.offset - known.offset, start <= known.size,
            extent.size <= known.size - start
        {
            address = pointer(view(extent.name), start)
        } else {
            address = "NULL"
        }
        let flags =
            binding.flags == Binding.guestMemfd ? "KVM_MEM_GUEST_MEMFD" : CText.word(UInt64(binding.flags))
        let file = file(extent.name)
        let call =
            "bind_slot(\(vm(binding.vm)), \(binding.slot), \(flags), \(file), \(range(extent)), "
            + "\(CText.bytes(binding.gpa)), \(address))"
        guard hasHypercalls, isMain(binding.vm) else { return call }
        return "bind_noted(\(call), \(binding.slot), \(file), \(range(extent)), \(CText.bytes(binding.gpa)))"
    }

    private func pointer(_ view: String, _ offset: UInt64) -> String {
        offset == 0 ? view : "\(view) + \(CText.bytes(offset))"
    }

    // MARK: conversions

    private mutating func convert(_ step: Step, _ conversion: Conversion) throws(ExportProblem) -> String {
        let extent = conversion.extent
        if let contents = conversion.contents, conversion.isPlain,
            let target = Attributes.state(conversion.attributes)
        {
            if contents == .preserve, test.vm == .default {
                return step.expects(.notSupportedOnSocket) ? "\"EOPNOTSUPP\"" : "need_call(\"EOPNOTSUPP\")"
            }
            let isSimple =
                contents != .zero && conversion.monitor == MonitorPolicy()
                && extent.size <= Converter.defaultChunk
            let isInside = extent.name == .guest || isInside(extent)
            if extent.name == .guest || !isSimple && isInside {
                return try policy(step, conversion, contents, target)
            }
        }
        if conversion.isPlain {
            return
                "convert(\(file(extent.name)), \(range(extent)), \(CText.attributes(conversion.attributes)))"
        }
        var fields = [
            ".offset = \(offset(extent.offset))", ".size = \(CText.bytes(extent.size))",
            ".attributes = \(CText.attributes(conversion.attributes))",
        ]
        if conversion.flags != 0 { fields.append(".flags = \(CText.word(conversion.flags))") }
        if conversion.errorOffset != 0 {
            fields.append(".error_offset = \(CText.word(conversion.errorOffset))")
        }
        for word in conversion.reserved {
            fields.append(".reserved[\(word.index)] = \(CText.word(word.value))")
        }
        let request = "&(struct kvm_memory_attributes2){ \(fields.joined(separator: ", ")) }"
        let file = file(extent.name)
        return switch conversion.structure {
        case .writable: "convert_with(\(file), \(request))"
        case .readOnly: "convert_from(\(file), \(request), 128, true)"
        case .unmapped: "convert_from(\(file), \(request), 0, false)"
        case .cut: "convert_from(\(file), \(request), 64, false)"
        }
    }

    private func isInside(_ extent: Extent) -> Bool {
        guard let file = sizes[extent.name] else { return false }
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        return !overflow && end <= file.size && extent.size > 0 && extent.size % pageSize == 0
            && extent.offset % pageSize == 0
    }

    /// A request that the monitor carries out with several calls.
    private mutating func policy(
        _ step: Step, _ conversion: Conversion, _ contents: ContentPolicy, _ target: PageState
    ) throws(ExportProblem) -> String {
        let extent = conversion.extent
        guard let range = PageRange(start: extent.offset, size: extent.size) else {
            throw .step(step.text, reason: "the range is not whole pages")
        }
        var parts: [String] = []
        if extent.name == .guest {
            let regions = test.memory.regions
            // The monitor refuses it without a call.
            guard range.end <= regions.last?.gpa.end ?? 0 else { return "\"EINVAL\"" }
            for (region, part) in regions.parts(of: range) {
                let bytes = region.extent(at: part)
                parts.append(
                    "{ \(file(region.name)), \(view(region.name)), \(CText.bytes(bytes.offset)), "
                        + "\(CText.bytes(bytes.size)), \(CText.bytes(part.start)) }")
            }
        } else {
            guard views[extent.name]?.file == extent.name,
                views[extent.name]?.offset == 0 || contents != .zero
            else {
                throw .step(
                    step.text, reason: "the monitor maps the file by itself, which a program does not")
            }
            parts.append(
                "{ \(file(extent.name)), \(view(extent.name)), \(self.range(extent)), \(offset(extent.offset)) }"
            )
        }
        let list = parts.joined(separator: ",\n\t\t\t")
        let policy = Self.policy(contents, conversion.monitor)
        return
            "convert_parts((struct part[]){\n\t\t\t\(list) }, \(parts.count), \(CText.attributes(conversion.attributes)),\n"
            + "\t\t\t\(policy))"
    }

    // MARK: vCPUs

    /// The expression of an access whose memory faults the monitor handles, if the step says so.
    ///
    /// - Parameter access: the access, for a number of entries after memory faults.
    private func following(_ step: Step, _ cpu: String, _ access: (String) -> String) -> String {
        guard let onFault = step.onFault, test.hasTwoAliases else {
            return access(isRacing || step.onFault != nil ? "FOLLOW" : "0")
        }
        let policy = Self.policy(onFault.contents, onFault.monitor)
        return "follow_faults(\(cpu), \(access("0")), \(policy))"
    }

    /// The policy of the monitor's converter.
    private static func policy(_ contents: ContentPolicy, _ monitor: MonitorPolicy) -> String {
        let chunk = monitor.chunk.map { $0 * pageSize } ?? Converter.defaultChunk
        var fields = [".attempts = \(monitor.attempts)", ".chunk = \(CText.bytes(chunk))"]
        if contents == .zero { fields.insert(".zeroes = true", at: 0) }
        if monitor.bisects { fields.append(".bisects = true") }
        return "&(struct policy){ \(fields.joined(separator: ", ")) }"
    }

    private mutating func guest(_ step: Step, _ number: Int) throws(ExportProblem) -> String {
        let cpu = "&" + vcpu(number)
        switch step.action {
        case .read(let place):
            pending[number] = step
            return following(step, cpu) { "guest_read(\(cpu), \(address(place.name, place.offset)), \($0))" }
        case .write(let place, let byte):
            pending[number] = step
            let byte = CText.byte(byte)
            return following(step, cpu) {
                "guest_write(\(cpu), \(address(place.name, place.offset)), \(byte), \($0))"
            }
        case .fill(let extent, let byte):
            let range = "\(address(extent.name, extent.offset)), \(CText.bytes(extent.size))"
            return following(step, cpu) { "guest_fill(\(cpu), \(range), \(CText.byte(byte)), \($0))" }
        case .check(let extent, let byte):
            let range = "\(address(extent.name, extent.offset)), \(CText.bytes(extent.size))"
            return following(step, cpu) { "guest_check(\(cpu), \(range), \(CText.byte(byte)), \($0))" }
        case .again: return following(pending[number] ?? step, cpu) { "repeat_access(\(cpu), \($0))" }
        case .hypercall(let extent, let attributes):
            let word = Attributes.hypercallWord(attributes)
            guard word & 0x300 != 0x200 else {
                throw .step(step.text, reason: "a program's monitor zeroes no pages for a guest")
            }
            let text =
                word == 0 ? "0" : word == 1 << 4 ? "KVM_MAP_GPA_RANGE_ENCRYPTED" : CText.word(word)
            return "guest_call(\(cpu), \(offset(extent.offset)), \(extent.size / pageSize), \(text))"
        case .preFault(let extent):
            return "prefault(\(cpu), \(range(extent)))"
        case .clock(let place):
            canRestore = false
            return "set_clock(\(cpu), \(offset(place.offset)))"
        default: throw .step(step.text, reason: "a vCPU does not do that")
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
