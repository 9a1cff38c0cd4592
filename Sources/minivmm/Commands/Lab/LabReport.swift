// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM

/// The report of a finding of lab/explore, for a mail to the kernel's maintainers.
struct LabReport {
    /// A kernel that reported a bug of its own or died, or one that differs from the model.
    enum Finding {
        case crash(CrashFinding)
        case difference(LitmusTest)
    }

    let finding: Finding
    /// The text of the test.
    let test: String
    /// Whether the test enters a guest.
    let entersGuest: Bool
    let facts: KernelFacts
    /// lab/boot with the options of the boots.
    let boot: String
    /// How the test was made as small as it is, in one line; empty for nothing to tell.
    let shrinking: String
    /// Why there is no reproducer.c; nil if there is one.
    let noProgram: String?

    var text: String {
        var lines = MailText.title(headline)
        lines += MailText.section("Summary") + MailText.wrapped(summary)
        lines += MailText.section("Expected behaviour") + MailText.wrapped(expected)
        lines += MailText.section("Observed behaviour") + observed
        lines += MailText.section("Kernel") + facts.lines
        lines += MailText.section("How to reproduce it") + reproduction
        if !ruledOut.isEmpty {
            lines +=
                MailText.section("Ruled out")
                + ruledOut.flatMap { MailText.wrapped($0, indent: "  ", first: "* ") }
        }
        lines += MailText.section("The test") + MailText.indented(test)
        return lines.joined(separator: "\n") + "\n"
    }

    private var headline: String {
        switch finding {
        case .crash(let finding): finding.crash.headline
        case .difference(let test): test.name
        }
    }

    private var summary: String {
        switch finding {
        case .crash(let finding):
            "\(facts.release) \(finding.crash.happening) while the test below runs. The test makes system calls on guest_memfd"
                + "\(entersGuest ? " and enters the guest of a VM" : ""), as root."
        case .difference:
            "\(facts.release) does not answer the test below as the interface of Linux 7.4 does."
        }
    }

    private var expected: String {
        switch finding {
        case .crash:
            "No system call and no guest may make a kernel report a bug of its own, hang or restart, whatever the answer. The "
                + "expectations of the test are the answers of a model of Linux 7.4."
        case .difference:
            "Every expectation of the test is the answer of a model of Linux 7.4 (docs/ABI.md of MiniVMM)."
        }
    }

    private var observed: [String] {
        switch finding {
        case .crash(let finding):
            var lines = MailText.wrapped(finding.origin + ":") + [""]
            lines += finding.crash.lines.flatMap(MailText.indented)
            if finding.crash.lines.isEmpty { lines += MailText.wrapped("The kernel printed nothing.") }
            return lines
        case .difference(let test):
            return MailText.wrapped("The test fails: \(test.name).")
        }
    }

    private var reproduction: [String] {
        var lines: [String] = []
        if let noProgram {
            lines += MailText.wrapped("There is no C program: \(noProgram).") + [""]
        } else {
            lines += MailText.building
            switch finding {
            case .crash:
                lines +=
                    MailText.wrapped("Its exit status says nothing: see the kernel's log (dmesg).") + [""]
            case .difference:
                lines += MailText.wrapped("It exits with 1 if the kernel differs, and with 0 if not.") + [""]
            }
        }
        lines += MailText.wrapped("With MiniVMM, in a virtual machine of its lab:")
        lines += ["", "    \(boot) --file test.litmus -- minivmm litmus test.litmus", ""]
        lines += MailText.wrapped("On a machine that runs the kernel, as root:")
        return lines + ["", "    minivmm litmus test.litmus"]
    }

    private var ruledOut: [String] {
        switch finding {
        case .crash(let finding) where finding.showsAlone:
            [
                "An earlier test: the test shows it by itself, in a fresh boot.",
                "A step without a part in it"
                    + (shrinking.isEmpty ? "." : ": the test was shrunk \(shrinking)."),
            ]
        case .crash, .difference: []
        }
    }
}

extension KernelCrash {
    /// The predicate of a sentence about the kernel.
    fileprivate var happening: String {
        switch self {
        case .report: "reports a bug of its own"
        case .hang: "hangs"
        case .reset: "restarts without a report"
        case .gaveUp(let status, _): "lets minivmm end with status \(status)"
        }
    }
}
