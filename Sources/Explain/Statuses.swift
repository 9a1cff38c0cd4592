// SPDX-License-Identifier: MIT
/// Exit statuses of minivmm.
enum Statuses {
    private static func text(_ name: String, _ title: String, _ means: String, _ advice: String)
        -> Explanation
    {
        Explanation(.status, name, title, [(.means, means), (.advice, advice)])
    }

    static let names = ["0", "1", "3", "4", "64", "124", "125", "126", "127", "130"]

    /// Whether a bare number is more likely a status than anything else.
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
                name, title + ": success",
                "run: the guest wrote 0 to port 0xf4, or all its vCPUs halted. demo, litmus, explore and bench: everything that was "
                    + "checked passed, though some of it may have been skipped.", "Nothing.")
        case 1:
            return text(
                name, title + ": a check failed",
                "demo, litmus, explore and bench: a result was wrong. run: the guest's own status.",
                "Read the line that names the check. With run --trace - you see what the guest did.")
        case 3:
            return text(
                name, title + ": the search ended early",
                "explore ended by --timeout or a signal before it had tried everything, and found no difference. run: the guest's own "
                    + "status.",
                "Read the line `not tried`. Give it more time (--timeout) or less to do (--depth, --tests, --parallel)."
            )
        case 4:
            return text(
                name, title + ": skipped, because the backend does not support it",
                "The backend lacks the VM type, two aliases, or the preservation of contents. bench --instructions: the clock does not "
                    + "count instructions. run: may also be the guest's own status.",
                "minivmm probe lists what this machine supports; --backend auto or soft finds a backend that supports it."
            )
        case 64:
            return text(
                name, title + ": usage",
                "An option, an argument or a litmus file is not valid. Nothing was run.",
                "minivmm help lists the options; litmus/README.md describes the language.")
        case 124:
            return text(
                name, title + ": the time limit was reached",
                "The guest still ran after --timeout seconds: it is in an endless loop, or waits for an event that never comes.",
                "Give it more time (--timeout), or find out where it is (--trace -).")
        case 125:
            return text(
                name, title + ": the monitor or the host failed",
                "There is no such guest, the image cannot be booted, no backend works, or a call failed. The guest is not the cause.",
                "Read the lines below the error: attempted, answer, means, try.")
        case 126:
            return text(
                name, title + ": the guest crashed or looped",
                "An exception without a handler, an access to an address without RAM or device, or endless memory faults (hazard A34).",
                "Run it with --trace - --explain and look at the last events before the end.")
        case 127:
            return text(
                name, title + ": the guest halted",
                "Every vCPU executed HLT. Without an interrupt controller nothing can wake them, and the guest wrote no status.",
                "A guest ends with a status by writing a byte to port 0xf4.")
        case 129...192:
            let signal = status - 128
            let known = [
                1: "SIGHUP", 2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE",
                15: "SIGTERM",
            ]
            return text(
                name, title + ": ended by signal \(signal)" + (known[Int(signal)].map { " (\($0))" } ?? ""),
                "128 + the number of the signal. A user or a program sent the signal, or the process made an invalid access.",
                [1, 2, 15].contains(signal)
                    ? "Nothing: minivmm was asked to stop."
                    : "If the signal was not sent on purpose, report it as a bug."
            )
        case 2...123:
            return text(
                name, title + ": the guest's own",
                "run returns the status that the guest wrote to port 0xf4. Its meaning is up to the guest.",
                "minivmm list --verbose describes what the built-in guests return.")
        default:
            return text(
                name, title + ": not a status of minivmm",
                "minivmm uses the statuses above 123 itself, and this is not one of them.",
                "Check whether another program returned it.")
        }
    }
}
