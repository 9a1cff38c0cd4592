import Explain
import MiniVMM
import Synchronization

/// The text trace for people who watch: aligned, coloured and folded as the terminal is, and if they want to know why,
/// a sentence of it under each event.
///
/// Lines, names and fields are those of ``TextTrace``.
final class ExplainedTrace: TraceSink {
    private let terminal: Terminal
    private let explains: Bool
    private let state = Mutex(State())

    private struct State {
        var origin: UInt64 = 0
        var printed = PrintedText()
    }

    /// Below this an event has no columns.
    private static let narrow = 72
    /// Where the event's name begins, where there are columns.
    private static let column = 20
    private static let nameWidth = 22

    init(_ terminal: Terminal, explains: Bool) {
        var terminal = terminal
        // A file is for programs that look for lines, and is not folded.
        if !terminal.isTerminal { terminal.width = .max }
        self.terminal = terminal
        self.explains = explains
    }

    func begin(kernel: KernelIdentity, time: UInt64) {
        state.withLock { $0.origin = time }
        terminal.hanging(
            "", terminal.styled("# trace of \(kernel), times in microseconds", .dim), indent: 2, used: 0)
    }

    func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        state.withLock { state in
            let (isPrinting, ended) = state.printed.take(event, by: actor, time: time)
            for line in ended { write(line, state.origin) }
            if !isPrinting { line(EventFields(event), actor, time &- state.origin) }
        }
    }

    func flush() {
        state.withLock { state in
            for line in state.printed.end() { write(line, state.origin) }
        }
    }

    private func write(_ line: PrintedText.Line, _ origin: UInt64) {
        self.line(EventFields(console: line.text, exits: line.exits), line.actor, line.time &- origin)
    }

    private func line(_ event: EventFields, _ actor: Actor, _ nanoseconds: UInt64) {
        let who = actor.name
        let time = "\(nanoseconds / 1000).\(nanoseconds / 100 % 10)"
        let isNarrow = terminal.width < Self.narrow
        let indent = isNarrow ? 2 : Self.column
        var start = isNarrow ? time + " " : Self.left(time, 11) + "  "
        start =
            terminal.styled(start, .dim) + (isNarrow ? who + " " : Self.right(who, Self.column - start.count))
        let name = terminal.styled(event.name, style(of: event))
        let used = isNarrow ? time.count + who.count + 2 : Self.column
        let gap = isNarrow ? "" : String(repeating: " ", count: max(0, Self.nameWidth - event.name.count))
        let fields = event.fields.map { " " + field($0.key, $0.value, in: event) }.joined()
        terminal.hanging(start, name + gap + fields, indent: isNarrow ? 2 : indent + 2, used: used)
        guard explains, let why = EventTexts.why(event) else { return }
        if terminal.width == .max {
            terminal.print(String(repeating: " ", count: indent) + why)
        } else {
            terminal.paragraph(why, indent: indent, style: .dim)
        }
    }

    private func field(_ key: String, _ value: EventFields.Value, in event: EventFields) -> String {
        let text = value.text
        let style: Terminal.Style? =
            switch (key, text) {
            case (_, "private"): .private
            case (_, "shared"): .shared
            case ("error", _), ("error_offset", _): .bad
            // The errno of a memory fault is how it comes, and no error.
            case ("errno", let number): number == "0" || event.name == "memory-fault" ? nil : .bad
            default: nil
            }
        return terminal.styled(key + "=", .dim) + (style.map { terminal.styled(text, $0) } ?? text)
    }

    private func style(of event: EventFields) -> Terminal.Style {
        switch event.name {
        case "not-converted", "mmio": .bad
        case "hold", "wait", "ask-holders": .held
        case "converted": .good
        default: .bold
        }
    }

    private static func left(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private static func right(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}

extension EventFields.Value {
    /// As the text trace has it: addresses in hex; a text with spaces or control characters is quoted, so that what a guest
    /// prints does not steer the terminal.
    fileprivate var text: String {
        switch self {
        case .number(let value): return "\(value)"
        case .address(let value): return hex(value)
        case .signed(let value): return "\(value)"
        case .flag(let value): return value ? "yes" : "no"
        case .text(let value):
            let isPlain = value.unicodeScalars.allSatisfy {
                $0.value > 32 && $0 != "\"" && !VisibleText.isHidden($0)
            }
            if isPlain { return value }
            return JSON.string(value).text
        }
    }
}
