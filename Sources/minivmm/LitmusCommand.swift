import ArgumentParser
import Litmus
import MiniVMM
import SystemPackage

struct LitmusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "litmus",
        abstract: "Runs litmus tests: what a kernel must answer, step by step.",
        discussion: """
            litmus/README.md is the manual of the language. Of a directory the files in it whose names end in .litmus \
            are run, in the order of their names. Nothing is run unless every file can be read.

            Exit status: 0 all passed, or some were skipped; 1 a test failed; 4 every test was skipped; 64 usage, or \
            a file that is no test.
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable { case ktap, json, text }

    @Argument(help: "Files, and directories of them.")
    var paths: [String]
    @OptionGroup var kernel: KernelOptions
    @Option(help: "How the results are printed.")
    var format = Format.text

    /// A test, and what came of it.
    struct Item {
        let path: String
        let source: Source
        var verdict = Verdict.skipped("not run")

        /// The file's name without its ending.
        var shortName: String {
            let name = FilePath(path).lastComponent?.string ?? path
            return name.hasSuffix(LitmusFiles.ending) ? String(name.dropLast(LitmusFiles.ending.count)) : name
        }
    }

    func run() throws {
        var items = try read()
        let chosen = try kernel.open(doors: .one, preservation: false)
        let printer = LitmusPrinter(format: format, chosen: chosen)
        printer.begin(items.count)
        for index in items.indices {
            items[index].verdict = Runner(chosen.kernel).run(items[index].source)
            printer.ran(items[index], number: index + 1)
        }
        printer.end(items)
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
