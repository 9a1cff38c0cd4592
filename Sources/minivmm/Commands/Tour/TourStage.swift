// SPDX-License-Identifier: MIT
import Backends
import GuestPayloads
import Litmus
import MiniVMM
import SoftKVM
import SystemPackage

/// What a chapter of the tour can have played.
final class TourStage {
    let options: BackendOptions
    private let stage: Stage
    private let terminal = Terminal.output
    /// How the chapter at hand went.
    private(set) var result = ChapterResult.shown

    enum ChapterResult {
        case shown
        /// This kernel cannot show it.
        case notShown
        /// It went otherwise than told.
        case failed
        /// Somebody pressed Ctrl-C.
        case interrupted(signal: Int32)
    }

    init(options: BackendOptions) {
        self.options = options
        stage = Stage(options: options)
    }

    func begin() { result = .shown }

    /// A guest of the catalogue, told by its trace.
    func guest(_ name: String, sentences: Int, tellsBoot: Bool = false) throws {
        try play(sentences, tellsBoot) { try $0.play(name, $1) }
    }

    func hostView() throws { try play(20, true) { try $0.hostView($1) } }
    func contents() throws { try play(5, false) { try $0.contents($1) } }
    func nothingRuns() {
        terminal.paragraph(
            "Nothing runs in this chapter: there is no such hardware below, and nothing here pretends to be it.",
            indent: 3)
    }

    private func play(
        _ sentences: Int, _ tellsBoot: Bool, _ body: (Stage, Narrator) throws -> Outcome?
    ) throws {
        let narrator = Narrator(terminal, limit: sentences, tellsBoot: tellsBoot)
        let outcome = try body(stage, narrator)
        narrator.finish()
        switch outcome {
        case .failed(.unsupported(let lack, let backend))?:
            notShown("\(backend) \(lack)")
            result = .notShown
        case .interrupted(let signal)?: result = .interrupted(signal: signal)
        case let outcome? where outcome.exitStatus != 0: fail("\(outcome)")
        default: break
        }
    }

    /// Something that cannot be shown, while the chapter has more to show.
    func notShown(_ why: String) { terminal.paragraph("Not shown here: \(why).", indent: 3) }

    func nothingShown() { result = .notShown }

    func fail(_ why: String) {
        result = .failed
        terminal.paragraph("This went otherwise than told: \(why)", indent: 3, style: .bad)
    }

    // MARK: races

    /// A test with a parallel block: all that can come of it by the model, and what came of it here.
    func race(_ text: String) throws {
        for line in text.split(separator: "\n") {
            terminal.print("   " + terminal.styled(String(line), .dim))
        }
        let source = try Source(parsing: text)
        terminal.print()
        let soft = SoftKVM(options.soft)
        let interrupts = try? SignalDescriptor()
        show(
            Runner(soft, .init(interrupts: interrupts)).report(source),
            "all interleavings, on \(soft.identity)", interrupts)
        if case .interrupted = result { return }
        let chosen = try options.open(aliases: .one, preservation: true)
        guard chosen.kind != .soft else {
            return notShown(
                "a histogram of a real kernel. The one that answers is the software kernel: \(chosen.reasonText)"
            )
        }
        show(
            Runner(chosen.backend, .init(runs: 2000, seed: options.seed, interrupts: interrupts)).report(
                source),
            "2000 runs, a thread an actor, on \(chosen.backend.identity)", interrupts)
    }

    private func show(_ report: Report, _ title: String, _ interrupts: SignalDescriptor?) {
        if let signal = interrupts?.pending() {
            result = .interrupted(signal: signal)
            return
        }
        terminal.paragraph(title, indent: 3)
        switch report.verdict {
        case .passed:
            for line in report.blocks.flatMap(\.lines).dropFirst() { outcome(line) }
        case .skipped(let why): notShown(why)
        case .failed(let failure): fail(failure.lines.joined(separator: " "))
        case .hostFailed(let failure): fail("\(failure). \(failure.advice)")
        }
    }

    /// A line of a table: whole, or with less between its columns, or folded.
    private func outcome(_ line: String) {
        if line.count + 3 <= terminal.width { return terminal.print("   " + line) }
        let words = line.split(separator: " ").joined(separator: " ")
        terminal.hanging("     ", words, indent: 7, used: 5)
    }
}
