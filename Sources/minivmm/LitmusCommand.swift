import ArgumentParser
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

            Exit status: 0 all passed, or some were skipped; 1 a test failed, or a fault was caught by none; 4 every test was \
            skipped; 64 usage, or a file that is no test.
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable { case ktap, json, text }

    @Argument(help: "Files, and directories of them.", completion: .file(extensions: ["litmus"]))
    var paths: [String]
    @OptionGroup var kernel: KernelOptions
    @Option(help: "How the results are printed.")
    var format = Format.text
    @Option(
        help: ArgumentHelp("Write the results as JSON to a file as well.", valueName: "file"),
        completion: .file())
    var save: String?
    @Option(help: "Runs of a test with parallel blocks, where not all interleavings are gone through.")
    var runs = 1000
    @Option(help: "Seconds for one test with all its runs.")
    var timeout = Seconds(nanoseconds: 60_000_000_000)
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
            let name = FilePath(path).lastComponent?.string ?? path
            return name.hasSuffix(LitmusFiles.ending) ? String(name.dropLast(LitmusFiles.ending.count)) : name
        }
    }

    func validate() throws {
        if !(1...100_000_000).contains(runs) {
            throw ValidationError("--runs \(runs): from 1 to 100000000 are possible.")
        }
        if timeout.nanoseconds == 0 { throw ValidationError("--timeout: more than 0 seconds are needed.") }
        if design != nil, kernel.kernel != .soft {
            throw ValidationError("--design is for the software kernel: add --kernel soft.")
        }
        if faults, !kernel.plant.isEmpty || !kernel.abi.isEmpty {
            throw ValidationError("--faults plants each fault by itself, in Linux 7.4's interface.")
        }
        if table, faults { throw ValidationError("--table and --faults: one at a time.") }
    }

    func run() throws {
        if table { return try LitmusTables.hazards(paths) }
        var items = try read()
        if kernel.abi.count > 1 { return try LitmusTables.compare(items, kernel.abi, kernel.soft, format) }
        if faults { return try LitmusTables.faults(items, format) }
        var soft = kernel.soft
        soft.contentDesign = design
        let chosen = try kernel.open(doors: .one, preservation: false, soft: soft)
        try chosen.requireAttributes()
        let printer = LitmusPrinter(format: format, chosen: chosen)
        printer.begin(items.count)
        var options = Runner.Options(runs: runs, seed: kernel.seed, timeLimit: timeout.nanoseconds)
        let runner = Runner(chosen.kernel, options)
        for index in items.indices {
            guard pictures.isWanted else {
                items[index].report = runner.report(items[index].source)
                printer.ran(items[index], number: index + 1)
                continue
            }
            let recorder = LitmusRecorder()
            options.recorder = recorder
            items[index].report = Runner(chosen.kernel, options).report(items[index].source)
            printer.ran(items[index], number: index + 1)
            let numbered = items.count == 1 ? pictures : pictures.numbered(index + 1)
            _ = try recorder.draw(numbered, title: items[index].shortName)
        }
        printer.end(items)
        if let save { try TextFile.write(printer.json(items) + "\n", to: save, what: "the results") }
        if items.contains(where: \.verdict.isFailure) { throw Status.checkFailed }
        if items.allSatisfy(\.verdict.isSkip) { throw Status.skipped }
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
                        items.append(Item(path: file, source: try Source(parsing: bytes)))
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
        }
    }
}
