// SPDX-License-Identifier: MIT
import ArgumentParser
import CKVMShim
import Glibc
import MiniVMM

@main
struct Minivmm: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "minivmm",
        abstract:
            "Boots tiny x86-64 guests on guest_memfd and moves their memory between private and shared.",
        discussion: """
            Exit status: the guest's own (0 to 123) for `run`; 1 a check failed; 3 a search ended \
            early and found nothing; 4 everything was skipped because \
            this kernel cannot; 64 usage; 124 time limit; 125 the monitor or the host failed; 126 the guest \
            crashed or looped; 128 + N ended by signal N.
            """,
        version: version,
        subcommands: [
            Probe.self, List.self, Run.self, Demo.self, TourCommand.self, ReportCommand.self,
            LitmusCommand.self, ExploreCommand.self,
            ExplainCommand.self, Bench.self, ManualCommand.self,
        ])

    /// Every command but one gives up what no monitor needs before it does anything: guests may be hostile, on any kernel.
    static func main() {
        guard ckvm_open_standard_descriptors() == 0 else { Glibc.exit(Status.monitorFailed.rawValue) }
        CMonitor.runIfAsked()
        do {
            var command = try parsed(Arguments.all)
            (command as? Run)?.openLibraries()
            // The bench starts this program anew, to measure it.
            if !(command is Bench) { try? Confinement.enter() }
            try command.run()
            end(.success)
        } catch {
            let status = exitCode(for: error)
            let message = fullMessage(for: error)
            if !message.isEmpty {
                // Help and completions are ours, an error repeats what was typed.
                if status.isSuccess {
                    Terminal.output.put(Array((message + "\n").utf8))
                } else {
                    Terminal.diagnostics.print(message)
                }
            }
            end(status)
        }
    }

    /// The arguments of `run` are parsed by that command alone. To look for it among all commands describes its options twice
    /// more, which takes a sixth of the time of `run hello`. What is wrong is said by the parser of all.
    private static func parsed(_ arguments: [String]) throws -> any ParsableCommand {
        if arguments.first == Run.configuration.commandName ?? "run",
            let command = try? Run.parseAsRoot(Array(arguments.dropFirst())) as? Run
        {
            return command
        }
        return try parseAsRoot(arguments)
    }

    /// Ends the process, with status 125 where something could not be written.
    private static func end(_ status: ExitCode) -> Never {
        guard let message = OutputFailures.message else { Glibc.exit(status.rawValue) }
        _ = stop(message, Status.monitorFailed)
        Glibc.exit(Status.monitorFailed.rawValue)
    }
}

/// Exit statuses of the command that are not the guest's.
enum Status {
    static let checkFailed = ExitCode(1)
    static let endedEarly = ExitCode(3)
    static let skipped = ExitCode(4)
    static let usage = ExitCode(64)
    static let monitorFailed = ExitCode(125)
}
