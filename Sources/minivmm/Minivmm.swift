import ArgumentParser
import MiniVMM

@main
struct Minivmm: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "minivmm",
        abstract:
            "Boots tiny x86-64 guests on guest_memfd and moves their memory between private and shared.",
        discussion: """
            Exit status: the guest's own (0 to 123) for `run`; 1 a check failed; 4 everything was skipped because \
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
        do {
            var command = try parseAsRoot()
            // The bench starts this program anew, to measure it.
            if !(command is Bench) { try? Confinement.enter() }
            try command.run()
        } catch {
            exit(withError: error)
        }
    }
}

/// Exit statuses of the command that are not the guest's.
enum Status {
    static let checkFailed = ExitCode(1)
    static let skipped = ExitCode(4)
    static let usage = ExitCode(64)
    static let monitorFailed = ExitCode(125)
}
