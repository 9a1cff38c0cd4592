// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Litmus
import MiniVMM
import SoftKVM
import SystemPackage

struct ExploreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explore",
        abstract: "Looks for what a kernel answers and the model of Linux 7.4 does not.",
        discussion: """
            First all that can be done to two pages in --depth steps: every step from every state that the model has. Then \
            random tests: --tests of one step after the other, --pairs of each two kinds of steps at once, and --parallel of \
            several steps at once; steps at once are explored in all interleavings on the software kernel and run --runs \
            times on others. The model says what must come of each \
            step; what kind of step this kernel cannot do is left out, and named. On the software kernel its rules answer \
            alone, and each finding is confirmed with its memory and its CPU.

            What comes to something else is a finding: it is made as small as it gets, and printed as a litmus test that \
            says what the model comes to. With --output each is a file, for `minivmm litmus`.

            With --report and its like a run of each finding is drawn; of several each has its number in its files' \
            names. Where nothing was found the longest random test is drawn.

            Files that --output finds in the directory are kept: each finding gets the next free number.

            Exit status: 0 complete, and nothing was found; 1 something was; 3 it ended early, by --timeout or a signal, and \
            nothing was found so far; 4 the kernel can do nothing that tests are made of; 64 usage.
            """)

    @OptionGroup var backendOptions: BackendOptions
    @Option(help: "Steps of the small scope; 0 leaves it out.")
    var depth = 2
    @Option(help: "Random tests of one step after the other.")
    var tests = 1000
    @Option(help: "Random tests with steps at once.")
    var parallel = 100
    @Option(help: "Random tests of each pair of kinds of steps at once; 0 leaves them out.")
    var pairs = 0
    @Option(help: "Most steps of a random test.")
    var steps = 12
    @Option(help: "Runs of a test with steps at once, where not all interleavings are gone through.")
    var runs = 100
    @Option(help: "Findings of different kinds after which it ends.")
    var findings = 1
    @Option(help: "Seconds after which no other test is begun.")
    var timeout = Seconds(.seconds(600))
    @Option(
        help: ArgumentHelp(
            "Write each finding as a litmus test into this directory, which is made if it is not there.",
            valueName: "directory"),
        completion: .directory)
    var output: String?
    @Flag(help: "Print the results as JSON.")
    var json = false
    @OptionGroup var pictures: PictureOptions

    func validate() throws {
        try backendOptions.oneVersion()
        func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws {
            guard !range.contains(value) else { return }
            throw ValidationError(
                "\(name) \(value): from \(range.lowerBound) to \(range.upperBound) are possible.")
        }
        try check("--depth", depth, 0...8)
        try check("--tests", tests, 0...1_000_000_000)
        try check("--parallel", parallel, 0...1_000_000_000)
        try check("--pairs", pairs, 0...1_000_000)
        try check("--steps", steps, 1...100)
        try check("--runs", runs, 1...1_000_000)
        try check("--findings", findings, 1...1000)
        if depth == 0, tests == 0, parallel == 0, pairs == 0 {
            throw ValidationError("--depth 0 --tests 0 --parallel 0: nothing is left to be tried.")
        }
        if timeout.duration == .zero { throw ValidationError("--timeout: more than 0 seconds are needed.") }
    }

    private func options(_ interrupts: SignalDescriptor?) -> Exploration.Options {
        Exploration.Options(
            depth: depth, tests: tests, parallelTests: parallel, pairTests: pairs, mostSteps: steps,
            runs: runs,
            seed: backendOptions.seed, mostFindings: findings, timeLimit: timeout.duration,
            // A run of a test with steps at once takes a tenth of a second at most, under a slow QEMU.
            testTimeLimit: max(.seconds(60), .milliseconds(200) * runs), interrupts: interrupts)
    }

    func run() throws {
        let chosen = try backendOptions.open(aliases: .one, preservation: false)
        try chosen.requireAttributes()
        let files = try FindingFiles(output)
        let interrupts = try? SignalDescriptor()
        let options = options(interrupts)
        let printer = ExplorePrinter(
            options: options, chosen: chosen, backendOptions: backendOptions.text(chosen.kind), isJSON: json)
        printer.begin()
        let exploration = Exploration(
            chosen.backend, options,
            isStopped: { interrupts?.pending() != nil || files.failure != nil },
            progress: { phase, summary in
                files.save(summary.findings)
                printer.progress(phase, summary)
            })
        let summary = exploration.run()
        // What is left takes little; a signal ends it like any other program.
        interrupts?.unblock()
        if let failure = summary.hostFailure {
            throw stop(failure.description, Status.monitorFailed, failure.diagnosis)
        }
        printer.end(summary, files: files.names, alone: try summary.findings.map(alone))
        if let failure = files.failure { throw failure }
        try draw(summary, chosen.backend)
        if !summary.findings.isEmpty { throw Status.checkFailed }
        if summary.end == .time || summary.end == .stopped { throw Status.endedEarly }
        if summary.tests == 0, summary.end == .complete { throw Status.skipped }
    }

    /// What a finding shows on a kernel that has run no other test does not come from an earlier one.
    private func alone(_ finding: Finding) throws -> Repetition {
        finding.repeated(
            on: try backendOptions.open(aliases: .one, preservation: false).backend,
            Runner.Options(runs: runs, seed: backendOptions.seed, asksModel: false))
    }

    /// A run of each finding; where there is none, of the longest random test.
    private func draw(_ summary: Exploration.Summary, _ backend: any Backend) throws {
        guard pictures.isWanted else { return }
        let sources =
            summary.findings.isEmpty ? [summary.sample].compactMap { $0 } : summary.findings.map(\.source)
        for (index, source) in sources.enumerated() {
            let recorder = LitmusRecorder()
            let options = Runner.Options(runs: runs, seed: backendOptions.seed, recorder: recorder)
            _ = Runner(backend, options).report(source)
            let pictures = sources.count == 1 ? pictures : pictures.numbered(index + 1)
            _ = try recorder.draw(
                pictures,
                title: summary.findings.isEmpty
                    ? "nothing found: the longest of \(summary.tests) tests" : source.test.name)
        }
    }
}

/// The files of findings, each written when it is found: what took a night is not to be lost by what comes after.
private final class FindingFiles {
    private let directory: String?
    private(set) var names: [String] = []
    /// Of the last file that was written, or was there already.
    private var number = 0
    private(set) var failure: (any Error)?

    /// - Throws: before anything is explored, where there can be no such directory.
    init(_ directory: String?) throws {
        self.directory = directory
        if let directory { try TextFile.makeDirectory(directory, for: "the findings") }
    }

    func save(_ findings: [Finding]) {
        guard let directory, failure == nil else { return }
        for finding in findings.dropFirst(names.count) {
            do {
                // The files of earlier explorations stay as they are.
                while true {
                    number += 1
                    let path = ByteText.join(directory, "finding-\(number).litmus")
                    let text = finding.source.test.text
                    guard try TextFile.write(text, to: path, what: "the finding", isNew: true) else {
                        continue
                    }
                    names.append(path)
                    break
                }
            } catch {
                failure = error
                return
            }
        }
    }
}
