import GuestPayloads
import Litmus
import MiniVMM
import SoftKVM
import SystemPackage

/// What a chapter of the tour can have played.
final class TourStage {
    let kernel: KernelOptions
    private let stage: Stage
    private let terminal = Terminal.output
    /// Chapters that went otherwise than told.
    private(set) var failures = 0

    init(kernel: KernelOptions) {
        self.kernel = kernel
        stage = Stage(kernel: kernel)
    }

    /// A guest of the catalogue, told by its trace.
    func guest(_ name: String, sentences: Int, tellsBoot: Bool = false) throws {
        try play(sentences, tellsBoot) { try $0.play(name, $1) }
    }

    func hostView() throws { try play(20, true) { try $0.hostView($1) } }
    func contents() throws { try play(5, false) { try $0.contents($1) } }

    private func play(
        _ sentences: Int, _ tellsBoot: Bool, _ body: (Stage, Narrator) throws -> Outcome?
    ) throws {
        let narrator = Narrator(terminal, limit: sentences, tellsBoot: tellsBoot)
        let outcome = try body(stage, narrator)
        narrator.finish()
        switch outcome {
        case .failed(.unsupported(let why))?: notShown(why)
        case let outcome? where outcome.exitStatus != 0:
            failures += 1
            terminal.paragraph("This went otherwise than told: \(outcome)", indent: 3, style: .bad)
        default: break
        }
    }

    func notShown(_ why: String) { terminal.paragraph("Not shown here: \(why).", indent: 3) }

    // MARK: races

    /// A test with a parallel block: all that can come of it by the model, and what came of it here.
    func race(_ text: String) {
        for line in text.split(separator: "\n") {
            terminal.print("   " + terminal.styled(String(line), .dim))
        }
        guard let source = try? Source(parsing: text) else {
            failures += 1
            return
        }
        terminal.print()
        let soft = SoftKVM(kernel.soft)
        show(Runner(soft).report(source), "all interleavings, on \(soft.identity)")
        guard let chosen = try? kernel.open(doors: .one, preservation: true), chosen.name != .soft else {
            return notShown("the same on a real kernel: the one that was chosen is the software kernel")
        }
        show(
            Runner(chosen.kernel, .init(runs: 2000, seed: kernel.seed)).report(source),
            "2000 runs, a thread an actor, on \(chosen.kernel.identity)")
    }

    private func show(_ report: Report, _ title: String) {
        terminal.paragraph(title, indent: 3)
        switch report.verdict {
        case .passed:
            for line in report.blocks.flatMap(\.lines).dropFirst() { terminal.print("   " + line) }
        case .skipped(let why): notShown(why)
        case .failed(let failure):
            failures += 1
            for line in failure.lines { terminal.paragraph(line, indent: 5, style: .bad) }
        }
    }
}
