// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM

/// Writes what stands behind the runtime: the test's objects and functions.
struct ProgramBody {
    let source: Source
    let form: CProgram.Form
    let program: [Entry]
    var writer: StepWriter
    let permitted: [PermittedOutcomes]
    var results: CNames
    let blocks: Int

    init(_ source: Source, _ runtime: CRuntime, _ form: CProgram.Form) {
        self.source = source
        self.form = form
        program = source.test.body
        writer = StepWriter(source.test, runtime)
        results = CNames(reserved: [])
        blocks = program.count { if case .parallel = $0 { true } else { false } }
        permitted = blocks == 0 ? [] : source.permittedOutcomes()
    }

    private var test: LitmusTest { source.test }

    /// `MOST_PAGES` and the array `aliased` of the runtime's aliases.h.
    private static let (mostAliasedPages, mostAliasedMemories) = (UInt64(512), 8)

    private func checkAliases() throws(ExportProblem) {
        guard test.hasTwoAliases else { return }
        for (number, memory) in test.memory.enumerated()
        where number >= Self.mostAliasedMemories || memory.pages > Self.mostAliasedPages {
            throw .step(
                "memory \(memory.name)",
                reason: "a program with two aliases has at most \(Self.mostAliasedMemories) files of "
                    + "\(Self.mostAliasedPages) pages")
        }
    }

    mutating func text() throws(ExportProblem) -> String {
        try checkAliases()
        var steps: [String] = []
        var functions: [String] = []
        var block = 0
        for entry in program {
            switch entry {
            case .step(let step):
                steps += try writer.lines(step)
            case .parallel(let parallel):
                let (text, calls) = try racing(parallel, block)
                functions.append(text)
                steps += calls
                block += 1
            }
        }
        let setup = setup()
        var sections = [objects(), functions.joined(separator: "\n\n")]
        if blocks == 0 {
            sections.append(main(setup + [""] + steps + ["", "\tpass();"]))
        } else {
            sections.append(
                function("static void create_machine(void)", Array(setup.drop { $0.isEmpty })))
            sections.append(function("static void restore_machine(void)", restoring()))
            sections.append(
                function(
                    "static void run(void)",
                    locals() + [
                        "\tif (!has_machine)", "\t\tcreate_machine();", "\thas_machine = true;", "",
                    ] + steps
                        + ["", "\trestore_machine();"]))
            sections.append(loops())
        }
        return sections.filter { !$0.isEmpty }.joined(separator: "\n\n") + "\n"
    }

    private func locals() -> [String] {
        var lines: [String] = []
        if writer.repeatsSteps { lines += ["\tconst char *seen;", "\tuint64_t at;"] }
        return lines + (lines.isEmpty ? [] : [""])
    }

    func function(_ head: String, _ lines: [String]) -> String {
        ([head, "{"] + lines + ["}"]).joined(separator: "\n")
    }

    /// The variables of the test.
    private mutating func objects() -> String {
        var lines: [String] = []
        let vms = writer.vms.map { StepWriter.variable($0, VMName(test.vm)) }
        if form == .selftest { lines += vms.map { "static struct kvm_vm *\($0);" } }
        let descriptors = (form == .c ? vms : []) + writer.files
        lines += CText.declarations("static int", descriptors.map { "\($0) = -1" })
        lines += CText.declarations("static unsigned char", writer.viewNames.map { "*\($0)" })
        for hold in writer.holds {
            lines.append("static struct hold \(hold.name) = { .fds = { -1, -1 } };")
        }
        for child in writer.children { lines.append("static struct child \(child);") }
        for cpu in writer.vcpus { lines.append("static struct vcpu \(cpu.name);") }
        if writer.countsPages {
            lines.append(
                "static long pages;\t/* in the second-stage tables after the last access of a vCPU */")
        }
        if blocks > 0 { lines.append("static bool has_machine;") }
        return lines.joined(separator: "\n")
    }

    /// The machine of the test.
    private mutating func setup() -> [String] {
        var lines: [String] = []
        let main = VMName(test.vm)
        if test.settings.isInPlaceOff { lines.append("\tneed_no_in_place();") }
        if !test.memory.isEmpty || writer.vms.isEmpty { _ = writer.vm(nil) }
        for vm in writer.vms {
            lines.append("\t\(StepWriter.variable(vm, main)) = create_vm(\(type(vm)));")
        }
        let late = LateUses(test)
        for memory in test.memory {
            let (file, view) = (writer.file(memory.name), writer.view(memory.name))
            let size = CText.bytes(memory.pages * pageSize)
            let flag = memory.initial == .shared ? "GUEST_MEMFD_FLAG_INIT_SHARED" : "0"
            lines.append("\tcreate_memory(vm, &\(file), &\(view), \(size), \(flag));")
            if late.files.contains(memory.name) { lines.append("\treserve_descriptor(&\(file));") }
        }
        let file = test.memory.first.map { writer.file($0.name) }
        // The aliases of a kernel follow its conversions.
        if test.hasTwoAliases, let file, !test.needs.contains(where: { $0 == .inPlace || $0 == .references })
        {
            lines.append("\texpect(convert(\(file), 0, 0, SHARED), \"EINVAL\");\t/* not ENOTTY */")
        }
        for need in test.needs {
            switch need {
            case .inPlace, .references:
                let scratch = "scratch_file(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)"
                lines.append(
                    "\texpect(convert(\(file ?? scratch), 0, 0, SHARED), \"EINVAL\");\t/* not ENOTTY */")
            case .preservation:
                lines.append(
                    main == .default
                        ? "\tskip(\"a default VM has no private memory\");"
                        : "\tif (loses_contents(\(file ?? "scratch_file(0)")))\n\t\tskip(\"contents do not survive conversions\");"
                )
            case .nodes(let count): lines.append("\tneed_nodes(\(count));")
            // The step that holds pages skips the test.
            case .holder: break
            }
        }
        for (slot, region) in test.memory.regions.enumerated() {
            let (file, view) = (writer.file(region.name), writer.view(region.name))
            let gpa = CText.bytes(region.gpa.start)
            let size = CText.bytes(region.gpa.size)
            if test.hasTwoAliases {
                let isPrivate = test.memory.first { $0.name == region.name }?.initial == .private
                let pages = region.gpa.size / pageSize
                lines.append("\talias_memory(vm, \(file), \(view), \(pages), \(gpa), \(isPrivate));")
            } else {
                lines.append(
                    "\texpect(bind_slot(vm, \(slot), KVM_MEM_GUEST_MEMFD, \(file), 0, \(size), \(gpa), \(view)), \"ok\");"
                )
            }
            if writer.hasHypercalls {
                lines.append("\tnote_slot(\(slot), \(file), 0, \(size), \(gpa));")
            }
        }
        if !writer.vcpus.isEmpty {
            if writer.hasHypercalls {
                let handler = writer.zeroesForGuest ? "map_or_zero_gpa_range" : "map_gpa_range"
                lines.append("\tenable_calls(vm, \(handler));")
            }
            lines.append("\tload_guest(vm);")
            for cpu in writer.vcpus {
                lines.append("\tcreate_vcpu(vm, \(cpu.number), &\(cpu.name));")
            }
        }
        return lines
    }

    private func type(_ vm: VMName) -> String {
        vm == .default ? "DEFAULT_VM" : "KVM_X86_SW_PROTECTED_VM"
    }

    private func main(_ lines: [String]) -> String {
        function(
            form == .c ? "int main(void)" : "int main(int argc, char *argv[])",
            locals() + (form == .c ? ["\tbegin();"] : []) + lines)
    }

    /// Puts the machine back for the next run, or discards it.
    private mutating func restoring() -> [String] {
        var lines: [String] = []
        for child in writer.children { lines.append("\tend_child(&\(child));") }
        for hold in writer.holds { lines.append("\t\(StepWriter.release(hold.kind))(&\(hold.name));") }
        if writer.canRestore {
            for cpu in writer.vcpus {
                lines.append("\t\(cpu.name).is_stuck = false;")
            }
            for memory in test.memory {
                let state = memory.initial == .shared ? "SHARED" : "PRIVATE"
                lines.append(
                    "\trestore_file(\(writer.file(memory.name)), \(CText.bytes(memory.pages * pageSize)), \(state));"
                )
            }
            return lines
        }
        for cpu in writer.vcpus { lines.append("\tdiscard_vcpu(&\(cpu.name));") }
        if !writer.vcpus.isEmpty { lines.append("\tdiscard_guest();") }
        for (view, size) in writer.mappedViews {
            lines.append("\tmunmap(\(view), \(CText.bytes(size)));")
        }
        for file in writer.files { lines += ["\tclose(\(file));", "\t\(file) = -1;"] }
        if test.hasTwoAliases { lines.append("\taliased_count = 0;") }
        if writer.hasHypercalls { lines.append("\tmemset(memslots, 0, sizeof(memslots));") }
        for vm in writer.vms {
            let name = StepWriter.variable(vm, VMName(test.vm))
            lines.append("\tdiscard_vm(\(name));")
        }
        lines.append("\thas_machine = false;")
        return lines
    }
}
