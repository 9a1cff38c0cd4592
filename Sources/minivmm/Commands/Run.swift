// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Debugger
import Explain
import GuestPayloads
import Litmus
import MiniVMM
import Report
import SoftKVM
import SystemPackage

struct Run: ParsableCommand {
    /// With the name of the command above, because the parser of a command without one first parses the arguments twice as a
    /// request for a completion script. That takes a quarter of the instructions of `run hello`.
    static let configuration = CommandConfiguration(
        commandName: "run",
        _superCommandName: "minivmm",
        abstract: "Boots a guest and returns its exit status.",
        discussion: """
            The guest's console goes to standard output, everything else to standard error. Built-in guests (see \
            `minivmm list`) come with their own machine settings; options override them.
            """)

    @Argument(
        help:
            "A built-in guest, or a file: a static ELF executable, a Multiboot or PVH kernel, a boot sector, or a flat image. The format is recognised.",
        completion: .guest)
    var guest: String
    @OptionGroup var machine: MachineOptions
    @OptionGroup var backendOptions: BackendOptions
    @OptionGroup(title: "Images") var imageOptions: ImageOptionGroup

    @Option(
        help: ArgumentHelp(
            "Time limit in seconds of real time, after which the guest is ended with status 124; 0 for none. (default: 60; with --step and --gdb none)",
            valueName: "seconds"))
    var timeout: Seconds?
    @Option(
        help:
            "Exit status for a byte v at port 0xf4: minivmm ends with v, at most 123; qemu ends with (v << 1) | 1, as QEMU's isa-debug-exit does. (default: minivmm)"
    )
    var exitCode = ExitCodeRule.minivmm
    @Option(
        help: ArgumentHelp(
            "Write the trace to a file, or to standard error if it is `-`. (default: no trace)",
            valueName: "file"),
        completion: .file())
    var trace: String?
    @Option(
        help:
            "Format of the trace: text, or json for JSON lines. (default: json if the file is named .json or .jsonl, else text)"
    )
    var traceFormat: TraceFormat?
    @Flag(help: "Explain each event of a text trace on the line below it.")
    var explain = false
    @OptionGroup(title: "Pictures") var pictures: PictureOptions
    @Flag(help: "Stop at each exit and prompt for a command; ? lists the commands.")
    var step = false
    @Option(
        help: ArgumentHelp(
            "Wait before the first instruction for GDB or LLDB to connect to this Unix socket, or to this TCP port of 127.0.0.1. (default: no debugger)",
            valueName: "socket|port"))
    var gdb: GDBAddress?
    @Flag(help: "Print the result as one JSON object on standard output; it contains the guest's console.")
    var json = false
    @Flag(name: .shortAndLong, help: "Print only the guest's console, and errors.")
    var quiet = false

    enum TraceFormat: String, ExpressibleByArgument, CaseIterable { case text, json }

    /// `--exit-code`.
    enum ExitCodeRule: String, ExpressibleByArgument, CaseIterable {
        case minivmm, qemu

        func status(_ outcome: Outcome) -> Int32 {
            guard self == .qemu, case .exited(let value) = outcome else { return outcome.exitStatus }
            return (Int32(value) << 1 | 1) & 0xff
        }

        func description(_ outcome: Outcome) -> String {
            guard self == .qemu, case .exited(let value) = outcome else { return outcome.description }
            return "the guest wrote \(value) to port 0xf4, which is exit status \(status(outcome)) in QEMU"
        }
    }

    func validate() throws {
        try backendOptions.oneVersion()
        if explain, trace == nil {
            throw ValidationError("--explain needs a trace: add --trace - or --trace FILE.")
        }
        if explain, let trace, format(of: trace) == .json {
            throw ValidationError("--explain needs a text trace: add --trace-format text.")
        }
        if gdb != nil, step {
            throw ValidationError("--gdb and --step both stop the guest: leave one of them out.")
        }
    }

    /// Opens what this process cannot open after it has dropped its privileges: libraries, and the debugger's socket. Only
    /// `--step` shows instructions, so no other run pays for the disassembler.
    func openBeforehand() throws {
        if step { _ = Disassembler.installed }
        try gdb?.listen()
    }

    func run() throws {
        defer { GDBAddress.close() }
        let payload = Catalogue.named(guest)
        try pictures.checkPlaces()
        // No time limit for somebody who thinks.
        let limit =
            timeout?.duration ?? (step || gdb != nil ? .zero : payload?.timeLimit ?? Self.defaultTimeout)
        let interrupts = try? SignalDescriptor()
        let cancellation = Cancellation(timeout: limit == .zero ? nil : limit, interrupts: interrupts)
        var configuration = payload?.machineConfiguration ?? MachineConfiguration()
        try machine.apply(to: &configuration)
        if gdb != nil { try GDBAddress.check(configuration) }
        let (image, symbols) = try bootImage(payload, ramSize: configuration.ramSize, cancellation)
        // A guest from a file does not declare its needs. If there is a choice of backend, take one that preserves contents.
        let chosen = try openBackend(
            BackendNeeds(
                aliases: configuration.aliases,
                preservation: configuration.needsPreservation
                    || payload == nil && configuration.contents == .preserve,
                vmType: configuration.vmType, soft: backendOptions.soft))
        configuration.hypercallInstruction = chosen.hypercallInstruction
        let diagnostics = Terminal.diagnostics
        if !quiet && !json {
            if payload == nil {
                diagnostics.hanging(diagnostics.styled("image    ", .dim), image.summary, indent: 9)
            }
            diagnostics.hanging(diagnostics.styled("backend  ", .dim), chosen.line, indent: 9)
            if let notice = configuration.vmType.modelNotice {
                diagnostics.hanging(
                    "         ", "vm \(VMName(configuration.vmType).rawValue): \(notice)", indent: 9)
            }
        }
        // --step reads its commands from standard input.
        let input = step ? nil : GuestInput()
        let console = Console(json ? nil : .standardOutput, keeps: json, input: input)
        let recorder = pictures.isWanted ? TraceRecorder() : nil
        let (trace, traceFile) = try openTrace(chosen.backend, recorder, configuration.vmType)
        let start = monotonicNanoseconds()
        var statistics = RunStatistics()
        var outcome: Outcome
        var place: CrashPlace?
        do throws(MachineError) {
            let debugger = try gdb?.debugger()
            let machine = try Machine(
                backend: chosen.backend, configuration: configuration, image: image, console: console,
                trace: trace, observer: step ? Stepper(image: image) : debugger,
                cancellation: cancellation)
            if machine.layout.imageStaysShared, !quiet, !json {
                diagnostics.hanging(
                    diagnostics.styled("boot    ", .dim),
                    "the image stays shared, because this backend does not preserve contents in a conversion",
                    indent: 8)
            }
            if let debugger { try gdb?.start(debugger, machine) }
            input?.attach(machine)
            outcome = machine.run(timeout: cancellation.remaining, interrupts: interrupts)
            input?.end()
            debugger?.finish(outcome)
            if case .timeLimit = outcome { outcome = .timeLimit(limit) }
            statistics = machine.statistics
            place = CrashPlace(outcome, machine, symbols)
        } catch {
            outcome = .failed(error)
            if case .cancelled = error, let reason = cancellation.outcome { outcome = reason }
            trace?.record(.stopped(outcome.description, status: outcome.exitStatus), by: .monitor)
            trace?.flush()
        }
        let elapsed = monotonicNanoseconds() &- start
        // Nothing below polls for signals, so they end the process again.
        interrupts?.unblock()
        if let errno = traceFile?.close() {
            outcome = .failed(
                .backend(call: "write", errno: errno, attempted: "the trace", hint: "it is incomplete"))
        }
        // EPIPE is not reported: a reader that closed its end does not want the rest.
        if let errno = console.failure, errno != .brokenPipe {
            outcome = .failed(
                .backend(
                    call: "write", errno: errno, attempted: "the guest's console, standard output",
                    hint: "it is incomplete"))
        }
        report(outcome, crash: place, statistics, elapsed, chosen, console, payload == nil ? image : nil)
        // Also after a failure: that is the run worth looking at.
        if let recorder { try pictures.draw(recorder.recorded(), title: guest) }
        throw ExitCode(exitCode.status(outcome))
    }

    static let defaultTimeout = Duration.seconds(60)

    private func bootImage(
        _ payload: Payload?, ramSize: UInt64, _ cancellation: Cancellation
    ) throws -> (BootImage, SymbolTable?) {
        do {
            if let payload {
                if let option = imageOptions.first { throw GuestFileError.optionForFiles(option) }
                return (try .flat(payload.image), nil)
            }
            if let bytes = try readFile(ramSize: ramSize, cancellation),
                let options = try imageOptions.read(ramSize: ramSize, cancellation)
            {
                let image = try BootImage.parse(bytes, options).prepared(options, ramSize: ramSize)
                return (image, SymbolTable(file: bytes))
            }
        } catch let error as GuestFileError {
            throw fail("\(guest): \(error)", error.diagnosis)
        } catch let error as ImageError {
            throw fail("\(guest): \(error)", error.diagnosis)
        }
        let outcome = cancellation.outcome ?? .failed(.cancelled)
        throw fail("\(guest): \(outcome) while reading the file", nil, outcome)
    }

    private func openBackend(_ needs: BackendNeeds) throws -> ChosenBackend {
        do throws(BackendError) {
            return try backendOptions.backend.open(needs)
        } catch {
            throw fail("--backend \(backendOptions.backend.rawValue): \(error.text)", error.diagnosis)
        }
    }

    /// Reports a failure before the machine exists. With --json it prints the same object as for any other ending.
    private func fail(
        _ message: String, _ diagnosis: Diagnosis?, _ outcome: Outcome? = nil
    ) -> any Error {
        let status = outcome.map { ExitCode($0.exitStatus) } ?? Status.monitorFailed
        if json {
            let members: [(String, JSON)] = [
                ("schema", .string("minivmm.run/1")), ("guest", .string(guest)), ("backend", .null),
                ("host", .null), ("reason", .null), ("image", .null),
                ("outcome", .string(outcome?.kind ?? "failed")),
                ("status", .integer(Int64(status.rawValue))), ("description", .string(message)),
                ("elapsed_ns", .number(0)), ("statistics", RunStatistics().json), ("console", .string("")),
            ]
            Terminal.output.print(JSON.object(members + diagnosis.json).text)
        }
        return stop(message, status, diagnosis)
    }

    /// - Returns: nil if cancelled.
    private func readFile(
        ramSize: UInt64, _ cancellation: Cancellation
    ) throws(GuestFileError) -> [UInt8]? {
        do {
            let most = min(max(ramSize, 1 << 20) * 4, 1 << 30)
            let bytes = try InputFile.read(FilePath(argument: guest), most: most, cancellation)
            guard UInt64(bytes?.count ?? 0) <= most else { throw GuestFileError.tooLarge }
            if let bytes, case let kind = FileKind(guest, bytes), !kind.isBootable {
                throw GuestFileError.notBootable(kind, path: guest)
            }
            return bytes
        } catch let error as GuestFileError {
            throw error
        } catch {
            switch error as? Errno ?? .ioError {
            case .noSuchFileOrDirectory where !guest.contains("/"):
                throw .noSuchGuest(nearest: Catalogue.nearest(to: guest))
            case let errno: throw .unreadable(errno, path: guest)
            }
        }
    }

    private func openTrace(
        _ backend: any Backend, _ recorder: TraceRecorder?, _ type: VMType
    ) throws -> (Trace?, TraceFile?) {
        let recording: [any TraceSink] = recorder.map { [$0] } ?? []
        guard let path = trace else {
            return (recorder.map { _ in Trace(backend: backend, sinks: recording, vm: type) }, nil)
        }
        let file: FileDescriptor
        if path == "-" {
            file = .standardError
        } else {
            do {
                file = try FileDescriptor.open(
                    FilePath(argument: path), .writeOnly, options: [.create, .truncate, .closeOnExec],
                    permissions: [.ownerReadWrite, .groupRead, .otherRead])
            } catch {
                throw fail(
                    "\(path): the trace cannot be written: \(error)", .file("the trace", error))
            }
        }
        let (sink, failure) = sink(file, path)
        return (
            Trace(backend: backend, sinks: [sink] + recording, vm: type),
            TraceFile(file: path == "-" ? nil : file, failure: failure)
        )
    }

    private struct TraceFile {
        /// Nil for standard error.
        let file: FileDescriptor?
        let failure: () -> Errno?

        /// - Returns: the first error in writing the trace.
        func close() -> Errno? {
            let failure = failure()
            // Some file systems report a full disk only here.
            do { try file?.close() } catch { return failure ?? (error as? Errno) ?? .ioError }
            return failure
        }
    }

    private func format(of path: String) -> TraceFormat {
        traceFormat ?? (path.hasSuffix(".json") || path.hasSuffix(".jsonl") ? .json : .text)
    }

    /// The sink for events, and a function that returns its first write error.
    private func sink(_ file: FileDescriptor, _ path: String) -> (any TraceSink, () -> Errno?) {
        guard format(of: path) == .text else {
            let sink = JSONLinesTrace(file)
            return (sink, { sink.failure })
        }
        let terminal = Terminal(file, name: "the trace, \(path == "-" ? "standard error" : path),")
        guard explain || terminal.isTerminal else {
            let sink = TextTrace(file)
            return (sink, { sink.failure })
        }
        // Terminal records write errors; they are reported at the end.
        return (ExplainedTrace(terminal, explains: explain), { nil })
    }

    private func report(
        _ outcome: Outcome, crash: CrashPlace?, _ statistics: RunStatistics, _ elapsed: UInt64,
        _ chosen: ChosenBackend, _ console: Console, _ image: BootImage?
    ) {
        if json {
            let members: [(String, JSON)] =
                [
                    ("schema", .string("minivmm.run/1")), ("guest", .string(guest)),
                    ("backend", .string(chosen.backend.identity.name)),
                    ("host", .string(chosen.backend.identity.host)), ("reason", .string(chosen.reasonText)),
                    ("image", image?.json ?? .null),
                    ("outcome", .string(outcome.kind)),
                    ("status", .integer(Int64(exitCode.status(outcome)))),
                    ("description", .string(exitCode.description(outcome))), ("elapsed_ns", .number(elapsed)),
                    ("statistics", statistics.json), ("console", .string(console.text)),
                ] + (crash?.json ?? []) + outcome.diagnosis.json
            Terminal.output.print(JSON.object(members).text)
            return
        }
        let terminal = Terminal.diagnostics
        let failed = outcome.exitStatus != 0
        let description = exitCode.description(outcome)
        // With --quiet only endings other than an exit status are reported.
        if quiet, case .exited = outcome { return }
        guard failed || !quiet else { return }
        let milliseconds = Double(elapsed / 1000) / 1000
        terminal.hanging(
            terminal.styled("end     ", .dim),
            terminal.styled(description, failed ? .bad : .good) + " (\(milliseconds) ms)", indent: 8)
        if let crash { crash.print(on: terminal) }
        if let diagnosis = outcome.diagnosis { terminal.print(diagnosis, indent: 8) }
        if let image, let note = image.note(on: outcome, chosen.backend.identity.kind) {
            terminal.hanging("        note:      ", note, indent: 19)
        }
        if !quiet, statistics.exits > 0 {
            terminal.hanging(terminal.styled("counts  ", .dim), statistics.line, indent: 8)
        }
    }
}

extension RunStatistics {
    var json: JSON {
        .object([
            ("exits", .number(exits)), ("port_exits", .number(portExits)),
            ("hypercalls", .number(hypercalls)),
            ("memory_faults", .number(memoryFaults)), ("race_faults", .number(raceFaults)),
            ("conversions", .number(conversions)), ("failed_conversions", .number(failedConversions)),
            ("busy_answers", .number(busyAnswers)),
        ])
    }

    var line: String {
        func count(_ number: UInt64, _ noun: String) -> String {
            "\(number) \(noun)" + (number == 1 ? "" : "s")
        }
        return "\(count(exits, "exit")): \(portExits) port I/O, \(count(memoryFaults, "memory fault")); "
            + "\(count(hypercalls, "hypercall")); \(count(conversions, "conversion")), "
            + "\(failedConversions) refused or failed, \(busyAnswers) EAGAIN"
    }
}

extension Payload {
    /// The time limit of a guest that never ends by itself.
    var timeLimit: Duration? { ending == .timeLimit ? .seconds(1) : nil }
}
