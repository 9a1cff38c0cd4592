// SPDX-License-Identifier: MIT

/// A JSON value, written from left to right.
struct JSONText {
    private(set) var text = ""
    /// Whether the next member or element needs a comma before it.
    private var needsComma = false

    mutating func object(_ members: (inout JSONText) -> Void) { nested("{", "}", members) }
    mutating func array(_ elements: (inout JSONText) -> Void) { nested("[", "]", elements) }

    private mutating func nested(_ open: String, _ close: String, _ content: (inout JSONText) -> Void) {
        separate()
        text += open
        needsComma = false
        content(&self)
        text += close
        needsComma = true
    }

    /// The name of the next member of an object.
    mutating func name(_ name: String) {
        separate()
        quote(name)
        text += ":"
        needsComma = false
    }

    mutating func value(_ value: String) {
        separate()
        quote(value)
        needsComma = true
    }

    mutating func value(_ value: Int) { plain(String(value)) }
    mutating func value(_ value: UInt64) { plain(String(value)) }
    mutating func value(_ value: Bool) { plain(value ? "true" : "false") }

    mutating func member(_ name: String, _ value: String) {
        self.name(name)
        self.value(value)
    }

    /// Leaves the member out if there is no value.
    mutating func member(_ name: String, _ value: String?) {
        guard let value else { return }
        member(name, value)
    }

    mutating func member(_ name: String, _ value: Int) {
        self.name(name)
        self.value(value)
    }

    mutating func member(_ name: String, _ value: Bool) {
        self.name(name)
        self.value(value)
    }

    mutating func member(_ name: String, _ content: (inout JSONText) -> Void) {
        self.name(name)
        object(content)
    }

    mutating func members<Element>(
        _ name: String, _ elements: [Element], _ each: (inout JSONText, Element) -> Void
    ) {
        self.name(name)
        array { json in
            for element in elements { json.object { each(&$0, element) } }
        }
    }

    mutating func strings(_ name: String, _ strings: [String]) {
        self.name(name)
        array { json in
            for string in strings { json.value(string) }
        }
    }

    private mutating func plain(_ value: String) {
        separate()
        text += value
        needsComma = true
    }

    private mutating func separate() {
        if needsComma { text += "," }
        needsComma = false
    }

    private mutating func quote(_ string: String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\u{0}"..<" ":
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}
