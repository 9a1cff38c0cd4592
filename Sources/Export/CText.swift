// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

// Values of the language as C expressions.

enum CText {
    /// Bytes; whole pages as a multiple of `PAGE`.
    static func bytes(_ count: UInt64) -> String {
        switch (count / pageSize, count % pageSize) {
        case (0, 0): "0"
        case (1, 0): "PAGE"
        case (let pages, 0) where pages <= UInt64(Int32.max): "\(pages) * PAGE"
        default: word(count)
        }
    }

    static func word(_ value: UInt64) -> String {
        if value < 10 { return "\(value)" }
        return "0x" + String(value, radix: 16) + (value > UInt64(UInt32.max) ? "ULL" : "")
    }

    static func byte(_ value: UInt8) -> String { value < 10 ? "\(value)" : "0x" + String(value, radix: 16) }

    /// A string literal of printable ASCII.
    static func string(_ text: String) -> String {
        // A compiler may take two question marks for the beginning of a trigraph.
        "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("??", with: "?\\?")
            + "\""
    }

    /// Text that cannot end a comment.
    static func inComment(_ text: String) -> String {
        text.replacing("*/", with: "* /").replacing("/*", with: "/ *").replacing("??", with: "? ?")
    }

    static func errno(_ number: Int32) -> String { Errno(rawValue: number).symbol ?? "\(number)" }

    static func attributes(_ word: UInt64) -> String {
        switch word {
        case Attributes.private: "PRIVATE"
        case 0: "SHARED"
        default: self.word(word)
        }
    }

    /// Variables of one type, as many on a line as fit.
    static func declarations(_ type: String, _ variables: [String]) -> [String] {
        var lines: [String] = []
        for variable in variables {
            if let last = lines.last, last.utf8.count + variable.utf8.count < 95 {
                lines[lines.count - 1] = last.dropLast() + ", \(variable);"
            } else {
                lines.append("\(type) \(variable);")
            }
        }
        return lines
    }

    /// The text of an outcome, as a program writes it.
    static func outcome(_ outcome: StepOutcome) -> String {
        func at(_ word: String, _ place: UInt64?) -> String {
            word + (place.map { " at 0x" + String($0, radix: 16) } ?? "")
        }
        return switch outcome {
        case .ok: "ok"
        case .errno(let number, let place): at(errno(number), place)
        case .value(let value): "0x" + String(value, radix: 16)
        case .sigbus(let place): at("SIGBUS", place)
        case .differs(let place): at("differs", place)
        case .fault(let state, let place): at("fault \(state.rawValue)", place)
        case .mmio: "mmio"
        case .garbage: "garbage"
        case .status(let status, let place): at(status.rawValue, place)
        }
    }

    /// Patterns of fnmatch(3) for the outcomes that an expected one covers.
    ///
    /// - Parameter poisons: whether the memory of a page may have failed, which is a fault, too.
    static func patterns(_ expected: StepOutcome, poisons: Bool) -> [String] {
        let text = outcome(expected)
        let poisoned = "EHWPOISON at "
        switch expected {
        case .sigbus(nil), .fault(.private, nil), .errno(Errno.hardwarePoisoned.rawValue, nil):
            return [text + "*"]
        case .fault(.shared, nil): return [text + "*"] + (poisons ? [poisoned + "*"] : [])
        case .fault(.shared, let place?):
            return [text] + (poisons ? [poisoned + "0x" + String(place, radix: 16)] : [])
        default: return [text]
        }
    }

    static func advice(_ advice: Advice) -> String {
        switch advice {
        case .dontNeed: "MADV_DONTNEED"
        case .remove: "MADV_REMOVE"
        case .populateRead: "MADV_POPULATE_READ"
        case .populateWrite: "MADV_POPULATE_WRITE"
        case .collapse: "MADV_COLLAPSE"
        case .hwPoison: "MADV_HWPOISON"
        case .softOffline: "MADV_SOFT_OFFLINE"
        }
    }

    static func protection(_ protection: Protection) -> String {
        switch protection {
        case .none: "PROT_NONE"
        case .read: "PROT_READ"
        case .readWrite: "PROT_READ | PROT_WRITE"
        }
    }

    /// The mode of mbind(2) and the node, with the mode's name.
    static func policy(_ policy: MemoryPolicy) -> String {
        switch policy {
        case .standard: "0 /* MPOL_DEFAULT */, -1"
        case .preferred(let node): "1 /* MPOL_PREFERRED */, \(node)"
        case .bind(let node): "2 /* MPOL_BIND */, \(node)"
        case .local: "4 /* MPOL_LOCAL */, -1"
        }
    }

    /// A call that a guest_memfd does not support.
    static func call(_ call: FileCall, _ file: String) -> String {
        switch call {
        case .read: "read_from_file(\(file))"
        case .write: "answer(write(\(file), \"\", 1))"
        case .truncate: "answer(ftruncate(\(file), PAGE))"
        case .mapPrivate: "map_file_private(\(file))"
        case .grow: "answer(fallocate(\(file), 0, 0, PAGE))"
        }
    }

    /// The text with the end of each comment of several lines on a line of its own, and with the first line empty.
    static func inKernelStyle(_ text: String) -> String {
        var result: [Substring] = []
        var indent: Substring?
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let rest = line.drop { $0 == "\t" }
            let tabs = line.prefix(line.count - rest.count)
            if rest.hasPrefix("/*"), !rest.contains("*/") {
                indent = tabs
                result.append(tabs + "/*")
                if rest.count > 2 { result.append(tabs + " *" + rest.dropFirst(2)) }
            } else if let tabs = indent, rest.hasSuffix("*/") {
                if rest != " */" {
                    result.append(line.dropLast(3))
                }
                result.append(tabs + " */")
                indent = nil
            } else {
                result.append(line)
            }
        }
        return result.joined(separator: "\n")
    }

    /// A comment, with lines of at most 100 columns.
    static func comment(_ text: String) -> [String] {
        var lines = open(text, indent: "\t")
        lines[lines.count - 1] += " */"
        return lines
    }

    /// The lines of a comment at the left margin that goes on.
    static func openComment(_ text: String) -> [String] { open(text, indent: "") }

    private static func open(_ text: String, indent: String) -> [String] {
        let width = 97 - indent.utf8.count * 8
        var lines: [String] = []
        for word in inComment(text).split(separator: " ") {
            if let last = lines.last, last.utf8.count + word.utf8.count + 1 <= width {
                lines[lines.count - 1] = last + " " + word
            } else {
                lines.append(String(word))
            }
        }
        guard let first = lines.first else { return ["\(indent)/*"] }
        return ["\(indent)/* \(first)"] + lines.dropFirst().map { "\(indent) * \($0)" }
    }
}
