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

    @OptionGroup var kernel: KernelOptions
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
        let play: @Sendable (Demo, Narrator) throws -> Outcome?
    }

    func run() throws {
        let terminal = Terminal.output
        terminal.print(terminal.styled("MiniVMM: memory that changes hands", .bold))
        terminal.paragraph("Kernel: \(try kernel.open(doors: .one, preservation: true).line).")
        terminal.print(PageStrip(terminal: terminal).legend)
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
            let outcome = try scene.play(self, narrator)
            narrator.finish()
            played += 1
            if case .failed(.unsupported(let why))? = outcome {
                skipped += 1
                terminal.paragraph("Not shown: \(why).", indent: 3)
                terminal.print(MachineError.unsupported(why).diagnosis, indent: 3)
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
                "Two doors lead to the same RAM, a private alias and a shared one. An access through the door that does "
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

    /// The tour is about contents that stay: where there is a choice, on a kernel that preserves them.
    private func open(_ doors: Doors) throws -> ChosenKernel {
        let chosen = try kernel.open(doors: doors, preservation: true)
        say(chosen)
        return chosen
    }

    /// Each act names the kernel that answers in it.
    private func say(_ chosen: ChosenKernel) {
        Terminal.output.paragraph("on \(chosen.kernel.identity)", indent: 3, style: .dim)
    }

    /// - Parameters:
    ///   - aloud: whether what the guest prints is part of the story.
    ///   - preserving: whether the act needs preserved contents, even if the guest does not.
    private func machine(
        _ payload: Payload, _ chosen: ChosenKernel, _ narrator: Narrator, aloud: Bool = true,
        preserving: Bool = false
    ) throws(MachineError) -> Machine {
        var configuration = payload.machineConfiguration
        if preserving { configuration.needsPreservation = true }
        configuration.hypercallInstruction = chosen.hypercallInstruction
        var onLine: (@Sendable (String) -> Void)?
        if aloud { onLine = { narrator.console($0) } }
        let image: BootImage
        do throws(ImageError) { image = try .flat(payload.image) } catch { throw .image(error) }
        return try Machine(
            kernel: chosen.kernel, configuration: configuration, image: image,
            console: Console(nil, onLine: onLine),
            trace: Trace(
                kernel: chosen.kernel, sinks: [narrator] + (narrator.gallery?.sinks(payload.name) ?? [])))
    }

    private func play(_ name: String, _ narrator: Narrator) throws -> Outcome? {
        guard let payload = Catalogue.named(name) else { return nil }
        return play(payload, try open(payload.doors), narrator)
    }

    private func play(_ payload: Payload, _ chosen: ChosenKernel, _ narrator: Narrator) -> Outcome {
        do throws(MachineError) {
            let interrupts = try? SignalDescriptor()
            return try machine(payload, chosen, narrator).run(
                timeout: Run.defaultTimeout, interrupts: interrupts)
        } catch {
            return .failed(error)
        }
    }

    private func hostView(_ narrator: Narrator) throws -> Outcome? {
        guard let payload = Catalogue.named("hello") else { return nil }
        let chosen = try open(.one)
        let terminal = Terminal.output
        var explained = false
        func tell(_ what: String, _ body: () throws(HostAccessError) -> String) {
            do throws(HostAccessError) {
                terminal.print("  host   \(what): " + terminal.styled(try body(), .good))
            } catch {
                terminal.print(
                    "  host   \(what): " + terminal.styled(error.errno.name, .bad)
                        + (error.state == .private ? ", it is private" : ""))
                // Once is enough: the others are like it.
                if !explained { terminal.print(error.diagnosis, indent: 9) }
                explained = true
            }
        }
        do throws(MachineError) {
            let machine = try machine(payload, chosen, narrator, aloud: false, preserving: true)
            let gpa = machine.layout.free.lowerBound
            let message = "hi, guest"
            func see() {
                tell("reads \(hex(gpa))") { () throws(HostAccessError) in
                    String(
                        decoding: try machine.memory.read(gpa: gpa, count: message.utf8.count), as: UTF8.self)
                }
            }
            tell("reads the image") { () throws(HostAccessError) in
                _ = try machine.memory.read(gpa: machine.layout.entry, count: 16)
                return "it can"
            }
            guard let page = PageRange(start: gpa, size: pageSize) else { return nil }
            do throws(ConversionError) {
                try machine.converter.convert(
                    ConversionRequest(range: page, to: .shared, contents: .preserve), by: .host)
                tell("writes \(hex(gpa))") { () throws(HostAccessError) in
                    try machine.memory.write(gpa: gpa, Array(message.utf8))
                    return message
                }
                see()
                try machine.converter.convert(
                    ConversionRequest(range: page, to: .private, contents: .preserve), by: .host)
                see()
                try machine.converter.convert(
                    ConversionRequest(range: page, to: .shared, contents: .preserve), by: .host)
                see()
            } catch {
                throw .conversion(error)
            }
            return machine.run(timeout: Run.defaultTimeout)
        } catch {
            return .failed(error)
        }
    }

    private func contents(_ narrator: Narrator) throws -> Outcome? {
        guard let payload = Catalogue.named("contents") else { return nil }
        let outcome = play(payload, try open(payload.doors), narrator)
        narrator.finish()
        guard outcome.exitStatus == 0 else { return outcome }
        let terminal = Terminal.output
        terminal.paragraph(
            "The same guest on a software kernel that is the second posted version of the interface, which promised "
                + "nothing about contents: what cannot be preserved is refused.", indent: 3)
        var configuration = kernel.soft
        configuration.abi = .rfcV2
        let soft = SoftKVM(configuration)
        if case .missing(let message) = soft.engineStatus {
            terminal.paragraph("Not shown: \(message).", indent: 3)
            return outcome
        }
        let chosen = ChosenKernel(kernel: soft, name: .soft, reason: "promises nothing about contents")
        say(chosen)
        return play(payload, chosen, Narrator(terminal, limit: 4, gallery: narrator.gallery))
    }
}
