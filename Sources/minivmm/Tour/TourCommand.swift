import ArgumentParser
import GuestPayloads
import MiniVMM

struct TourCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tour",
        abstract: "Eight chapters, from hello to a race: each a running guest, an idea and a question.",
        discussion: """
            In a terminal each chapter waits: Enter or n goes on, b goes back, r repeats, s shows the guest's source, \
            a number goes to that chapter, q ends. Elsewhere, and with --no-interactive, all of it is printed.

            Exit status: 0; 1 a chapter went otherwise than told; 64 usage; 125 no kernel.
            """)

    @OptionGroup var kernel: KernelOptions
    @Option(help: ArgumentHelp("Only this chapter, 1 to 8.", valueName: "number"))
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
        try kernel.oneVersion()
    }

    func run() throws {
        let terminal = Terminal.output
        if list {
            for (index, chapter) in Chapters.all.enumerated() {
                terminal.print("\(index + 1)  \(chapter.title)")
            }
            return
        }
        let stage = TourStage(kernel: kernel)
        terminal.print(terminal.styled("A tour of memory that changes hands", .bold))
        terminal.paragraph("Kernel: \(try kernel.open(doors: .one, preservation: true).line).")
        terminal.print(PageStrip(terminal: terminal).legend)
        let isInteractive = interactive ?? (Terminal.isInteractive && chapter == nil)
        var index = chapter.map { $0 - 1 } ?? 0
        let last = chapter.map { $0 - 1 } ?? Chapters.all.count - 1
        while index <= last {
            try tell(index, stage)
            guard isInteractive else {
                answer(index)
                index += 1
                continue
            }
            guard let next = prompt(index) else { break }
            index = next
        }
        terminal.print()
        terminal.paragraph(
            stage.failures == 0
                ? "All as told. Go on: minivmm list, minivmm litmus litmus, minivmm explain"
                : "\(stage.failures) not as told.")
        if stage.failures > 0 { throw Status.checkFailed }
    }

    private func tell(_ index: Int, _ stage: TourStage) throws {
        let terminal = Terminal.output
        let chapter = Chapters.all[index]
        terminal.print()
        terminal.print(terminal.styled("\(index + 1)  \(chapter.title)", .bold))
        for paragraph in chapter.idea { terminal.paragraph(paragraph, indent: 3) }
        terminal.print()
        try chapter.play(stage)
        terminal.print()
        for paragraph in chapter.afterwards { terminal.paragraph(paragraph, indent: 3) }
        terminal.print()
        terminal.paragraph("Question: " + chapter.question, indent: 3, style: .bold)
    }

    private func answer(_ index: Int) {
        let terminal = Terminal.output
        let chapter = Chapters.all[index]
        terminal.paragraph("Answer: " + chapter.answer, indent: 3)
        terminal.print()
        for (command, why) in chapter.toTry {
            terminal.print("   try  " + terminal.styled(command, .good))
            terminal.paragraph(why, indent: 8, style: .dim)
        }
    }

    // MARK: the one who learns

    /// Asks what is next.
    ///
    /// - Returns: the chapter, nil for the end.
    private func prompt(_ index: Int) -> Int? {
        let terminal = Terminal.output
        var isAnswered = false
        while true {
            let hint = isAnswered ? "next n, back b, repeat r, source s, quit q" : "think, then Enter"
            terminal.print(terminal.styled("   [\(index + 1)/\(Chapters.all.count)] \(hint)", .dim))
            guard let line = readLine() else { return nil }
            let word = line.split(separator: " ").first.map(String.init)?.lowercased() ?? ""
            switch word {
            case "" where !isAnswered, "a":
                answer(index)
                isAnswered = true
            case "", "n": return index + 1
            case "b": return max(0, index - 1)
            case "r": return index
            case "s": source(index)
            case "q": return nil
            default:
                if let number = Int(word), Chapters.all.indices.contains(number - 1) { return number - 1 }
                terminal.paragraph(
                    "Enter or a: the answer, then on. n next, b back, r repeat, s the guest's source, 1 to "
                        + "\(Chapters.all.count) a chapter, q quit.", indent: 3)
            }
        }
    }

    private func source(_ index: Int) {
        let terminal = Terminal.output
        guard let name = Chapters.all[index].guest, let payload = Catalogue.named(name) else {
            return terminal.paragraph("No guest runs in this chapter.", indent: 3)
        }
        terminal.print(terminal.styled("   guest/\(name).S", .dim))
        for line in payload.source.split(separator: "\n", omittingEmptySubsequences: false) {
            terminal.print("   " + line)
        }
    }
}
