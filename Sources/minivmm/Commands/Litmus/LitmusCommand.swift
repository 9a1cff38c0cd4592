// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Explain
import Litmus
import MiniVMM
import SoftKVM
import SystemPackage

extension ContentDesign: ExpressibleByArgument {}

struct LitmusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "litmus",
        abstract: "Runs litmus tests: what a kernel must answer, step by step.",
        discussion: """
            litmus/README.md is the manual of the language. Of a directory the files in it whose names end in .litmus \
            are run, in the order of their names. Nothing is run unless every file can be read.

            Tests with parallel blocks are gone through in all interleavings on the software kernel, and run --runs times \
            on others; what is seen there is held against what the software kernel can come to.

            With --report and its like one run of each test is drawn, one that fails if any does; of several tests each has \
            its number in its files' names.

            With --abi twice or more it prints where those versions of the interface answer differently. With --faults \
            it prints which faults, planted in the software kernel, the tests catch. With --table FILE is what --format \
            json printed on some kernel, and the tests' hazards are printed as a table, a column each.

            At its time limit or on Ctrl-C, a test with parallel blocks finishes the run under way, and the outcomes seen so \
            far are judged: a forbidden one is a failure, and a required one may still be missing. One single run that does \
            not end is a failure.

            Exit status: 0 all passed, or some were skipped; 1 a test failed, or a fault was caught by none; 4 every test was \
            skipped; 64 usage, or a file that is no test; 125 the host failed, by its limits for instance; 128 + N interrupted by signal N.
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable { case ktap, json, text }

    @Argument(help: "Files, and directories of them.", completion: .file(extensions: ["litmus"]))
    var paths: [String]
    @OptionGroup var backendOptions: BackendOptions
    @Option(help: "How the results are printed.")
    var format = Format.text
    @Option(
        help: ArgumentHelp("Write the results as JSON to a file as well.", valueName: "file"),
        completion: .file())
    var save: String?
    @Option(help: "Runs of a test with parallel blocks, where not all interleavings are gone through.")
    var runs = 1000
    @Option(
        help: ArgumentHelp(
            "Seconds for one test with all its runs. A test with parallel blocks then ends with what it has seen.",
            valueName: "seconds"))
    var timeout = Seconds(.seconds(60))
    @OptionGroup var pictures: PictureOptions
    @Option(help: "Where the software kernel decides what becomes of contents, for tests that are about it.")
    var design: ContentDesign?
    @Flag(help: "Plant each fault in the software kernel, and print which tests catch it.")
    var faults = false
    @Flag(help: "Print a table of hazards from reports in JSON.")
    var table = false

    /// A test, and what came of it.
    struct Item {
        let path: String
        let source: Source
        var report = Report(verdict: .skipped("not run"))
        var verdict: Verdict { report.verdict }

        /// The file's name without its ending.
        var shortName: String {
            let name = ByteText.visible(ByteText.lastComponent(path))
            return name.hasSuffix(LitmusFiles.ending) ? String(name.dropLast(LitmusFiles.ending.count)) : name
        }
    }

    func validate() throws {
        if !(1...100_000_000).contains(runs) {
            throw ValidationError("--runs \(runs): from 1 to 100000000 are possible.")
        }
        if timeout.duration == .zero { throw ValidationError("--timeout: more than 0 seconds are needed.") }
        if design != nil, backendOptions.backend != .soft {
            throw ValidationError("--design is for the software kernel: add --backend soft.")
        }
        if faults, !backendOptions.plant.isEmpty || !backendOptions.abi.isEmpty {
            throw ValidationError("--faults plants each fault by itself, in Linux 7.4's interface.")
        }
        if table, faults { throw ValidationError("--table and --faults: one at a time.") }
    }

    func run() throws {
        if table { return try LitmusTables.hazards(paths) }
        var items = try read()
        if backendOptions.abi.count > 1 {
            return try LitmusTables.compare(items, backendOptions.abi, backendOptions.soft, format)
        }
        if faults { return try LitmusTables.faults(items, format) }
        var soft = backendOptions.soft
        soft.contentDesign = design
        let chosen = try backendOptions.open(aliases: .one, preservation: false, soft: soft)
        try chosen.requireAttributes()
        let printer = LitmusPrinter(format: format, chosen: chosen)
        let interrupts = try? SignalDescriptor()
        printer.begin(items.count)
        var hostFailure: HostFailure?
        for index in items.indices {
            if hostFailure != nil {
                items[index].report = Report(verdict: .skipped("not run: the host failed before"))
            } else if let signal = interrupts?.pending() {
                items[index].report = Report(verdict: .skipped("not run: interrupted by signal \(signal)"))
            } else {
                try run(&items[index], index, of: items.count, chosen, printer, interrupts)
            }
            if case .hostFailed(let failure) = items[index].verdict { hostFailure = failure }
            printer.ran(items[index], number: index + 1)
        }
        printer.end(items)
        if let save { try TextFile.write(printer.json(items) + "\n", to: save, what: "the results") }
        if let hostFailure {
            throw stop(hostFailure.description, Status.monitorFailed, hostFailure.diagnosis)
        }
        if let signal = interrupts?.pending() { throw ExitCode(128 + signal) }
        if items.contains(where: \.verdict.isFailure) { throw Status.checkFailed }
        if items.allSatisfy(\.verdict.isSkip) { throw Status.skipped }
    }

    private func run(
        _ item: inout Item, _ index: Int, of count: Int, _ chosen: ChosenBackend, _ printer: LitmusPrinter,
        _ interrupts: SignalDescriptor?
    ) throws {
        let name = item.shortName
        let recorder = pictures.isWanted ? LitmusRecorder() : nil
        let options = Runner.Options(
            runs: runs, seed: backendOptions.seed, timeLimit: timeout.duration, recorder: recorder,
            interrupts: interrupts,
            progress: { done in printer.progress(name, done, of: runs) })
        item.report = Runner(chosen.backend, options).report(item.source)
        printer.endProgress()
        guard let recorder else { return }
        let numbered = count == 1 ? pictures : pictures.numbered(index + 1)
        _ = try recorder.draw(numbered, title: name)
    }

    /// Every hazard that a test names is one of the table (`minivmm explain hazard`).
    private static func checkHazards(_ source: Source, _ bytes: [UInt8]) throws(SyntaxError) {
        guard let unknown = source.test.hazards.first(where: { Hazard.named($0.description) == nil }) else {
            return
        }
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        let line = lines.firstIndex { line in
            line.drop { $0 == 0x20 || $0 == 0x09 }.starts(with: Array("hazard".utf8))
        }
        throw SyntaxError(
            line: (line ?? 0) + 1, column: 1,
            message: "there is no hazard \(unknown): `minivmm explain hazard` lists them")
    }

    /// All files, or what is wrong with each that is no test.
    private func read() throws -> [Item] {
        var items: [Item] = []
        var problems: [String] = []
        for path in paths {
            do throws(LitmusFiles.Failure) {
                for file in try LitmusFiles.expand(path) {
                    let bytes = try LitmusFiles.read(file)
                    do throws(SyntaxError) {
                        let source = try Source(parsing: bytes)
                        if let problem = source.impossibility() { throw problem }
                        try Self.checkHazards(source, bytes)
                        items.append(Item(path: file, source: source))
                    } catch {
                        problems.append("\(file):\(error)")
                    }
                }
            } catch {
                problems.append(error.description)
            }
        }
        guard problems.isEmpty else {
            for problem in problems.dropLast() { _ = stop(problem, .validationFailure) }
            throw stop(problems[problems.count - 1], .validationFailure)
        }
        return items
    }
}

extension Verdict {
    var isFailure: Bool { if case .failed = self { true } else { false } }
    var isSkip: Bool { if case .skipped = self { true } else { false } }
    /// For programs.
    var word: String {
        switch self {
        case .passed: "passed"
        case .failed: "failed"
        case .skipped: "skipped"
        case .hostFailed: "error"
        }
    }
}

extension HostFailure {
    var diagnosis: Diagnosis {
        Diagnosis(
            attempted: "to run a litmus test: \(call)", answer: "\(errno.name): \(errno)",
            means: "The host has no more of what the test needs. That says nothing about the kernel.",
            advice: advice)
    }
}
