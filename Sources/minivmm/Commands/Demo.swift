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
        abstract: "A tour in six acts: real guests convert their memory, and you see it happen.")

    @OptionGroup var backendOptions: BackendOptions
    @Option(help: ArgumentHelp("Only this act, 1 to 6.", valueName: "number"))
    var act: Int?
    @OptionGroup(title: "Pictures, one for each machine") var pictures: PictureOptions
    @Flag(help: "Wait for Enter between the acts.")
    var step = false

    func validate() throws {
        if let act, !(1...6).contains(act) { throw ValidationError("--act \(act): there are acts 1 to 6.") }
    }

    private struct Act: Sendable {
        let title: String
        let text: String
        /// How much of the trace is told.
        var sentences = 8
        var tellsBoot = false
        let play: @Sendable (Stage, Narrator) throws -> Outcome?
    }

    func run() throws {
        let terminal = Terminal.output
        terminal.print(terminal.styled("MiniVMM: memory that changes hands", .bold))
        terminal.paragraph("Kernel: \(try backendOptions.open(aliases: .one, preservation: true).line).")
        PageStrip(terminal: terminal).printLegend()
        let gallery = Gallery(pictures)
        var failures = 0
        var skipped = 0
        var played = 0
        let start = monotonicNanoseconds()
        for (index, scene) in Self.acts.enumerated() where act == nil || act == index + 1 {
            terminal.print()
            terminal.print(terminal.styled("\(index + 1)  \(scene.title)", .bold))
            terminal.paragraph(scene.text, indent: 3)
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
            if step, index < Self.acts.count - 1, act == nil {
                terminal.print(terminal.styled("   Enter goes on", .dim))
                guard readLine() != nil else { break }
            }
        }
        terminal.print()
        let milliseconds = (monotonicNanoseconds() - start) / 1_000_000
        let summary =
            (failures > 0 ? "\(failures) not as told" : skipped == played ? "none shown" : "all as told")
            + (skipped == 0 || skipped == played ? "" : ", \(skipped) not shown")
        terminal.print(
            terminal.styled(
                "\(played) \(played == 1 ? "act" : "acts"), \(summary)", failures == 0 ? .good : .bad)
                + " (\(milliseconds) ms). "
                + "Go on: minivmm list, minivmm run implicit --trace -, minivmm probe")
        let files = try gallery.draw(pictures)
        if !files.isEmpty { terminal.paragraph("Pictures: \(files.joined(separator: ", ")).") }
        if failures > 0 { throw Status.checkFailed }
        if skipped == played { throw Status.skipped }
    }

    private static let acts: [Act] = [
        Act(
            title: "Boot in place",
            text:
                "All of RAM starts shared. The monitor writes the image through its mapping and then converts every page "
                + "to private, contents preserved: the image is in place, and no copy of it is left outside.",
            tellsBoot: true
        ) { try $0.play("hello", $1) },
        Act(
            title: "Explicit: the guest asks",
            text:
                "A guest that knows what it is names a range and says what it shall be. It shares pages to talk to the "
                + "host, and takes them back.",
            sentences: 9
        ) { try $0.play("explicit", $1) },
        Act(
            title: "Implicit: the guest just touches",
            text:
                "The same RAM has a private alias and a shared one. An access through the alias that does "
                + "not match the page leaves the guest; the monitor converts the page, and the same access completes.",
            sentences: 6
        ) { try $0.play("implicit", $1) },
        Act(
            title: "The host's view",
            text:
                "The host reads and writes through its mmap. A private page is out of its reach: EFAULT, and nobody dies "
                + "of SIGBUS.",
            sentences: 20, tellsBoot: true
        ) { try $0.hostView($1) },
        Act(
            title: "In use: EAGAIN, retry, release",
            text:
                "A page that somebody holds cannot become private. The kernel names it in error_offset; the monitor asks "
                + "known holders to let go, waits for the others, and gives up when its policy says so, with nothing lost.",
            sentences: 12
        ) { try $0.play("pinned", $1) },
        Act(
            title: "Contents: preserve, zero, refused",
            text:
                "What becomes of the bytes is chosen on every request, and honoured or refused before anything changes.",
            sentences: 4
        ) { try $0.contents($1) },
    ]
}
