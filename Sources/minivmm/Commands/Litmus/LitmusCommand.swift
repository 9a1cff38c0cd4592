// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Litmus
import MiniVMM
import Report
import SoftKVM
import SystemPackage

extension ContentDesign: ExpressibleByArgument {}

struct LitmusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "litmus",
        abstract: "Runs litmus tests: small programs with the answers that a kernel must give.",
        discussion: """
            litmus/README.md is the manual of the language. For a directory, all *.litmus files in it are run in \
            alphabetical order. All files are read and checked before the first test runs.

            On SoftKVM, tests with parallel blocks are explored exhaustively (every interleaving). Other backends run them \
            --runs times, and the outcomes seen are compared with those of the model of Linux 7.4. For each outcome an order \
            of steps that leads to it is printed.

            --report, --svg and --chrome draw one run per test: the outcome of --witness, or else a failing run if there is \
            one. With several tests, files are numbered: out-1.html, out-2.html.

            With --fail, each allocation that the kernel makes for a step fails once, in a run of its own. The step must then \
            succeed, or fail as docs/ABI.md says, and everything after it must be right. docs/fail.md describes the output.

            --format junit prints JUnit XML, for CI systems that do not read KTAP.

            With --verbose, each step is printed before it is performed and again with its outcome, so a serial console shows \
            the step during which a kernel died. Steps inside parallel blocks are not printed, and of several runs only the \
            first is. With --fail, each failing allocation is printed in the same way. The lines go to standard output, in \
            KTAP as comments; with json and junit they go to standard error.

            With --abi twice or more, the differences between those versions of the interface are printed. With --faults, \
            each fault is planted in SoftKVM, and the tests that catch it are printed. With --table, the arguments are \
            results of --format json, and a table of hazards is printed with one column per file.

            At its time limit or on Ctrl-C, a test with parallel blocks finishes the current run, and the outcomes seen so \
            far are judged: a forbidden one is a failure; a missing required one is not. A single run that does not end is \
            a failure.

            Exit status: 0 all passed, or some were skipped; 1 a test failed, or a fault was not caught; 4 every test was \
            skipped; 64 usage, or a file is not a test; 125 the host failed, for example at a resource limit; 128 + N \
            interrupted by signal N.
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable { case ktap, junit, json, text }

    @Argument(
        help: "Test files, or directories with *.litmus files.", completion: .file(extensions: ["litmus"]))
    var paths: [String]
    @OptionGroup var backendOptions: BackendOptions
    @Option(help: "Format of the results on standard output.")
    var format = Format.text
    @Flag(help: "Print each step before it is performed, and again with its outcome. (default: results only)")
    var verbose = false
    @Option(
        help: ArgumentHelp(
            "Also write the results as JSON to a file. (default: no file)", valueName: "file"),
        completion: .file())
    var save: String?
    @Option(help: "Runs of each test with parallel blocks on a backend other than SoftKVM, 1 to 100000000.")
    var runs = 1000
    @Option(
        help: ArgumentHelp(
            "Time limit of each test with all its runs, in seconds. A test with parallel blocks then reports what it has seen.",
            valueName: "seconds"))
    var timeout = Seconds(.seconds(60))
    @Option(
        help: ArgumentHelp(
            "The outcome of a parallel block to print step by step and to draw, such as \"c = EAGAIN at 0\". Repeatable: all must hold. (default: none printed; a failing run is drawn)",
            valueName: "outcome"))
    var witness: [String] = []
    @Flag(
        help: ArgumentHelp(
            "Run tests with parallel blocks under chosen schedules in place of random starting times: each actor is preempted by each other one at every place.",
            discussion:
                "Not on SoftKVM, which explores every interleaving. Exact in the lab with lab/boot --icount.")
    )
    var sweep = false
    @Option(
        help: ArgumentHelp(
            "The preemptions of a schedule of --sweep: 1, or 2 so that the actor that preempts is preempted, too.",
            valueName: "number"))
    var preemptions = 1
    @Option(
        help: ArgumentHelp(
            "Run one schedule of a sweep, such as host1@1594: host1 is preempted 1594 ns after it began. VICTIM@DELAY, and /INTRUDER if the block has more than two actors, @DELAY/ACTOR for a second preemption, and #N for the Nth parallel block. (default: the schedule that the test names)",
            valueName: "schedule"))
    var at: String?
    @Flag(
        help: ArgumentHelp(
            "Let each allocation that a step makes in the kernel fail, one in each run, and compare the rest with the model.",
            discussion:
                "Steps of parallel blocks are performed in the order of the text. Needs root and a kernel with CONFIG_FAULT_INJECTION, such as the lab's."
        ))
    var fail = false
    @Option(
        help: ArgumentHelp(
            "Run one failure of --fail, such as 7:2: the second allocation of the step on line 7. LINE:N, with N from 1. (default: all)",
            valueName: "allocation"))
    var failAt: String?
    @OptionGroup var kernelLog: KernelLogOptions
    @OptionGroup var pictures: PictureOptions
    @Option(
        help:
            "Where SoftKVM decides about the contents of converted pages. (default: as the test or --abi says)"
    )
    var design: ContentDesign?
    @Flag(help: "Plant each fault in SoftKVM, and print which tests catch it.")
    var faults = false
    @Flag(help: "Print a table of hazards from results in JSON.")
    var table = false
    @Flag(
        help: ArgumentHelp(
            "Print tables of races from results in JSON: the schedules that lead to each outcome, from exact sweeps, and how much more often aimed schedules show it than random starting times."
        ))
    var races = false

    func validate() throws {
        if !(1...100_000_000).contains(runs) {
            throw ValidationError("--runs \(runs): give a number from 1 to 100000000.")
        }
        if timeout.duration == .zero { throw ValidationError("--timeout 0: give more than 0 seconds.") }
        if design != nil, backendOptions.backend != .soft {
            throw ValidationError("--design configures SoftKVM: add --backend soft.")
        }
        if faults, !backendOptions.plant.isEmpty || !backendOptions.abi.isEmpty {
            throw ValidationError(
                "--faults plants each fault by itself in Linux 7.4's interface: omit --plant and --abi.")
        }
        if sweep || at != nil, pictures.chrome != nil {
            throw ValidationError(
                "A map of schedules has no form in Chrome's format: omit --chrome, or give --report or --svg."
            )
        }
        if !(1...2).contains(preemptions) {
            throw ValidationError("--preemptions \(preemptions): give 1 or 2.")
        }
        if preemptions != 1, !sweep { throw ValidationError("--preemptions belongs to --sweep: add it.") }
        if sweep, at != nil { throw ValidationError("--at is one schedule of a sweep: omit --sweep.") }
        if sweep || at != nil,
            backendOptions.backend == .soft || table || races || faults || backendOptions.abi.count > 1
        {
            throw ValidationError(
                "--sweep and --at run schedules on a real kernel; SoftKVM explores every interleaving.")
        }
        if fail, failAt != nil { throw ValidationError("--fail-at is one failure of --fail: omit --fail.") }
        if fail || failAt != nil {
            if sweep || at != nil {
                throw ValidationError("--fail and --fail-at run no schedules: omit --sweep and --at.")
            }
            if pictures.isWanted {
                throw ValidationError(
                    "--fail and --fail-at draw no pictures: omit --report, --svg and --chrome.")
            }
            if backendOptions.backend == .soft || table || races || faults || backendOptions.abi.count > 1 {
                throw ValidationError(
                    "--fail and --fail-at need a real kernel, because SoftKVM makes no allocations in one.")
            }
            if !witness.isEmpty {
                throw ValidationError(
                    "--fail and --fail-at have no outcomes of parallel blocks: omit --witness.")
            }
        }
        if [table, races, faults].count(where: { $0 }) > 1 {
            throw ValidationError("--table, --races and --faults exclude each other.")
        }
        try validateVerbose()
        if !witness.isEmpty, table || races || faults || backendOptions.abi.count > 1 {
            throw ValidationError(
                "--witness is for the run of one test: omit --table, --races, --faults and a second --abi.")
        }
    }

    private func validateVerbose() throws {
        if verbose, table || races || faults || backendOptions.abi.count > 1 {
            throw ValidationError(
                "--verbose prints the steps of a run: omit --table, --races, --faults and a second --abi.")
        }
    }

    func run() throws {
        if table { return try LitmusTables.hazards(paths) }
        if races { return try RaceTables.print(paths) }
        var items = try Item.read(paths)
        try readWitness(&items)
        for item in items {
            _ = try schedules(of: item)
            _ = try failures(of: item)
        }
        if let save { try OutputPlace.check(save, what: "the results") }
        try pictures.checkPlaces()
        if backendOptions.abi.count > 1 {
            return try LitmusTables.compare(items, backendOptions.abi, backendOptions.soft, format)
        }
        if faults { return try LitmusTables.faults(items, format) }
        var soft = backendOptions.soft
        soft.contentDesign = design
        let chosen = try backendOptions.open(aliases: .one, preservation: false, soft: soft)
        try chosen.requireAttributes()
        let log = try kernelLog.openLog(for: chosen.kind)
        let announcer = try kernelLog.openAnnouncer()
        let printer = LitmusPrinter(format: format, chosen: chosen)
        let interrupts = try? SignalDescriptor()
        printer.begin(items)
        var hostFailure: HostFailure?
        for index in items.indices {
            if hostFailure != nil {
                items[index].report = Report(verdict: .skipped("not run: the host failed in an earlier test"))
            } else if let signal = interrupts?.pending() {
                items[index].report = Report(verdict: .skipped("not run: interrupted by signal \(signal)"))
            } else {
                try run(&items[index], index, of: items.count, chosen, printer, interrupts, announcer, log)
            }
            if case .hostFailed(let failure) = items[index].verdict { hostFailure = failure }
            printer.ran(items[index], number: index + 1)
        }
        printer.end(items)
        if let save { try TextFile.write(printer.json(items) + "\n", to: save, what: "the results") }
        try announcer?.check(kernelLog.announce)
        try checkWitness(items)
        if let hostFailure {
            throw stop(hostFailure.description, Status.monitorFailed, hostFailure.diagnosis)
        }
        if let signal = interrupts?.pending() { throw ExitCode(128 + signal) }
        if items.contains(where: \.verdict.isFailure) { throw Status.checkFailed }
        if items.allSatisfy(\.verdict.isSkip) { throw Status.skipped }
    }

    private func run(
        _ item: inout Item, _ index: Int, of count: Int, _ chosen: ChosenBackend, _ printer: LitmusPrinter,
        _ interrupts: SignalDescriptor?, _ announcer: Announcer?, _ log: KernelLog?
    ) throws {
        let name = item.shortName
        let sweep = try schedules(of: item)
        // A sweep is drawn as its map, not as one of its runs.
        let recorder = pictures.isWanted && sweep == nil ? LitmusRecorder() : nil
        let steps = verbose ? printer.steps(of: item) : nil
        let options = Runner.Options(
            runs: runs, seed: backendOptions.seed, timeLimit: timeout.duration, witness: item.witness,
            sweep: sweep, failures: try failures(of: item),
            recorder: recorder, watcher: steps?.watcher, announcer: announcer,
            kernelLog: log, interrupts: interrupts,
            progress: { [wanted = isFailing ? nil : runs] done in printer.progress(name, done, of: wanted) })
        let start = monotonicNanoseconds()
        item.report = Runner(chosen.backend, options).report(item.source)
        item.nanoseconds = monotonicNanoseconds() &- start
        steps?.end()
        printer.endProgress()
        try draw(item, count == 1 ? pictures : pictures.numbered(index + 1), recorder, chosen)
    }

    /// - Throws: a usage error for an `--at` that does not fit the test.
    private func schedules(of item: Item) throws -> Sweep? {
        guard let at else { return sweep ? .all(preemptions: preemptions) : nil }
        do throws(ScheduleError) {
            return .these([try Schedule(at, in: item.source.test)])
        } catch {
            throw stop("--at \(at): \(error.description)", Status.usage)
        }
    }

    private var isFailing: Bool { fail || failAt != nil }

    /// - Throws: a usage error for a `--fail-at` that does not fit the test.
    private func failures(of item: Item) throws -> AllocationFailures? {
        guard let failAt else { return fail ? .all : nil }
        do throws(FailurePointError) {
            return .one(try FailurePoint(failAt, in: item.source))
        } catch {
            throw stop("--fail-at \(failAt): \(error.description)", Status.usage)
        }
    }
}
