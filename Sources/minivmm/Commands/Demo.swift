// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain
import GuestPayloads
import MiniVMM
import SoftKVM
import SystemPackage

struct Demo: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Shows in six acts how real guests convert their memory.")

    @OptionGroup var backendOptions: BackendOptions
    @Argument(help: ArgumentHelp("Only this act, 1 to 6. (default: all)", valueName: "act"))
    var number: Int?
    @Option(help: ArgumentHelp("The same as the argument.", valueName: "number"))
    var act: Int?
    @OptionGroup(title: "Pictures, one for each machine") var pictures: PictureOptions
    @Flag(
        inversion: .prefixedNo,
        help: "Wait for Enter before and after each act. (default: if input and output are a terminal)")
    var step: Bool?

    func validate() throws {
        for act in [act, number].compactMap({ $0 }) where !Self.acts.indices.contains(act - 1) {
            throw ValidationError("there is no act \(act); the acts are 1 to \(Self.acts.count).")
        }
        if act != nil, number != nil { throw ValidationError("the act is given twice.") }
        try backendOptions.oneVersion()
    }

    private struct Act: Sendable {
        let title: String
        let text: String
        /// The most sentences that are printed from the trace.
        var sentences = 8
        var tellsBoot = false
        let play: @Sendable (Stage, Narrator) throws -> Outcome?
    }

    func run() throws {
        try pictures.checkPlaces()
        let terminal = Terminal.output
        terminal.paragraph("MiniVMM: converting guest memory between private and shared", style: .bold)
        terminal.paragraph("Backend: \(try backendOptions.open(aliases: .one, preservation: true).line).")
        PageStrip(terminal: terminal).printLegend()
        let gallery = Gallery(pictures)
        var failures = 0
        var skipped = 0
        var played = 0
        let start = monotonicNanoseconds()
        let only = number ?? act
        var pauses = step ?? Terminal.isInteractive
        let isTimed = !pauses
        for (index, scene) in Self.acts.enumerated() where only == nil || only == index + 1 {
            terminal.print()
            terminal.print(terminal.styled("\(index + 1)  \(scene.title)", .bold))
            terminal.paragraph(scene.text, indent: 3)
            if pauses { pauses = try prompt("Enter: run this act") }
            let narrator = Narrator(
                terminal, limit: scene.sentences, tellsBoot: scene.tellsBoot, gallery: gallery)
            let outcome = try scene.play(Stage(options: backendOptions), narrator)
            narrator.finish()
            played += 1
            if case .interrupted(let signal)? = outcome {
                terminal.print("   " + terminal.styled("interrupted by signal \(signal)", .bad))
                throw ExitCode(128 + signal)
            }
            if case .failed(.unsupported(let lack, let backend))? = outcome {
                skipped += 1
                terminal.paragraph("Not shown: \(backend) \(lack).", indent: 3)
                terminal.print(lack.diagnosis, indent: 3)
            } else if let outcome, outcome.exitStatus != 0 {
                failures += 1
                terminal.print("   " + terminal.styled("this act failed: \(outcome)", .bad))
                if let diagnosis = outcome.diagnosis { terminal.print(diagnosis, indent: 3) }
            }
            if pauses, only == nil, index < Self.acts.count - 1 { pauses = try prompt("Enter: next act") }
        }
        terminal.print()
        let milliseconds = (monotonicNanoseconds() - start) / 1_000_000
        let summary: String =
            if failures > 0 {
                "\(failures) of \(played) acts did not behave as described"
            } else if skipped == played {
                "No act could be shown on this backend"
            } else {
                (played == 1
                    ? "The act" : played == Self.acts.count ? "All \(played) acts" : "\(played) acts")
                    + " behaved as described" + (skipped == 0 ? "" : ", \(skipped) could not be shown")
            }
        terminal.print(
            terminal.styled(summary, failures == 0 ? .good : .bad)
                + (isTimed ? " (\(milliseconds) ms)." : "."))
        let program = Arguments.program
        terminal.print("Next, try:")
        for words in ["tour", "run implicit --trace -", "probe", "litmus litmus"] {
            terminal.command("  ", "\(program) \(words)")
        }
        let files = try gallery.draw(pictures)
        if !files.isEmpty { terminal.paragraph("Pictures: \(files.joined(separator: ", ")).") }
        if failures > 0 { throw Status.checkFailed }
        if skipped == played { throw Status.skipped }
    }

    /// Prints a prompt and waits for a line.
    ///
    /// - Returns: false if the rest is to run without pauses.
    /// - Throws: status 0 for `q` and at the end of the input.
    private func prompt(_ text: String) throws -> Bool {
        Terminal.output.paragraph("\(text); c: run all without pauses; q: quit >", indent: 3, style: .dim)
        guard let line = readLine(), !line.lowercased().hasPrefix("q") else { throw ExitCode.success }
        return !line.lowercased().hasPrefix("c")
    }

    private static let acts: [Act] = [
        Act(
            title: "Boot in place",
            text:
                "All of RAM starts shared. The monitor writes the image through its mapping and then converts every page "
                + "to private, contents preserved. The image stays where it is, and no copy of it is left outside.",
            tellsBoot: true
        ) { try $0.play("hello", $1) },
        Act(
            title: "Explicit: the guest asks",
            text:
                "A guest that is aware of private memory names a range and the state it wants. It shares pages to "
                + "communicate with the host, and makes them private again afterwards.",
            sentences: 9
        ) { try $0.play("explicit", $1) },
        Act(
            title: "Implicit: the guest just accesses memory",
            text:
                "The same RAM has a private alias and a shared alias. An access through the alias that does not match "
                + "the page causes a memory fault. The monitor converts the page, and the same access completes.",
            sentences: 6
        ) { try $0.play("implicit", $1) },
        Act(
            title: "The host's view",
            text:
                "The host reads and writes through its mmap. A private page is inaccessible: the system call returns "
                + "EFAULT, and the monitor does not die of SIGBUS.",
            sentences: 20, tellsBoot: true
        ) { try $0.hostView($1) },
        Act(
            title: "In use: EAGAIN, retry, release",
            text:
                "A page that the host holds a reference to cannot become private. The kernel names it in error_offset. "
                + "The monitor asks known holders to release it, waits for unknown ones, and gives up when its retry "
                + "policy says so. No data is lost.",
            sentences: 12
        ) { try $0.play("pinned", $1) },
        Act(
            title: "Contents: preserve, zero, refused",
            text:
                "Each request chooses what happens to the contents. The request is honoured, or refused before anything "
                + "changes.",
            sentences: 4
        ) { try $0.contents($1) },
    ]
}
