// SPDX-License-Identifier: MIT
import ArgumentParser
import MiniVMM

struct TourCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tour",
        abstract: "Teaches the interface in ten chapters: each an idea, a running guest and a question.",
        discussion: """
            In a terminal each chapter pauses. Enter or n continues, b goes back, r repeats, s shows the guest's source, \
            a number goes to that chapter, q quits. Elsewhere, and with --no-interactive, everything is printed at once.

            Exit status: 0; 1 a chapter did not behave as described; 4 this backend can show none of it; 64 usage; \
            125 no backend; 130 Ctrl-C.
            """)

    @OptionGroup var backendOptions: BackendOptions
    @Argument(
        help: ArgumentHelp(
            "Only this chapter, 1 to 8; in a terminal the first one. (default: all)", valueName: "chapter"))
    var number: Int?
    @Option(help: ArgumentHelp("The same as the argument.", valueName: "number"))
    var chapter: Int?
    @Flag(help: "Print the titles of the chapters.")
    var list = false
    @Flag(
        inversion: .prefixedNo,
        help: "Pause in each chapter. (default: if input and output are a terminal)")
    var interactive: Bool?

    func validate() throws {
        for chapter in [chapter, number].compactMap({ $0 }) where !Chapters.all.indices.contains(chapter - 1)
        {
            throw ValidationError(
                "there is no chapter \(chapter); the chapters are 1 to \(Chapters.all.count).")
        }
        if chapter != nil, number != nil { throw ValidationError("the chapter is given twice.") }
        try backendOptions.oneVersion()
    }

    func run() throws {
        let terminal = Terminal.output
        if list {
            for (index, chapter) in Chapters.all.enumerated() {
                terminal.print("\(index + 1)" + (index < 9 ? "   " : "  ") + chapter.title)
            }
            return
        }
        terminal.paragraph("A tour: converting guest memory between private and shared", style: .bold)
        terminal.paragraph("Backend: \(try backendOptions.open(aliases: .one, preservation: true).line).")
        PageStrip(terminal: terminal).printLegend()
        // From here on Ctrl-C is read from a descriptor. It ends the running guest or the prompt.
        let signals = try? SignalDescriptor()
        let stage = TourStage(options: backendOptions)
        let isInteractive = interactive ?? Terminal.isInteractive
        var guide = isInteractive ? TourGuide(signals: signals) : nil
        var results: [Int: TourStage.ChapterResult] = [:]
        let only = (number ?? chapter).map { $0 - 1 }
        var index = only ?? 0
        let last = isInteractive ? Chapters.all.count - 1 : only ?? Chapters.all.count - 1
        while index <= last {
            tellIdea(index)
            if let way = guide?.beforeRunning(index) {
                switch way {
                case .chapter(let next) where next == index: break
                case .chapter(let next):
                    index = next
                    continue
                case .interrupted(let signal): throw interrupted(signal)
                case .end: return try end(results)
                }
            }
            try run(index, stage)
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

    private func tellIdea(_ index: Int) {
        let terminal = Terminal.output
        let chapter = Chapters.all[index]
        terminal.print()
        terminal.hanging(
            terminal.styled("\(index + 1)", .bold) + " ", " " + terminal.styled(chapter.title, .bold),
            indent: 3,
            used: 2)
        for paragraph in chapter.idea { terminal.paragraph(paragraph, indent: 3) }
        terminal.print()
    }

    private func run(_ index: Int, _ stage: TourStage) throws {
        let terminal = Terminal.output
        let chapter = Chapters.all[index]
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
        var text =
            failed.isEmpty
            ? "Everything behaved as described"
            : "Chapters that did not behave as described: \(failed.joined(separator: ", "))"
        if !notShown.isEmpty {
            text = failed.isEmpty && notShown.count == results.count ? "" : text + ". "
            text += "Chapters that this backend cannot show: \(notShown.joined(separator: ", "))"
        }
        let terminal = Terminal.output
        terminal.print()
        terminal.paragraph("\(text).")
        terminal.print("Next, try:")
        for words in ["list", "litmus litmus", "explain"] {
            terminal.command("  ", "\(Arguments.program) \(words)")
        }
        if !failed.isEmpty { throw Status.checkFailed }
        if !notShown.isEmpty, notShown.count == results.count { throw Status.skipped }
    }
}
