// SPDX-License-Identifier: MIT
/// The parts of the manual that the argument parser does not have: examples, exit statuses and environment variables.
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
                example("Boot a first guest on SoftKVM:", "run hello --backend soft"),
                example(
                    "Draw a conversion that has to wait for a page in use:",
                    "run pinned --backend soft --report pinned.html"),
                example(
                    "Test a rule of the interface:",
                    "litmus --backend soft litmus/all-or-nothing.litmus"
                ),
            ]
        case "probe":
            [
                example("What each backend can do here, and which one `auto` picks:", "probe"),
                example("One backend, as JSON:", "probe soft --json"),
            ]
        case "list":
            [
                example("The built-in guests, and what each demonstrates:", "list --verbose"),
                example("The faults that `--plant` accepts:", "list faults"),
            ]
        case "run":
            [
                example(
                    "Run a built-in guest and trace every exit and call on standard error:",
                    "run implicit --backend soft --trace -"),
                example(
                    "The same with an explanation below each event:",
                    "run hello --backend soft --trace - --explain"
                ),
                example(
                    "Save the trace, and draw it:",
                    "run smp --backend soft --trace smp.jsonl --svg smp.svg"),
                example(
                    "Zero the contents of pages that are converted on a memory fault:",
                    "run forget --backend soft --contents zero"),
            ]
        case "demo":
            [example("Only the act about pages in use:", "demo 5 --backend soft")]
        case "tour":
            [
                example("The titles of the chapters:", "tour --list"),
                example("Print one chapter:", "tour 1 --backend soft --no-interactive"),
            ]
        case "report":
            [
                example("Record a trace:", "run smp --backend soft --quiet --trace smp.jsonl"),
                example(
                    "Draw it as a page, as an SVG and for Perfetto:",
                    "report smp.jsonl --html smp.html --svg smp.svg --chrome smp.json"),
                example("Print its events as text:", "report smp.jsonl --text"),
            ]
        case "litmus":
            [
                example(
                    "Run all tests of a directory and report as KTAP, like the kernel's own tests:",
                    "litmus --backend soft --format ktap litmus"),
                example(
                    "Print each step and its outcome, and the results as JUnit XML for a CI system:",
                    "litmus --backend soft --verbose --format junit litmus/all-or-nothing.litmus"),
                example(
                    "List where two versions of the interface differ:",
                    "litmus --backend soft --abi rfc-v2 --abi 7.4 litmus/retry-after-eagain.litmus"),
                example(
                    "Break a rule of the interface and see the test fail (status 1):",
                    "litmus --backend soft --plant busy-names-highest litmus/row-11-lowest-page.litmus"),
                example(
                    "List which planted faults a test catches (status 1 if it misses some):",
                    "litmus --faults litmus/all-or-nothing.litmus"),
            ]
        case "explore":
            [
                example("Compare SoftKVM with the model:", "explore --backend soft --tests 200"),
                example(
                    "Find a planted fault and save the shrunk test for `minivmm litmus` (status 1):",
                    "explore --backend soft --plant busy-names-highest --output found"),
                example(
                    "Find and draw a race in posted version 5 of the interface (status 1):",
                    "explore --backend soft --abi rfc-v5 --depth 0 --tests 0 --seed 5 --report race.html"),
                example(
                    "Run random tests for five seconds; a night is 28800:",
                    "explore --backend soft --tests 1000000000 --seed 7 --timeout 5"),
            ]
        case "exercise":
            [
                example(
                    "Write the form of an exercise for a student:",
                    "exercise 1 --student ada --out answer.txt"),
                example("Check it after it was filled in:", "exercise --check answer.txt"),
                example("Print a table of a class:", "exercise --grade answer.txt"),
            ]
        case "export":
            [
                example(
                    "Write a test as a C program; compile it with gcc -pthread:",
                    "export litmus/all-or-nothing.litmus"),
                example("Write all tests, one file each:", "export litmus --output programs"),
            ]
        case "explain":
            [
                example("Explain a hazard:", "explain A6"),
                example(
                    "Explain an errno, given the arguments of the call:",
                    "explain errno EAGAIN offset=0x2000 size=0x4000 error_offset=0x3000 attributes=private"),
                example("Explain a memory fault:", "explain exit 39 flags=8 gpa=0x1000"),
            ]
        case "bench":
            [
                example("Measure five rounds; status 1 if a bound is exceeded:", "bench --rounds 5 --check"),
                example(
                    "In the lab (lab/boot --icount), count the instructions of conversions:",
                    "bench --instructions"),
            ]
        default: []
        }
    }

    static func exitStatuses(_ command: String?) -> [(status: String, meaning: String)] {
        let usage = ("64", "An option or argument is invalid. Nothing was done.")
        let noBackend = ("125", "The backend is unavailable, or the host failed.")
        let signal = ("128+N", "Ended by signal N.")
        return switch command {
        case nil:
            [
                ("0 to 123", "The guest's own status, for `run`; for other commands 0 is success."),
                ("1", "A check failed."),
                ("3", "`explore` ended early and had found nothing."),
                ("4", "Everything was skipped, because the backend does not support it."),
                ("64", "Usage error, or a file that is not a litmus test."),
                ("124", "The time limit was reached."),
                ("125", "The monitor or the host failed: no such guest, a bad image, no backend."),
                ("126", "The guest crashed, or faulted without end."),
                ("127", "Every vCPU executed HLT, and nothing can wake it."), signal,
            ]
        case "run":
            [
                ("0 to 123", "The guest's own status."),
                (
                    "4",
                    "The backend cannot run the guest: it lacks two aliases or does not preserve contents."
                ),
                usage,
                ("124", "The guest was still running after `--timeout` seconds."),
                ("125", "The monitor or the host failed: no such guest, a bad image, no backend."),
                ("126", "The guest crashed, or faulted without end."),
                ("127", "Every vCPU executed HLT, and nothing can wake it."), signal,
            ]
        case "demo", "tour":
            [
                ("0", "Everything behaved as described."), ("1", "Something did not behave as described."),
                ("4", "The backend can show none of it."), usage, noBackend, signal,
            ]
        case "litmus":
            [
                ("0", "All tests passed, or some were skipped."),
                ("1", "A test failed, or with `--faults` no test caught a fault."),
                ("4", "Every test was skipped."),
                ("64", "Usage error, or a file that is not a litmus test. Nothing was run."),
                ("125", "The backend is unavailable, the host failed, or an output cannot be written."),
                signal,
            ]
        case "exercise":
            [
                (
                    "0",
                    "The form was written; with `--check`, the answer is right; with `--grade`, the table has every file."
                ),
                (
                    "1",
                    "With `--check`, the answer is wrong or not filled in; with `--grade`, a file needs a look."
                ),
                ("3", "With `--check`, the model stopped at a limit, and the answer is undecided."),
                ("64", "Usage error, or a file that is not an answer or no roster."),
                ("125", "The form cannot be written."), signal,
            ]
        case "export":
            [
                ("0", "A program was written. Each test that cannot become one is named on standard error."),
                ("4", "No test could become a program."), usage,
                ("125", "An output exists already, or cannot be written."),
            ]
        case "explore":
            [
                ("0", "Everything was tried and no difference was found."), ("1", "A difference was found."),
                ("3", "The search ended early, by `--timeout` or a signal, and had found nothing."),
                ("4", "The backend supports none of the steps."), usage,
                ("125", "The backend is unavailable, the host failed, or an output cannot be written."),
                signal,
            ]
        case "bench":
            [
                ("0", "Done; with `--check`, within every bound."),
                ("1", "With `--check`, a bound was exceeded."),
                (
                    "4",
                    "With `--instructions`, the clock does not count instructions, or the kernel does not convert."
                ),
                usage, noBackend, signal,
            ]
        case "report":
            [
                ("0", "Drawn."), ("64", "Usage error, or a file that is not a trace."),
                ("125", "A picture cannot be written."), signal,
            ]
        case "probe":
            [("0", "A backend can run guests."), ("4", "No backend can run guests."), usage, signal]
        default: [("0", "Done."), usage, signal]
        }
    }

    static let environment = [
        ("NO_COLOR", "If set and not empty, output is not coloured. Colour is only used on a terminal."),
        ("TERM", "`dumb` disables colour."),
        (
            "LC_ALL, LC_CTYPE, LANG",
            "Drawing characters are used if the first of these that is not empty names UTF-8."
        ),
        ("TMPDIR", "Directory for temporary files, which are unnamed. (default: /tmp)"),
    ]
}
