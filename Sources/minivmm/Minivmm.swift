// SPDX-License-Identifier: MIT
import ArgumentParser
import CKVMShim
import Glibc
import GuestPayloads
import MiniVMM

@main
struct Minivmm: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "minivmm",
        abstract:
            "Boots tiny x86-64 guests on guest_memfd and converts their memory between private and shared.",
        discussion: """
            Exit status: the guest's own (0 to 123) for `run`; 1 a check failed; 3 a search ended early and found \
            nothing; 4 everything was skipped because it is unsupported here; 64 usage error; 124 time limit; 125 the \
            monitor or the host failed; 126 the guest crashed or faulted without end; 127 it halted; 128 + N ended by signal N.
            """,
        version: version,
        subcommands: [
            Probe.self, List.self, Run.self, Demo.self, TourCommand.self, ExerciseCommand.self,
            ReportCommand.self,
            LitmusCommand.self, ExploreCommand.self, ExportCommand.self,
            ExplainCommand.self, Bench.self, ManualCommand.self, LabExplore.self, LabReports.self,
        ])

    /// Without a subcommand: where to start.
    func run() {
        let terminal = Terminal.output
        let program = Arguments.program
        terminal.paragraph(Self.configuration.abstract)
        terminal.print()
        terminal.print("Start with one of these:")
        let first = [
            ("demo", "six short acts of conversion"),
            ("run hello", "boot a built-in guest"),
            ("tour", "an introduction in ten chapters"),
        ]
        let width = first.map(\.0.count).max() ?? 0
        for (words, what) in first {
            let command = "\(program) \(words)"
            let label = "  " + terminal.styled(command, .bold)
            let gap = String(repeating: " ", count: width - words.count + 2)
            terminal.hanging(label + gap, what, indent: 6, used: 2 + command.count + gap.count)
        }
        terminal.print()
        terminal.paragraph("\(program) --help lists all commands; \(program) help COMMAND has its options.")
    }

    /// Every command except `bench` and `lab-explore` drops the privileges that a monitor does not need before it does anything, because a
    /// guest may be hostile on any backend.
    static func main() {
        guard ckvm_open_standard_descriptors() == 0 else { Glibc.exit(Status.monitorFailed.rawValue) }
        CMonitor.runIfAsked()
        do {
            var command = try parsed(Arguments.all)
            try (command as? Run)?.openBeforehand()
            // bench executes this program again, to measure it, and lab-explore executes lab/boot.
            if !(command is Bench || command is LabExplore) { try? Confinement.enter() }
            try command.run()
            end(.success)
        } catch let status as ExitCode {
            // It has no message, and the parser's search for one takes a million instructions.
            end(status)
        } catch {
            let status = exitCode(for: error)
            let message = fullMessage(for: error)
            if !message.isEmpty {
                // Help and completion scripts are our own text. An error message repeats what was typed.
                if status.isSuccess {
                    Terminal.output.put(Array((message + "\n").utf8))
                } else {
                    Terminal.diagnostics.print(message)
                }
            }
            end(status)
        }
    }

    /// Parses the arguments of `run` with that command alone first: selecting it among all commands describes its options
    /// twice more, which takes a sixth of the time of `run hello`. Errors come from the parser of all commands.
    ///
    /// - Throws: status 64 for a word that is no command, with the most similar one; else the parser's errors.
    private static func parsed(_ arguments: [String]) throws -> any ParsableCommand {
        if arguments.first == Run.configuration.commandName ?? "run",
            let command = try? Run.parseAsRoot(Array(arguments.dropFirst())) as? Run
        {
            return command
        }
        if let word = arguments.first, !word.hasPrefix("-"), word != "help", !commandNames.contains(word) {
            throw unknown(word)
        }
        return try parseAsRoot(arguments)
    }

    private static var commandNames: [String] { configuration.subcommands.map { $0._commandName } }

    private static func unknown(_ word: String) -> any Error {
        let program = Arguments.program
        if Catalogue.named(word) != nil {
            return stop("\(word) is a built-in guest. To boot it: \(program) run \(word)", Status.usage)
        }
        if word.contains("/") || word.contains("."), let kind = FileKind(named: word) {
            return stop("\(word) is \(kind.name). \(kind.advice(word))", Status.usage)
        }
        let shown = configuration.subcommands.filter { $0.configuration.shouldDisplay }
            .map { $0._commandName }
        return stop(
            "there is no command \(word)\(NearWords.suggestion(for: word, among: shown))"
                + (NearWords.nearest(to: word, among: shown).isEmpty ? "; \(program) --help lists them" : ""),
            Status.usage)
    }

    /// Ends the process, with status 125 if an output could not be written.
    private static func end(_ status: ExitCode) -> Never {
        guard let message = OutputFailures.message else { Glibc.exit(status.rawValue) }
        _ = stop(message, Status.monitorFailed)
        Glibc.exit(Status.monitorFailed.rawValue)
    }
}

/// Exit statuses that the command itself chooses, unlike a guest's.
enum Status {
    static let checkFailed = ExitCode(1)
    static let endedEarly = ExitCode(3)
    static let skipped = ExitCode(4)
    static let usage = ExitCode(64)
    static let monitorFailed = ExitCode(125)
}
