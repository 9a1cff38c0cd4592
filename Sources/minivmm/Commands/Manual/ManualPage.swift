// SPDX-License-Identifier: MIT
/// A manual page in man(7), for groff and mandoc.
struct ManualPage {
    private(set) var text = ""

    /// - Parameter date: like 2026-11-24, or empty.
    init(name: String, date: String) {
        line(
            ".TH \(name.uppercased().replacing("-", with: "\\-")) 1 \"\(date)\" \"minivmm \(Minivmm.version)\""
        )
    }

    private mutating func line(_ line: String) { text += line + "\n" }

    mutating func section(_ title: String) { line(".SH \(title.contains(" ") ? "\"\(title)\"" : title)") }

    /// Paragraphs, separated by empty lines; text in backquotes is bold.
    mutating func paragraphs(_ prose: String) {
        for (index, paragraph) in prose.split(separator: "\n\n").enumerated() {
            if index > 0 { line(".PP") }
            self.prose(String(paragraph).replacing("\n", with: " "))
        }
    }

    /// Folds the source; roff fills the lines again.
    private mutating func prose(_ text: String) {
        var row = ""
        for word in Self.formatted(text).split(separator: " ") {
            if !row.isEmpty, row.count + word.count >= 78 {
                line(Self.guarded(row))
                row = ""
            }
            row += (row.isEmpty ? "" : " ") + word
        }
        if !row.isEmpty { line(Self.guarded(row)) }
    }

    mutating func paragraph() { line(".PP") }

    /// Lines of roff source, for example from ``bold(_:)``, or a request.
    mutating func raw(_ roff: String, isRequest: Bool = false) { line(isRequest ? roff : Self.guarded(roff)) }

    /// A term and its meaning.
    mutating func item(_ term: String, _ prose: String) {
        line(".TP")
        line(Self.guarded(term))
        self.prose(prose.isEmpty ? "\\&" : prose)
    }

    /// Lines printed unchanged, such as a command to type.
    mutating func example(_ code: String) {
        line(".PP")
        line(".RS 4")
        line(".EX")
        for part in code.split(separator: "\n", omittingEmptySubsequences: false) {
            line(Self.guarded(Self.escaped(String(part))))
        }
        line(".EE")
        line(".RE")
    }

    // MARK: characters

    static func bold(_ text: String) -> String { "\\fB\(escaped(text))\\fR" }
    static func italic(_ text: String) -> String { "\\fI\(escaped(text))\\fR" }

    /// Text with roff's special characters escaped. A hyphen can still be copied as a hyphen.
    static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\e").replacing("-", with: "\\-")
    }

    /// Text between backquotes is bold.
    private static func formatted(_ text: String) -> String {
        let parts = text.split(separator: "`", omittingEmptySubsequences: false).map(String.init)
        // An unmatched backquote is printed.
        guard parts.count % 2 == 1 else { return escaped(text) }
        return parts.enumerated().map { $0.offset % 2 == 0 ? escaped($0.element) : bold($0.element) }.joined()
    }

    /// A period or quote at the start of a line would be a request.
    private static func guarded(_ line: String) -> String {
        line.hasPrefix(".") || line.hasPrefix("'") ? "\\&" + line : line
    }
}
