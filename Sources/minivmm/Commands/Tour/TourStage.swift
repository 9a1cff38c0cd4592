// SPDX-License-Identifier: MIT
import Backends
import GuestPayloads
import Litmus
import MiniVMM
import SoftKVM
import SystemPackage

/// Runs guests, tests and measurements for a chapter of the tour.
final class TourStage {
    let options: BackendOptions
    private let stage: Stage
    private let terminal = Terminal.output
    /// The result of the current chapter.
    private(set) var result = ChapterResult.shown

    enum ChapterResult {
        case shown
        /// The backend cannot show it.
        case notShown
        /// It did not behave as described.
        case failed
        /// Ended by a signal, such as Ctrl-C.
        case interrupted(signal: Int32)
    }

    init(options: BackendOptions) {
        self.options = options
        stage = Stage(options: options)
    }

    func begin() { result = .shown }

    /// Runs a built-in guest and prints its trace as sentences.
    func guest(_ name: String, sentences: Int, tellsBoot: Bool = false) throws {
        try play(sentences, tellsBoot) { try $0.play(name, $1) }
    }

    func hostView() throws { try play(20, true) { try $0.hostView($1) } }
    func contents() throws { try play(5, false) { try $0.contents($1) } }

    /// Runs a guest on the model of SNP or TDX, and prints its output.
    ///
    /// - Parameter status: the exit status with which it must end.
    func confidential(
        _ name: String, _ type: VMType, host: Set<HostBehaviour> = [], endingWith status: Int32 = 0
    ) throws {
        // An earlier guest of the chapter has not ended as described.
        guard case .shown = result else { return }
        guard [.auto, .soft].contains(options.backend) else {
            notShown("only SoftKVM has a model of \(VMName(type).rawValue) VMs")
            result = .notShown
            return
        }
        let narrator = Narrator(terminal, limit: 4)
        let outcome = try stage.confidential(name, type, host, narrator)
        narrator.finish()
        judge(outcome, expecting: status)
    }

    private func play(
        _ sentences: Int, _ tellsBoot: Bool, _ body: (Stage, Narrator) throws -> Outcome?
    ) throws {
        let narrator = Narrator(terminal, limit: sentences, tellsBoot: tellsBoot)
        let outcome = try body(stage, narrator)
        narrator.finish()
        judge(outcome, expecting: 0)
    }

    /// Records how a guest ended, if not as the chapter says.
    private func judge(_ outcome: Outcome?, expecting status: Int32) {
        switch outcome {
        case .failed(.unsupported(let lack, let backend))?:
            notShown("\(backend) \(lack)")
            result = .notShown
        case .interrupted(let signal)?: result = .interrupted(signal: signal)
        case let outcome? where outcome.exitStatus != status: fail("\(outcome)")
        default: break
        }
    }

    /// Prints why a part of the chapter cannot be shown.
    func notShown(_ why: String) { terminal.paragraph("Not shown here: \(why).", indent: 3) }

    func nothingShown() { result = .notShown }

    func fail(_ why: String) {
        result = .failed
        terminal.paragraph("This did not behave as described: \(why)", indent: 3, style: .bad)
    }

    // MARK: races

    /// Runs a test with a parallel block: every interleaving in the model, then many runs on the real kernel, if there is one.
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
            "every interleaving, on \(soft.identity)", interrupts)
        if case .interrupted = result { return }
        let chosen = try options.open(aliases: .one, preservation: true)
        guard chosen.kind != .soft else {
            return notShown(
                "the histogram of a real kernel, because the backend is SoftKVM (\(chosen.reasonText))"
            )
        }
        show(
            Runner(chosen.backend, .init(runs: 2000, seed: options.seed, interrupts: interrupts)).report(
                source),
            "2,000 runs with one thread per actor, on \(chosen.backend.identity)", interrupts)
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

    /// Prints a line of a table: unchanged if it fits, else with narrow columns, else folded.
    private func outcome(_ line: String) {
        if line.count + 3 <= terminal.width { return terminal.print("   " + line) }
        let words = line.split(separator: " ").joined(separator: " ")
        terminal.hanging("     ", words, indent: 7, used: 5)
    }
}
