// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Litmus
import MiniVMM
import Report
import SoftKVM
import SystemPackage

struct ExploreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explore",
        abstract: "Searches for behaviour in which a kernel differs from the Linux 7.4 model.",
        discussion: """
            First it tries every step from every state reachable with two pages in --depth steps. Then it runs random \
            tests: --tests sequential ones, --pairs for each two kinds of steps run concurrently, and --parallel with several \
            concurrent steps. One sequential test in eight is large in one dimension: pages present, size of a file, runs of \
            attributes, memslots, holds, or views. Concurrent steps are explored exhaustively on SoftKVM, and run --runs \
            times on other backends. The model gives the answer expected of each step. Steps this kernel does not support are skipped and listed. On \
            SoftKVM its rules answer without its memory and its CPU, and each finding is confirmed with both.

            A difference is reported as a finding, shrunk to the fewest steps that still show it, and printed as a litmus \
            test with the model's answers. With --output each finding becomes a folder such as 001-convert-0-private: the test for \
            `minivmm litmus`, a C program (`minivmm export`), a report to be sent, a trace and a picture. Folders that exist \
            are kept: a finding gets the number after the highest.

            --report, --svg and --chrome draw one run per finding. With several findings, files are numbered: out-1.html, \
            out-2.html. Without a finding the longest random test is drawn.

            Exit status: 0 everything was tried without a finding; 1 there is a finding; 3 ended early, by --timeout or a \
            signal, without a finding so far; 4 the kernel supports none of the steps; 64 usage.
            """)

    @OptionGroup var backendOptions: BackendOptions
    @Option(help: "Steps of the exhaustive part, 0 to 8; 0 omits it.")
    var depth = 2
    @Option(help: "Number of random sequential tests, 0 to 1000000000.")
    var tests = 1000
    @Option(help: "Number of random tests with concurrent steps, 0 to 1000000000.")
    var parallel = 100
    @Option(help: "Number of random tests for each pair of kinds of steps run concurrently, 0 to 1000000.")
    var pairs = 0
    @Option(help: "Largest number of steps of a random test, 1 to 100.")
    var steps = 12
    @Option(help: "Runs of each test with concurrent steps on a backend other than SoftKVM, 1 to 1000000.")
    var runs = 100
    @Option(help: "Number of findings of different kinds after which the search ends, 1 to 1000.")
    var findings = 1
    @Option(
        help: ArgumentHelp(
            "Number of the first test to run, 1 to 2^63 - 1. Tests are numbered in the order in which they are generated, which depends on the options and on what the kernel supports.",
            valueName: "number"))
    var from = 1
    @Option(
        help: ArgumentHelp(
            "Leave out a kind of step or machine, such as \"hold by vmsplice\". Repeatable; `left out` in the output has the names. (default: none)",
            valueName: "step"))
    var without: [String] = []
    @Option(help: "Time limit in seconds. No test begins after it.")
    var timeout = Seconds(.seconds(600))
    @Option(
        help: ArgumentHelp(
            "Write a folder for each finding to this directory, which is created if needed. (default: no files)",
            valueName: "directory"),
        completion: .directory)
    var output: String?
    @Flag(
        help: ArgumentHelp(
            "Also run each random sequential test with each allocation that a step makes in the kernel failing once, as `minivmm litmus --fail` does.",
            discussion: "Needs root and a kernel with CONFIG_FAULT_INJECTION. Not on SoftKVM."))
    var fail = false
    @Flag(help: "Print the results as JSON.")
    var json = false
    @OptionGroup var kernelLog: KernelLogOptions
    @OptionGroup var pictures: PictureOptions

    func validate() throws {
        try backendOptions.oneVersion()
        func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws {
            guard !range.contains(value) else { return }
            throw ValidationError(
                "\(name) \(value): give a number from \(range.lowerBound) to \(range.upperBound).")
        }
        try check("--depth", depth, 0...8)
        try check("--tests", tests, 0...1_000_000_000)
        try check("--parallel", parallel, 0...1_000_000_000)
        try check("--pairs", pairs, 0...1_000_000)
        try check("--steps", steps, 1...100)
        try check("--runs", runs, 1...1_000_000)
        try check("--findings", findings, 1...1000)
        try check("--from", from, 1...Int.max)
        for step in without where !Exploration.stepNames.contains(step) {
            throw ValidationError(
                "--without \"\(step)\": there is no such kind of step\(NearWords.suggestion(for: step, among: Exploration.stepNames))"
            )
        }
        if depth == 0, tests == 0, parallel == 0, pairs == 0 {
            throw ValidationError(
                "--depth 0 --tests 0 --parallel 0: there is nothing to try; raise one of them, or --pairs.")
        }
        if fail, backendOptions.backend == .soft {
            throw ValidationError("--fail needs a real kernel, because SoftKVM makes no allocations in one.")
        }
        if fail, tests == 0 {
            throw ValidationError("--fail is for the random sequential tests: give --tests a number above 0.")
        }
        if timeout.duration == .zero { throw ValidationError("--timeout 0: give more than 0 seconds.") }
    }

    private func options(
        _ interrupts: SignalDescriptor?, _ announcer: Announcer?, _ log: KernelLog?
    ) -> Exploration.Options {
        Exploration.Options(
            depth: depth, tests: tests, parallelTests: parallel, pairTests: pairs, mostSteps: steps,
            runs: runs,
            seed: backendOptions.seed, mostFindings: findings, timeLimit: timeout.duration,
            // Under a slow QEMU one run of a test with concurrent steps takes up to a tenth of a second.
            testTimeLimit: max(.seconds(60), .milliseconds(200) * runs), firstTest: from,
            excluded: Set(without), announcer: announcer, kernelLog: log, interrupts: interrupts,
            failsAllocations: fail)
    }

    func run() throws {
        let chosen = try backendOptions.open(aliases: .one, preservation: false)
        try chosen.requireAttributes()
        let folders = try FindingFolders(output)
        try pictures.checkPlaces()
        let interrupts = try? SignalDescriptor()
        let announcer = try kernelLog.openAnnouncer()
        let options = options(interrupts, announcer, try kernelLog.openLog(for: chosen.kind))
        let printer = ExplorePrinter(
            options: options, chosen: chosen, backendOptions: backendOptions.text(chosen.kind), isJSON: json)
        printer.begin()
        let exploration = Exploration(
            chosen.backend, options,
            isStopped: {
                interrupts?.pending() != nil || folders.failure != nil || announcer?.failure != nil
            },
            progress: { phase, summary in
                folders.save(summary.findings)
                printer.progress(phase, summary)
            })
        let summary = exploration.run()
        // The rest is short: from here on a signal ends the process.
        interrupts?.unblock()
        if let failure = summary.hostFailure {
            throw stop(failure.description, Status.monitorFailed, failure.diagnosis)
        }
        let alone = try summary.findings.map(alone)
        printer.end(summary, files: folders.tests, alone: alone)
        if let failure = folders.failure { throw failure }
        try complete(folders, summary.findings, alone, chosen)
        try announcer?.check(kernelLog.announce)
        try draw(summary, chosen.backend)
        if !summary.findings.isEmpty { throw Status.checkFailed }
        if summary.end == .time || summary.end == .stopped { throw Status.endedEarly }
        if summary.tests == 0, summary.end == .complete { throw Status.skipped }
    }

    /// Repeats a finding on a new backend, to rule out that an earlier test caused it.
    private func alone(_ finding: Finding) throws -> Repetition {
        finding.repeated(
            on: try backendOptions.open(aliases: .one, preservation: false).backend,
            Runner.Options(runs: runs, seed: backendOptions.seed, asksModel: false, findsOrders: false))
    }

    /// Writes the rest of each finding's folder.
    private func complete(
        _ folders: FindingFolders, _ findings: [Finding], _ alone: [Repetition], _ chosen: ChosenBackend
    ) throws {
        let facts = KernelFacts()
        try folders.complete(
            findings,
            report: { index, problem in
                FindingReport(
                    finding: findings[index], alone: alone[index], backend: chosen.backend.identity,
                    facts: facts, options: backendOptions.text(chosen.kind), noProgram: problem
                ).text
            }, record: { recordOne($0, chosen.backend) })
    }

    /// A run of a finding. Its schedules, if it names any, are drawn as a map, and the run is one without them.
    private func recordOne(
        _ finding: Finding, _ backend: any Backend
    ) -> (LitmusRecorder, ScheduleChart?) {
        let source = finding.source
        guard !source.test.schedules.isEmpty else { return (record(source, backend, keepsEvents: true), nil) }
        // All schedules with one preemption show where else in the kernel the outcome depends on the place.
        let options = Runner.Options(
            runs: runs, seed: backendOptions.seed, findsOrders: false, sweep: .all(preemptions: 1))
        let report = Runner(backend, options).report(source)
        let words = SweepPrinter(out: .output, test: source.test)
        let chart =
            report.maps.isEmpty
            ? nil
            : ScheduleChart(report.maps, title: source.test.name, backend: "\(backend.identity)", words)
        return (record(source.withoutSchedules ?? source, backend, keepsEvents: true), chart)
    }

    private func record(_ source: Source, _ backend: any Backend, keepsEvents: Bool = false) -> LitmusRecorder
    {
        let recorder = LitmusRecorder(keepsEvents: keepsEvents)
        let options = Runner.Options(runs: runs, seed: backendOptions.seed, recorder: recorder)
        _ = Runner(backend, options).report(source)
        return recorder
    }

    /// Draws one run of each finding, or of the longest random test if there is no finding.
    private func draw(_ summary: Exploration.Summary, _ backend: any Backend) throws {
        guard pictures.isWanted else { return }
        let sources =
            summary.findings.isEmpty ? [summary.sample].compactMap { $0 } : summary.findings.map(\.source)
        for (index, source) in sources.enumerated() {
            let recorder = record(source, backend)
            let pictures = sources.count == 1 ? pictures : pictures.numbered(index + 1)
            _ = try recorder.draw(
                pictures,
                title: summary.findings.isEmpty
                    ? "no differences from the model: the longest of \(summary.tests) tests"
                    : source.test.name)
        }
    }
}
