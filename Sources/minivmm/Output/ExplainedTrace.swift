// SPDX-License-Identifier: MIT
import Explain
import MiniVMM
import Synchronization
import SystemPackage

/// The text trace on a terminal: aligned, coloured and wrapped, and with `--explain` a sentence below each event.
///
/// It prints the same lines, names and fields as ``TextTrace``.
final class ExplainedTrace: TraceSink {
    private let terminal: Terminal
    private let explains: Bool
    private let state = Mutex(State())

    private struct State {
        var origin: UInt64 = 0
        var console = ConsoleLines<Actor>()
    }

    /// On terminals with fewer columns, events are not aligned in columns.
    private static let narrow = 72
    /// The column of the event's name.
    private static let column = 20
    private static let nameWidth = 22

    init(_ terminal: Terminal, explains: Bool) {
        var terminal = terminal
        // Only a terminal gets wrapped lines: programs that read the output expect one line per event.
        if !terminal.isTerminal { terminal.width = .max }
        self.terminal = terminal
        self.explains = explains
    }

    func begin(backend: BackendIdentity, time: UInt64) {
        state.withLock { $0.origin = time }
        let unit = backend.kind == .simulated ? "simulated time" : "times"
        terminal.hanging(
            "", terminal.styled("# trace of \(backend), \(unit) in microseconds", .dim), indent: 2, used: 0)
    }

    func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        state.withLock { state in
            if let letter = event.printedLetter {
                let ended = state.console.print(letter, by: actor, time: time)
                if let ended { write(ended, state.origin) }
                return
            }
            if let ended = state.console.end(of: actor) { write(ended, state.origin) }
            line(EventFields(event), actor, time &- state.origin)
        }
    }

    func flush() {
        state.withLock { state in
            for line in state.console.endAll() { write(line, state.origin) }
        }
    }

    private func write(_ line: ConsoleLines<Actor>.Line, _ origin: UInt64) {
        self.line(EventFields(console: line.text, exits: line.exits), line.actor, line.time &- origin)
    }

    private func line(_ event: EventFields, _ actor: Actor, _ nanoseconds: UInt64) {
        let name = actor.description
        let time = "\(nanoseconds / 1000).\(nanoseconds / 100 % 10)"
        let isNarrow = terminal.width < Self.narrow
        let indent = isNarrow ? 2 : Self.column
        var start = isNarrow ? time + " " : Self.left(time, 11) + "  "
        start =
            terminal.styled(start, .dim)
            + (isNarrow ? name + " " : Self.right(name, Self.column - start.count))
        let spelling = event.name.spelling.description
        let styledName = terminal.styled(spelling, style(of: event))
        let used = isNarrow ? time.count + name.count + 2 : Self.column
        let gap = isNarrow ? "" : String(repeating: " ", count: max(0, Self.nameWidth - spelling.count))
        let fields = event.fields.map { " " + field($0.key, $0.value, in: event) }.joined()
        terminal.hanging(start, styledName + gap + fields, indent: isNarrow ? 2 : indent + 2, used: used)
        guard explains else { return }
        let why = EventTexts.why(event)
        if terminal.width == .max {
            terminal.print(String(repeating: " ", count: indent) + why)
        } else {
            terminal.paragraph(why, indent: indent, style: .dim)
        }
    }

    private func field(_ key: EventKey, _ value: EventFields.Value, in event: EventFields) -> String {
        let style: Terminal.Style? =
            switch (key, value) {
            case (_, .text(PageState.private.rawValue)): .private
            case (_, .text(PageState.shared.rawValue)): .shared
            case (.error, _), (.errorOffset, _): .bad
            // Every memory fault has an errno; it is not a failure.
            case (.errno, .signed(let number)): number == 0 || event.name == .memoryFault ? nil : .bad
            default: nil
            }
        let text = value.text(of: key)
        return terminal.styled(key.spelling.description + "=", .dim)
            + (style.map { terminal.styled(text, $0) } ?? text)
    }

    private func style(of event: EventFields) -> Terminal.Style {
        switch event.name {
        case .notConverted, .mmio: .bad
        case .hold, .wait, .askHolders: .held
        case .converted: .good
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
    /// The value as ``TextTrace`` prints it.
    fileprivate func text(of key: EventKey) -> String {
        var out = OutputBuffer(.standardError)
        switch self {
        case .number(let value): out.appendText(value, isAddress: key.type == .address)
        case .signed(let value): out.appendText(value)
        case .flag(let value): out.appendText(value)
        case .text(let value): out.appendText(value)
        }
        return String(decoding: out.bytes, as: UTF8.self)
    }
}
