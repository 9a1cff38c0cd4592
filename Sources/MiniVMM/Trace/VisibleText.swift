// SPDX-License-Identifier: MIT
/// Makes text from a guest or a file name safe to print: nothing in it can control the terminal or
/// change the order of the surrounding text.
public enum VisibleText {
    /// Control characters (C0, DEL, C1), marks and overrides of the writing direction, line and paragraph separators.
    public static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7f..<0xa0, 0x61c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069: true
        default: false
        }
    }

    /// Whether a byte of UTF-8 may belong to a hidden scalar. Few other bytes match.
    static func isSuspicious(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == 0x7f || byte == 0xc2 || byte == 0xd8 || byte == 0xe2
    }

    /// The text with hidden scalars as `\x1b` or `\u{202e}`.
    public static func escaped(_ text: String) -> String {
        guard text.utf8.contains(where: isSuspicious) else { return text }
        var visible = ""
        for scalar in text.unicodeScalars {
            if isHidden(scalar) { visible += escape(scalar) } else { visible.unicodeScalars.append(scalar) }
        }
        return visible
    }

    /// `\x1b` below 0x100 and `\u{202e}` above, whether the scalar is hidden or not.
    public static func escape(_ scalar: Unicode.Scalar) -> String {
        let digits = String(scalar.value, radix: 16)
        guard scalar.value < 0x100 else { return "\\u{\(digits)}" }
        return "\\x" + (digits.count < 2 ? "0" : "") + digits
    }
}
