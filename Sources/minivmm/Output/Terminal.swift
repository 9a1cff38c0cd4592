// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// Where text goes, and what it may look like there.
struct Terminal: Sendable {
    let descriptor: FileDescriptor
    /// How a message names it.
    let name: String
    /// Colour: only on a terminal, and not under NO_COLOR or TERM=dumb.
    let colour: Bool
    /// Drawing characters: only where the locale says UTF-8.
    let unicode: Bool
    let isTerminal: Bool
    /// Columns, 80 where nobody knows.
    var width: Int
    /// Rows, or nil where there is no end to them.
    let height: Int?

    static let output = Terminal(.standardOutput)
    static let diagnostics = Terminal(.standardError)

    /// - Parameter name: of a descriptor that is neither standard output nor standard error.
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
        var size = winsize()
        let answer = unsafe ioctl(descriptor.rawValue, UInt(TIOCGWINSZ), &size)
        let known = isTerminal && answer == 0
        width = known && size.ws_col > 0 ? Int(size.ws_col) : 80
        height = known && size.ws_row > 0 ? Int(size.ws_row) : nil
    }

    /// Somebody is there to be asked.
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

    /// Styles are noncharacters in a string, which ``write(_:)`` turns into sequences: a sequence that comes from elsewhere,
    /// from a file's name say, is never one.
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

    /// Writes lines. What is hidden in them, but the end of a line, is escaped.
    func write(_ text: String) {
        let isPlain = text.utf8.allSatisfy { $0 == 10 || (0x20..<0x7f).contains($0) }
        put(isPlain ? Array(text.utf8) : Array(shown(text).utf8))
    }

    /// Writes bytes as they are.
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

    /// Prints a line that goes on below itself, indented, where the terminal ends.
    ///
    /// - Parameter used: columns of `start`; as many as the indent if it is not said.
    func hanging(_ start: String, _ text: String, indent: Int, used columns: Int? = nil) {
        var line = start
        var used = columns ?? indent
        for (index, word) in text.split(separator: " ", omittingEmptySubsequences: false).enumerated() {
            let width = Self.visibleWidth(word)
            if index > 0, used + 1 + width > max(self.width, indent + 20) {
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

    /// Prints a command that goes on, where the line of a terminal ends, as a shell has it: behind a backslash.
    ///
    /// - Parameter label: what is before the first line.
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

    /// Characters without the marks of styles.
    private static func visibleWidth(_ text: Substring) -> Int {
        text.count { character in !character.unicodeScalars.allSatisfy(isMarker) }
    }

    /// Prints a paragraph folded to the width, each line indented.
    func paragraph(_ text: String, indent: Int = 0, style: Style? = nil) {
        let limit = max(20, min(width, 100) - indent)
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, line.count + 1 + word.count > limit {
                print(String(repeating: " ", count: indent) + (style.map { styled(line, $0) } ?? line))
                line = ""
            }
            line += (line.isEmpty ? "" : " ") + word
        }
        if !line.isEmpty {
            print(String(repeating: " ", count: indent) + (style.map { styled(line, $0) } ?? line))
        }
    }
}

/// An environment variable.
func environment(_ name: String) -> String? {
    unsafe getenv(name).map { unsafe Arguments.string($0) }
}

/// `0x` and hex digits.
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
