// SPDX-License-Identifier: MIT
import MiniVMM

/// An element of an XML 1.0 document, with its attributes and contents in the order given.
struct XML {
    enum Content {
        case element(XML)
        /// Printed without indentation, because white space counts in it.
        case text(String)
    }
    let name: String
    var attributes: [(name: String, value: String)]
    var contents: [Content]

    init(_ name: String, _ attributes: [(name: String, value: String)] = [], _ contents: [Content] = []) {
        self.name = name
        self.attributes = attributes
        self.contents = contents
    }

    /// The document with this root, in UTF-8. It ends with a newline.
    var document: String {
        var text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        write(to: &text, indent: "")
        return text
    }

    private func write(to out: inout String, indent: String) {
        out += "\(indent)<\(name)"
        for (name, value) in attributes { out += " \(name)=\"\(Self.escaped(value, inAttribute: true))\"" }
        guard !contents.isEmpty else {
            out += "/>\n"
            return
        }
        out += ">"
        var isAfterElement = false
        for content in contents {
            switch content {
            case .text(let text): out += Self.escaped(text)
            case .element(let element):
                if !isAfterElement { out += "\n" }
                element.write(to: &out, indent: indent + "  ")
            }
            isAfterElement = if case .element = content { true } else { false }
        }
        out += (isAfterElement ? indent : "") + "</\(name)>\n"
    }

    /// The text with markup escaped.
    ///
    /// XML 1.0 has no form for most control characters, nor for bytes that are not UTF-8. They become `\x1b`, as everywhere
    /// in this program, and so do characters that change the direction of text.
    ///
    /// - Parameter inAttribute: whether to escape line ends and tabs, which a parser would replace by spaces there.
    static func escaped(_ text: String, inAttribute: Bool = false) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            // `]]>` is not allowed in text.
            case ">": escaped += "&gt;"
            case "\"" where inAttribute: escaped += "&quot;"
            case "\n", "\t":
                if inAttribute {
                    escaped += "&#\(scalar.value);"
                } else {
                    escaped.unicodeScalars.append(scalar)
                }
            case _ where ByteText.byte(scalar) != nil || Terminal.isMarker(scalar):
                escaped += ByteText.visible(String(scalar))
            case "\u{fffe}", "\u{ffff}": escaped += VisibleText.escape(scalar)
            case _ where VisibleText.isHidden(scalar): escaped += VisibleText.escape(scalar)
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
