// SPDX-License-Identifier: MIT
/// What the argument parser does not know: examples, exit statuses and the environment.
enum ManualTexts {
    struct Example {
        let what: String
        let command: String
    }

    /// - Parameter command: a subcommand, or nil for the overview.
    static func examples(_ command: String?) -> [Example] {
        func example(_ what: String, _ command: String) -> Example {
            Example(what: what, command: "minivmm " + command)
        }
        return switch command {
        case nil:
            [
                example("What can this machine do?", "probe"),
                example("A first guest, on the software kernel:", "run hello --backend soft"),
                example(
                    "A conversion that has to wait, as a picture:",
                    "run pinned --backend soft --report pinned.html"),
                example(
                    "A rule of the interface, as a test:",
                    "litmus --backend soft litmus/all-or-nothing.litmus"
                ),
            ]
        case "probe":
            [
                example("The kernels here, and which one `auto` takes:", "probe"),
                example("One of them, for a program:", "probe --backend soft --json"),
            ]
        case "list":
            [
                example("The payloads, and what to look for in each:", "list --verbose"),
                example("The faults that `--plant` knows:", "list --planted"),
            ]
        case "run":
            [
                example(
                    "A payload, with every exit and call told on standard error:",
                    "run implicit --backend soft --trace -"),
                example(
                    "The same, with a reason below each event:",
                    "run hello --backend soft --trace - --explain"
                ),
                example(
                    "A trace for later, and its picture now:",
                    "run smp --backend soft --trace smp.jsonl --svg smp.svg"),
                example(
                    "Where private and shared are two places and contents are lost, zero what is converted by touch:",
                    "run forget --backend soft --contents zero"),
            ]
        case "demo":
            [example("How a page in use is waited for:", "demo --backend soft --act 5")]
        case "tour":
            [
                example("The chapters:", "tour --list"),
                example("One of them, printed:", "tour --backend soft --chapter 1 --no-interactive"),
            ]
        case "report":
            [
                example("A trace:", "run smp --backend soft --quiet --trace smp.jsonl"),
                example(
                    "Its page, its drawing, and a file for Perfetto:",
                    "report smp.jsonl --html smp.html --svg smp.svg --chrome smp.json"),
                example("Its events as text:", "report smp.jsonl --text"),
            ]
        case "litmus":
            [
                example(
                    "All tests of a directory, as the kernel's own tests report:",
                    "litmus --backend soft --format ktap litmus"),
                example(
                    "Where two versions of the interface answer differently:",
                    "litmus --backend soft --abi rfc-v2 --abi 7.4 litmus/retry-after-eagain.litmus"),
                example(
                    "A kernel that breaks a rule, and the test that notices (status 1):",
                    "litmus --backend soft --plant busy-names-highest litmus/row-11-lowest-page.litmus"),
                example(
                    "Which planted faults a test catches (status 1: one alone misses some):",
                    "litmus --faults litmus/all-or-nothing.litmus"),
            ]
        case "explore":
            [
                example("Does the software kernel keep to itself?", "explore --backend soft --tests 200"),
                example(
                    "A kernel that breaks a rule: found, made small, kept for `minivmm litmus` (status 1):",
                    "explore --backend soft --plant busy-names-highest --output found"),
                example(
                    "What version 5 of the interface did when two acted at once, as a picture (status 1):",
                    "explore --backend soft --abi rfc-v5 --depth 0 --tests 0 --seed 5 --report race.html"),
                example(
                    "As much as five seconds hold, of other tests; a night is 28800:",
                    "explore --backend soft --tests 1000000000 --seed 7 --timeout 5"),
            ]
        case "explain":
            [
                example("A hazard:", "explain A6"),
                example(
                    "An errno, with the arguments of the call:",
                    "explain errno EAGAIN offset=0x2000 size=0x4000 error_offset=0x3000 attributes=private"),
                example("A memory fault:", "explain exit 39 flags=8 gpa=0x1000"),
            ]
        case "bench":
            [example("Five rounds, and status 1 if a bound is broken:", "bench --rounds 5 --check")]
        default: []
        }
    }

    static func exitStatuses(_ command: String?) -> [(status: String, meaning: String)] {
        let usage = ("64", "An option or an argument was not understood. Nothing was done.")
        let noKernel = ("125", "No such kernel, or the host failed.")
        let signal = ("128+N", "It was ended by signal N.")
        return switch command {
        case nil:
            [
                ("0 to 123", "The guest's own, for `run`; 0 is success everywhere else."),
                ("1", "A check failed."),
                ("3", "`explore` ended early and had found nothing."),
                ("4", "Everything was skipped, because this kernel cannot."),
                ("64", "Usage; a file that is no litmus test."),
                ("124", "The time limit was reached."),
                ("125", "The monitor or the host failed: no such guest, a bad image, no kernel."),
                ("126", "The guest crashed, or faulted without end."), signal,
            ]
        case "run":
            [
                ("0 to 123", "The guest's own."),
                ("4", "This kernel cannot run it: no two aliases, or contents that are not preserved."),
                usage,
                ("124", "The guest still ran after `--timeout` seconds."),
                ("125", "The monitor or the host failed: no such guest, a bad image, no kernel."),
                ("126", "The guest crashed, or faulted without end."), signal,
            ]
        case "demo", "tour":
            [
                ("0", "All went as told."), ("1", "Something went otherwise than told."),
                ("4", "This kernel can show none of it."), usage, noKernel, signal,
            ]
        case "litmus":
            [
                ("0", "All tests passed, or some were skipped."),
                ("1", "A test failed, or with `--faults` a fault was caught by none."),
                ("4", "Every test was skipped."),
                ("64", "Usage, or a file that is no test. Nothing was run."),
                ("125", "No such kernel, the host failed, or output cannot be written."), signal,
            ]
        case "explore":
            [
                ("0", "Everything was tried, and nothing was found."), ("1", "Something was found."),
                ("3", "It ended early, by `--timeout` or a signal, and had found nothing."),
                ("4", "The kernel can do nothing that tests are made of."), usage,
                ("125", "No such kernel, the host failed, or output cannot be written."), signal,
            ]
        case "bench":
            [
                ("0", "Done; with `--check`, within every bound."),
                ("1", "With `--check`, a bound was broken."),
                usage, noKernel, signal,
            ]
        case "report":
            [
                ("0", "Drawn."), ("64", "Usage, or a file that is no trace."),
                ("125", "A picture cannot be written."), signal,
            ]
        case "probe":
            [("0", "There is a kernel to run on."), ("4", "There is none."), usage, signal]
        default: [("0", "Done."), usage, signal]
        }
    }

    static let environment = [
        ("NO_COLOR", "If set and not empty, nothing is coloured. An output that is no terminal never is."),
        ("TERM", "`dumb` means no colour."),
        (
            "LC_ALL, LC_CTYPE, LANG",
            "Drawing characters are used where the first of them that is not empty says UTF-8."
        ),
        ("TMPDIR", "Where traces lie while a picture is made, /tmp by default. They have no name there."),
    ]
}
