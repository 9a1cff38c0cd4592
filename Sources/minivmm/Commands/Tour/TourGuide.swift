// SPDX-License-Identifier: MIT
import GuestPayloads
import MiniVMM
import SystemPackage

/// The prompts of an interactive tour.
struct TourGuide {
    enum Way {
        case chapter(Int)
        case end
        case interrupted(signal: Int32)
    }

    let signals: SignalDescriptor?
    private var reader = LineReader()
    private var signal: Int32?

    init(signals: SignalDescriptor?) { self.signals = signals }

    /// Waits between the idea of a chapter and its guest.
    ///
    /// - Returns: the chapter itself to run its guest.
    mutating func beforeRunning(_ index: Int) -> Way {
        while true {
            switch choice(at: index, "Enter: run it; s: source; b: back; q: quit >") {
            case .enter: return .chapter(index)
            case .way(let way): return way
            case .done: continue
            }
        }
    }

    /// Shows the answer on request, and asks which chapter is next.
    mutating func next(after index: Int) -> Way {
        var isAnswered = false
        while true {
            let enter = isAnswered ? "next" : "answer"
            switch choice(at: index, "Enter: \(enter); b: back; r: repeat; s: source; q: quit >") {
            case .enter where isAnswered: return Self.following(index)
            case .enter:
                Chapters.all[index].tellAnswer()
                isAnswered = true
            case .way(let way): return way
            case .done: continue
            }
        }
    }

    // MARK: commands

    private enum Choice {
        case enter
        case way(Way)
        /// The command was carried out here.
        case done
    }

    private static func following(_ index: Int) -> Way {
        index + 1 < Chapters.all.count ? .chapter(index + 1) : .end
    }

    /// Prompts once, and reads a command.
    private mutating func choice(at index: Int, _ hint: String) -> Choice {
        guard let line = ask("[\(index + 1)/\(Chapters.all.count)] \(hint)") else {
            return .way(signal.map { .interrupted(signal: $0) } ?? .end)
        }
        let word = line.split(separator: " ").first.map(String.init)?.lowercased() ?? ""
        switch word {
        case "": return .enter
        case "n": return .way(Self.following(index))
        case "b": return .way(.chapter(max(0, index - 1)))
        case "r": return .way(.chapter(index))
        case "q": return .way(.end)
        case "s":
            source(Chapters.all[index])
            return signal.map { .way(.interrupted(signal: $0)) } ?? .done
        default:
            if let number = Int(word), Chapters.all.indices.contains(number - 1) {
                return .way(.chapter(number - 1))
            }
            help(word)
            return .done
        }
    }

    private func help(_ word: String) {
        let terminal = Terminal.output
        if word != "?", word != "h" { terminal.print("   no such command: \(word)") }
        terminal.paragraph(
            "Enter: the next part. n: next chapter. b: previous chapter. r: repeat this one. s: the guest's source. "
                + "1 to \(Chapters.all.count): that chapter. q: quit. ?: this help.",
            indent: 3)
    }

    /// A line of input. Nil at the end of the input, or after a signal, which is then in ``signal``.
    private mutating func ask(_ text: String) -> String? {
        Terminal.output.paragraph(text, indent: 3, style: .dim)
        var came: Int32?
        let line = reader.next { [signals] in
            guard let signals else { return true }
            came = signals.wait(untilReadable: .standardInput)
            return came == nil
        }
        signal = came
        return line
    }

    // MARK: the source

    /// Prints the source of what runs in the chapter; in a terminal, one screen at a time.
    private mutating func source(_ chapter: Chapter) {
        let terminal = Terminal.output
        let text: String
        switch chapter.source {
        case .test(let test):
            terminal.print(terminal.styled("   a litmus test", .dim))
            text = test
        case .guest(let name):
            guard let payload = Catalogue.named(name) else { return }
            terminal.print(terminal.styled("   guest/\(name).S", .dim))
            text = payload.source
        }
        let screen = terminal.height.map { max(5, $0 - 2) } ?? .max
        var rows = 1
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let used = max(1, (line.count + 2 + terminal.width) / max(1, terminal.width))
            if rows + used > screen {
                guard let answer = ask("Enter: more; q: back >"), !answer.hasPrefix("q") else { return }
                rows = 0
            }
            terminal.print("   " + line)
            rows += used
        }
    }
}

extension Chapter {
    func tellAnswer() {
        let terminal = Terminal.output
        terminal.paragraph("Answer: " + answer, indent: 3)
        terminal.print()
        for (command, why) in toTry {
            terminal.command(terminal.width < 60 ? "   $ " : "   try  ", command)
            terminal.paragraph(why, indent: terminal.width < 60 ? 5 : 8, style: .dim)
        }
    }
}
