// SPDX-License-Identifier: MIT
import Backends
import Export
import Litmus
import MiniVMM

/// The text of a finding for a mail to the kernel's maintainers: plain text of 72 columns, which is Markdown, too.
struct FindingReport {
    let finding: Finding
    /// The repetition on a backend that has run no other test.
    let alone: Repetition
    let backend: BackendIdentity
    let facts: KernelFacts
    /// The options that choose the backend again.
    let options: String
    /// Why there is no reproducer.c; nil if there is one.
    let noProgram: ExportProblem?

    var text: String {
        var lines = MailText.title(test.name)
        lines += MailText.section("Summary") + wrapped(happens)
        lines += MailText.section("Expected behaviour") + rules
        lines += MailText.section("Observed behaviour") + seen
        lines += MailText.section("Kernel") + kernel
        lines += MailText.section("How to reproduce it") + reproduction
        lines += MailText.section("Ruled out") + ruledOut
        lines += MailText.section("The test") + MailText.indented(finding.source.test.text)
        return lines.joined(separator: "\n") + "\n"
    }

    private var test: LitmusTest { finding.source.test }
    private var isSimulated: Bool { backend.kind == .simulated }
    private var isParallel: Bool {
        test.body.contains { entry in if case .parallel = entry { true } else { false } }
    }
    private var kernelName: String {
        isSimulated ? "\(backend), which is simulated" : backend.host.isEmpty ? backend.name : backend.host
    }

    /// The kernel's answer, without the number of runs.
    private var outcome: String {
        guard case .outcome(let results, _, _, _) = finding.failure.deviation else {
            return finding.failure.seen
        }
        return results.map { "\($0.name) = \($0.outcome)" }.joined(separator: ", ")
    }

    // MARK: parts

    private func wrapped(_ text: String) -> [String] { MailText.wrapped(text) }

    private var happens: String {
        let steps = finding.what
        return "On \(kernelName), `\(steps)` ends with: \(outcome). "
            + "The interface of Linux 7.4 permits only: \(finding.model)."
    }

    private var rules: [String] {
        var rules: [InterfaceRule] = []
        if finding.failure.isOfBlock {
            rules = InterfaceRule.concurrent
        } else if let index = finding.failure.step, test.steps.indices.contains(index) {
            let step = test.steps[index]
            let outcomes: [StepOutcome] =
                if case .anyOf(let outcomes) = step.expectation { outcomes } else { [.ok] }
            for outcome in outcomes {
                for rule in InterfaceRule.rules(for: step, outcome, in: test) where !rules.contains(rule) {
                    rules.append(rule)
                }
            }
        }
        guard !rules.isEmpty else { return wrapped("No kernel may do that, whatever the test.") }
        return wrapped("From docs/ABI.md of MiniVMM, which describes the interface of Linux 7.4:") + [""]
            + rules.flatMap {
                MailText.wrapped("\"\($0.text.replacing(" | ", with: ": "))\" (\($0.place))", indent: "> ")
                    + [""]
            }.dropLast()
    }

    private var seen: [String] {
        let what = finding.failure.isOfBlock ? "The outcome" : "The end of the step"
        var lines = wrapped(
            "\(what) in \(finding.seen) of \(finding.runs) runs of the test below: \(outcome).")
        if let preemption = test.schedules.first?.preemption {
            lines += wrapped(
                "It is a race. It shows when \(preemption.intruder) preempts \(preemption.victim) \(preemption.delay) ns "
                    + "after \(preemption.victim) began; under QEMU's instruction counting that is an instruction."
            )
            if !finding.functions.isEmpty {
                lines += wrapped(
                    "\(preemption.victim) then stands in \(finding.functions.prefix(6).joined(separator: " < "))."
                )
            }
        }
        if let injected = finding.failure.injected {
            lines += wrapped("A failed allocation precedes it: \(injected).")
        }
        if !(finding.failure.pages + finding.kernelLines).isEmpty { lines.append("") }
        lines += finding.failure.pages.map { "    \(ByteText.visible($0))" }
        lines += finding.kernelLines.map { "    \(ByteText.visible($0))" }
        return lines
    }

    private var kernel: [String] {
        guard !isSimulated else {
            return wrapped(
                "None: \(backend) is a model of the interface in user space. This report is no evidence about a kernel."
            )
        }
        var lines = facts.lines
        if backend.kind == .adapter {
            lines += wrapped("\(backend.name) makes the conversion call from older calls of this kernel.")
        }
        return lines
    }

    private var reproduction: [String] {
        var lines: [String] = []
        if let noProgram {
            lines += wrapped("There is no C program: \(noProgram).")
        } else {
            lines += MailText.building
            lines += wrapped(
                "It prints KTAP, and exits with 1 if the kernel differs, 0 if not, and 4 if the kernel lacks what the test needs."
            )
        }
        let failing = finding.failure.injected.map { "--fail-at \($0.point) " } ?? ""
        lines += [""] + wrapped("With MiniVMM:")
        lines += ["", "    minivmm litmus \(options) \(failing)test.litmus", ""]
        if let needed = alone.needed {
            lines += wrapped(
                needed == 1 ? "One run shows it." : "About \(needed) runs show it with a probability of 99 %."
            )
        }
        lines += wrapped(
            test.schedules.isEmpty
                ? "trace.jsonl and picture.svg are one run of it."
                : "picture.svg shows the outcome of every schedule with one preemption, and trace.jsonl is one run at random times."
        )
        return lines
    }

    private var ruledOut: [String] {
        var points = [
            "An earlier test: on a new machine, after no other test, it showed in \(alone.seen) of \(alone.runs) runs.",
            "A step without a part in it: the test was shrunk from \(finding.steps) to \(test.steps.count) steps, "
                + "and does not show it without any of them.",
        ]
        points.append(
            isParallel
                ? "An order of the steps in which it would be right: no interleaving of the model of Linux 7.4 has this outcome."
                : "A wrong expectation: every expectation of the test is the answer of a model of Linux 7.4.")
        if let injected = finding.failure.injected {
            points.append("A run without a failed allocation: without \(injected.point) the test passes.")
        }
        return points.flatMap { MailText.wrapped($0, indent: "  ", first: "* ") }
    }
}
