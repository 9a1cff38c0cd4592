// SPDX-License-Identifier: MIT
/// Exit statuses of minivmm.
enum Statuses {
    private static func text(_ name: String, _ title: String, _ means: String, _ advice: String)
        -> Explanation
    {
        Explanation(.status, name, title, [(.means, means), (.advice, advice)])
    }

    static let names = ["0", "1", "3", "4", "64", "124", "125", "126", "130"]

    /// Numbers that are first of all statuses.
    static func isCommon(_ word: String) -> Bool {
        guard let status = Words.number(word) else { return false }
        return names.contains("\(status)") || (129...143).contains(status)
    }

    /// - Parameter word: 0 to 255.
    static func explanation(_ word: String) -> Explanation? {
        guard let status = Words.number(word), status <= 255 else { return nil }
        let name = "\(status)"
        let title = "exit status \(status)"
        switch status {
        case 0:
            return text(
                name, title + ": all went well",
                "For run the guest said so itself, by writing 0 to port 0xf4, or all its vCPUs halted; for the checks everything passed "
                    + "or some of it was skipped.", "Nothing.")
        case 1:
            return text(
                name, title + ": a check failed",
                "For run it is the guest's own status. For demo, litmus and bench a check did not come out as it must.",
                "Read the line that says which; with run --trace - you see what the guest did.")
        case 3:
            return text(
                name, title + ": the search ended early",
                "explore was ended by --timeout or a signal before everything was tried, and had found nothing. For run it may also be the guest's own.",
                "Read the line `not tried`, and give it more time (--timeout) or less to do (--depth, --tests, --parallel)."
            )
        case 4:
            return text(
                name, title + ": skipped, because this kernel cannot",
                "No such VM type, no two aliases, or contents that are not preserved. For run it may also be the guest's own.",
                "minivmm probe says what this machine can; --backend auto or soft looks for a kernel that can."
            )
        case 64:
            return text(
                name, title + ": usage",
                "An option, an argument or a litmus file was not understood. Nothing was run.",
                "minivmm help has the options, litmus/README.md the language.")
        case 124:
            return text(
                name, title + ": the time limit was reached",
                "The guest still ran after --timeout seconds: an endless loop, or a wait for something that does not come.",
                "Give it more time (--timeout), or look where it stands (--trace -).")
        case 125:
            return text(
                name, title + ": the monitor or the host failed",
                "No such guest, an image that cannot be booted, no kernel, or a call that failed. The guest is not to blame.",
                "Read the lines below the error: attempted, answer, means, try.")
        case 126:
            return text(
                name, title + ": the guest crashed or looped",
                "A triple fault, an access where there is nothing, or memory faults without end (hazard A34).",
                "Run it with --trace - --explain and look at the last events before the end.")
        case 129...192:
            let signal = status - 128
            let known = [
                1: "SIGHUP", 2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE",
                15: "SIGTERM",
            ]
            return text(
                name, title + ": ended by signal \(signal)" + (known[Int(signal)].map { " (\($0))" } ?? ""),
                "128 + the signal's number. Somebody sent it, or the process did something that cannot be.",
                [1, 2, 15].contains(signal)
                    ? "Nothing: somebody asked it to stop." : "If nobody sent it, it is a bug worth a report."
            )
        case 2...123:
            return text(
                name, title + ": the guest's own",
                "run returns what the guest wrote to port 0xf4. minivmm gives it no meaning.",
                "minivmm list --verbose says what the payloads return.")
        default:
            return text(
                name, title + ": not one of minivmm's",
                "Statuses above 123 are the monitor's own, and it has none of this number.",
                "See whether another program returned it.")
        }
    }
}
