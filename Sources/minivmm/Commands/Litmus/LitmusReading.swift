// SPDX-License-Identifier: MIT
import Explain
import Litmus
import MiniVMM

// Reads the tests and the outcome of --witness.
extension LitmusCommand.Item {
    /// Checks that every hazard that a test names is in the table (`minivmm explain hazard`).
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
            message: "no hazard is named \(unknown): `minivmm explain hazard` lists them")
    }

    /// Reads all tests of files and directories.
    ///
    /// - Throws: status 64, and for each file that is not a test a message.
    static func read(_ paths: [String]) throws -> [Self] {
        var items: [Self] = []
        var problems: [String] = []
        for path in paths {
            do throws(LitmusFiles.Failure) {
                for file in try LitmusFiles.expand(path) {
                    let bytes = try LitmusFiles.read(file)
                    do throws(SyntaxError) {
                        let source = try Source(parsing: bytes)
                        if let problem = source.impossibility() { throw problem }
                        try checkHazards(source, bytes)
                        items.append(Self(path: file, source: source))
                    } catch {
                        problems.append(LitmusFiles.otherKind(file, bytes) ?? "\(file):\(error)")
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

extension LitmusCommand {
    /// Reads `--witness` for the only test.
    func readWitness(_ items: inout [Item]) throws {
        guard !witness.isEmpty else { return }
        guard items.count == 1 else {
            throw stop(
                "--witness is for one test, not \(items.count): give a single file", .validationFailure)
        }
        var patterns: [OutcomePattern] = []
        for text in witness {
            do throws(SyntaxError) {
                patterns.append(try OutcomePattern(parsing: text, of: items[0].source.test))
            } catch {
                throw stop(
                    "--witness \"\(text)\", column \(error.column): \(error.message)", .validationFailure)
            }
        }
        items[0].witness = OutcomePattern(all: patterns)
    }

    /// - Throws: status 64 and a message, if the outcome of `--witness` never occurs.
    func checkWitness(_ items: [Item]) throws {
        guard let item = items.first, let witness = item.witness, item.selected == nil,
            !item.report.blocks.isEmpty
        else { return }
        let outcomes = item.report.blocks.flatMap(\.outcomes)
        // A real kernel may show an outcome that the model does not have.
        if outcomes.contains(where: { witness.matches($0.results) && $0.count ?? 0 > 0 }) { return }
        if item.report.cut != nil {
            throw stop(
                "--witness \"\(witness.text)\": not found before the test was cut short; raise --timeout",
                Status.endedEarly)
        }
        let possible = outcomes.filter { $0.isInModel == true }.map(\.text)
        throw stop(
            "--witness \"\(witness.text)\": this outcome never occurs in any interleaving; possible: "
                + possible.prefix(8).joined(separator: "; ") + (possible.count > 8 ? "; …" : ""),
            .validationFailure)
    }
}
