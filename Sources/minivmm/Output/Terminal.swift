// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// An output, and how text is formatted for it.
struct Terminal: Sendable {
    let descriptor: FileDescriptor
    /// The name of the output in messages.
    let name: String
    /// Whether to use colour: only on a terminal, and not with NO_COLOR or TERM=dumb.
    let colour: Bool
    /// Whether to use drawing characters: only in a UTF-8 locale.
    let unicode: Bool
    let isTerminal: Bool
    /// Columns to fold at, in place of the terminal's own number.
    private var fixedWidth: Int?

    /// Columns: those of the terminal now, since a window can be resized; 80 if the output is not a terminal.
    var width: Int {
        get { fixedWidth ?? size.map { Int($0.ws_col) }.flatMap { $0 > 0 ? $0 : nil } ?? 80 }
        set { fixedWidth = newValue }
    }

    /// Rows of the terminal now; nil if the output is not a terminal.
    var height: Int? { size.map { Int($0.ws_row) }.flatMap { $0 > 0 ? $0 : nil } }

    private var size: winsize? {
        guard isTerminal else { return nil }
        var size = winsize()
        let answer = unsafe ioctl(descriptor.rawValue, UInt(TIOCGWINSZ), &size)
        return answer == 0 ? size : nil
    }

    static let output = Terminal(.standardOutput)
    static let diagnostics = Terminal(.standardError)

    /// - Parameter name: the name for a descriptor other than standard output and standard error.
    init(_ descriptor: FileDescriptor, name: String? = nil) {
        self.descriptor = descriptor
        self.name =
            name ?? (descriptor == .standardError ? "standard error" : "standard output")
        isTerminal = isatty(descriptor.rawValue) == 1
        let plain = (environment("NO_COLOR") ?? "") != "" || environment("TERM") == "dumb"
        colour = isTerminal && !plain
        let locale =
            [environment("LC_ALL"), environment("LC_CTYPE"), environment("LANG")]
            .compactMap { $0 }.first { !$0.isEmpty } ?? ""
        let folded = locale.lowercased()
        unicode = folded.contains("utf-8") || folded.contains("utf8")
    }

    /// Whether both standard input and standard output are terminals.
    static var isInteractive: Bool { isatty(0) == 1 && isatty(1) == 1 }

    enum Style: String, CaseIterable {
        case bold = "1"
        case dim = "2"
        case `private` = "34"
        case shared = "33"
        case held = "35"
        case good = "32"
        case bad = "31"
    }

    /// Styles are noncharacters in a string, which ``write(_:)`` turns into escape sequences. So an escape sequence from
    /// elsewhere, such as a file name, is never passed on.
    private static let markers: ClosedRange<UInt32> = 0xfdd0...0xfdef
    private static let end: UInt32 = 0xfdef

    static func isMarker(_ scalar: Unicode.Scalar) -> Bool { markers.contains(scalar.value) }

    func styled(_ text: String, _ style: Style) -> String {
        guard colour, let index = Style.allCases.firstIndex(of: style),
            let start = Unicode.Scalar(Self.markers.lowerBound + UInt32(index)),
            let end = Unicode.Scalar(Self.end)
        else { return text }
        return String(start) + text + String(end)
    }

    func print(_ text: String = "") { write(text + "\n") }

    /// Writes lines. Control characters other than line ends are escaped.
    func write(_ text: String) {
        let isPlain = text.utf8.allSatisfy { $0 == 10 || (0x20..<0x7f).contains($0) }
        put(isPlain ? Array(text.utf8) : Array(shown(text).utf8))
    }

    /// Writes bytes unchanged.
    func put(_ bytes: [UInt8]) {
        do {
            _ = try descriptor.writeAll(bytes)
        } catch {
            OutputFailures.note(name, (error as? Errno) ?? .ioError)
        }
    }

    private func shown(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars {
            if scalar == "\n" {
                shown.append("\n")
            } else if colour, Self.isMarker(scalar) {
                let index = Int(scalar.value - Self.markers.lowerBound)
                let code = Style.allCases.indices.contains(index) ? Style.allCases[index].rawValue : "0"
                shown += "\u{1b}[\(code)m"
            } else if let byte = ByteText.byte(scalar) {
                shown += "\\x" + String(byte, radix: 16)
            } else if VisibleText.isHidden(scalar) {
                shown += VisibleText.escape(scalar)
            } else {
                shown.unicodeScalars.append(scalar)
            }
        }
        return shown
    }

    /// Prints a line, folded at the terminal's width with a hanging indent.
    ///
    /// - Parameter used: columns of `start`; the indent if nil.
    func hanging(_ start: String, _ text: String, indent: Int, used columns: Int? = nil) {
        var line = start
        var used = columns ?? indent
        let limit = max(width, indent + 20)
        for (index, word) in text.split(separator: " ", omittingEmptySubsequences: false).enumerated() {
            let width = Self.visibleWidth(word)
            if index > 0, used + 1 + width > limit {
                print(line)
                line = String(repeating: " ", count: indent)
                used = indent
            } else if index > 0 {
                line += " "
                used += 1
            }
            line += word
            used += width
        }
        print(line)
    }

    /// Prints a command. On a terminal it is folded as in a shell, with a backslash at the end of a line.
    ///
    /// - Parameter label: text before the first line.
    func command(_ label: String, _ text: String) {
        let indent = width < 60 ? 2 : label.count
        let room = isTerminal ? max(20, width - label.count - 2) : .max
        var lines = [""]
        for word in text.split(separator: " ") {
            let line = lines[lines.count - 1]
            if !line.isEmpty, line.count + 1 + word.count > room {
                lines.append("  " + word)
            } else {
                lines[lines.count - 1] = line.isEmpty ? String(word) : line + " " + word
            }
        }
        for (index, line) in lines.enumerated() {
            print(
                (index == 0 ? label : String(repeating: " ", count: indent)) + styled(line, .good)
                    + (index < lines.count - 1 ? " \\" : ""))
        }
    }

    /// The number of characters without style markers.
    private static func visibleWidth(_ text: Substring) -> Int {
        text.count { character in !character.unicodeScalars.allSatisfy(isMarker) }
    }

    /// Prints a paragraph folded to the width, each line indented.
    func paragraph(_ text: String, indent: Int = 0, style: Style? = nil) {
        for line in Self.folded(text, max(20, min(width, 100) - indent)) {
            print(String(repeating: " ", count: indent) + (style.map { styled(line, $0) } ?? line))
        }
    }

    /// The words of a text in lines of at most `limit` characters. A longer word has a line of its own.
    static func folded(_ text: String, _ limit: Int) -> [String] {
        var lines: [String] = []
        for word in text.split(separator: " ") {
            if let last = lines.last, last.count + 1 + word.count <= limit {
                lines[lines.count - 1] += " " + word
            } else {
                lines.append(String(word))
            }
        }
        return lines
    }
}

/// An environment variable.
func environment(_ name: String) -> String? {
    unsafe getenv(name).map { unsafe Arguments.string($0) }
}

/// `0x` and hex digits.
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
