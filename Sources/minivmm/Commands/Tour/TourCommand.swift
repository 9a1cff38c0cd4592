// SPDX-License-Identifier: MIT
import ArgumentParser
import MiniVMM

struct TourCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tour",
        abstract: "Eight chapters, from hello to a race: each a running guest, an idea and a question.",
        discussion: """
            In a terminal each chapter waits: Enter or n goes on, b goes back, r repeats, s shows the guest's source, \
            a number goes to that chapter, q ends. Elsewhere, and with --no-interactive, all of it is printed.

            Exit status: 0; 1 a chapter went otherwise than told; 4 this kernel can show none of it; 64 usage; \
            125 no kernel; 130 Ctrl-C.
            """)

    @OptionGroup var backendOptions: BackendOptions
    @Option(
        help: ArgumentHelp("Only this chapter, 1 to 8; where it waits, the first one.", valueName: "number"))
    var chapter: Int?
    @Flag(help: "Print the chapters' titles.")
    var list = false
    @Flag(
        inversion: .prefixedNo,
        help: "Wait after each chapter; by default where input and output are a terminal.")
    var interactive: Bool?

    func validate() throws {
        if let chapter, !Chapters.all.indices.contains(chapter - 1) {
            throw ValidationError("--chapter \(chapter): there are chapters 1 to \(Chapters.all.count).")
        }
        try backendOptions.oneVersion()
    }

    func run() throws {
        let terminal = Terminal.output
        if list {
            for (index, chapter) in Chapters.all.enumerated() {
                terminal.print("\(index + 1)  \(chapter.title)")
            }
            return
        }
        terminal.print(terminal.styled("A tour of memory that changes hands", .bold))
        terminal.paragraph("Kernel: \(try backendOptions.open(aliases: .one, preservation: true).line).")
        PageStrip(terminal: terminal).printLegend()
        // From here on Ctrl-C is read, not suffered: a guest that runs is ended, and so is a question.
        let signals = try? SignalDescriptor()
        let stage = TourStage(options: backendOptions)
        let isInteractive = interactive ?? Terminal.isInteractive
        var guide = isInteractive ? TourGuide(signals: signals) : nil
        var results: [Int: TourStage.ChapterResult] = [:]
        var index = chapter.map { $0 - 1 } ?? 0
        let last = isInteractive ? Chapters.all.count - 1 : chapter.map { $0 - 1 } ?? Chapters.all.count - 1
        while index <= last {
            try tell(index, stage)
            if case .interrupted(let signal) = stage.result { throw interrupted(signal) }
            results[index] = stage.result
            if guide == nil {
                if let signal = signals?.pending() { throw interrupted(signal) }
                Chapters.all[index].tellAnswer()
                index += 1
                continue
            }
            switch guide?.next(after: index) {
            case .chapter(let next)?: index = next
            case .interrupted(let signal)?: throw interrupted(signal)
            case .end?, nil: index = last + 1
            }
        }
        try end(results)
    }

    private func interrupted(_ signal: Int32) -> ExitCode {
        Terminal.output.print()
        return ExitCode(128 + signal)
    }

    private func tell(_ index: Int, _ stage: TourStage) throws {
        let terminal = Terminal.output
        let chapter = Chapters.all[index]
        terminal.print()
        terminal.hanging(
            terminal.styled("\(index + 1)", .bold) + " ", " " + terminal.styled(chapter.title, .bold),
            indent: 3,
            used: 2)
        for paragraph in chapter.idea { terminal.paragraph(paragraph, indent: 3) }
        terminal.print()
        stage.begin()
        try chapter.play(stage)
        terminal.print()
        for paragraph in chapter.afterwards { terminal.paragraph(paragraph, indent: 3) }
        if !chapter.afterwards.isEmpty { terminal.print() }
        terminal.paragraph("Question: " + chapter.question, indent: 3, style: .bold)
    }

    private func end(_ results: [Int: TourStage.ChapterResult]) throws {
        var failed: [String] = []
        var notShown: [String] = []
        for (index, result) in results.sorted(by: { $0.key < $1.key }) {
            switch result {
            case .failed: failed.append(String(index + 1))
            case .notShown: notShown.append(String(index + 1))
            case .shown, .interrupted: break
            }
        }
        var text = failed.isEmpty ? "All as told" : "Otherwise than told: \(failed.joined(separator: ", "))"
        if !notShown.isEmpty {
            text = failed.isEmpty && notShown.count == results.count ? "" : text + ". "
            text += "Not shown by this kernel: \(notShown.joined(separator: ", "))"
        }
        let terminal = Terminal.output
        terminal.print()
        terminal.paragraph("\(text). Go on: minivmm list, minivmm litmus litmus, minivmm explain")
        if !failed.isEmpty { throw Status.checkFailed }
        if !notShown.isEmpty, notShown.count == results.count { throw Status.skipped }
    }
}
