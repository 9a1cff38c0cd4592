// SPDX-License-Identifier: MIT
import MiniVMM

/// A line of a program's output, split into words. Nothing in it is trusted.
struct LogLine {
    enum Token: Equatable {
        case word(String)
        case mark(Character)

        var word: String? { if case .word(let text) = self { text } else { nil } }
    }

    /// The text without colours and control characters.
    let text: String
    let tokens: [Token]
    /// The tokens in lower case; empty for a mark. Phrases are searched for in these.
    private let folded: [String]
    /// `key=value`, `key: value`, and `key value` where the value is a number; keys folded, without `a.` in front.
    let pairs: [(key: String, value: String)]

    /// Longer lines are cut in the middle: their errno is at the end.
    static let maximumBytes = 4 << 10
    private static let tail = 1 << 10

    init(_ line: String) {
        var bytes = Array(line.utf8.prefix(Self.maximumBytes + 1))
        if bytes.count > Self.maximumBytes {
            bytes =
                Array(bytes.prefix(Self.maximumBytes - Self.tail)) + [0x20]
                + Array(line.utf8.suffix(Self.tail))
        }
        text = String(decoding: Self.plain(bytes), as: UTF8.self)
        tokens = Self.split(text)
        folded = tokens.map { $0.word?.lowercased() ?? "" }
        pairs = Self.pairs(tokens)
    }

    /// Removes escape sequences of terminals; other control characters become blanks.
    private static func plain(_ bytes: [UInt8]) -> [UInt8] {
        var plain: [UInt8] = []
        plain.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            if byte == 0x1b, index < bytes.count, bytes[index] == UInt8(ascii: "[") {
                index += 1
                while index < bytes.count, !(0x40...0x7e).contains(bytes[index]) { index += 1 }
                index += 1
            } else {
                plain.append(byte < 0x20 || byte == 0x7f ? 0x20 : byte)
            }
        }
        return plain
    }

    private static func isWordCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    private static func split(_ text: String) -> [Token] {
        let bytes = Array(text.utf8)
        var tokens: [Token] = []
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            let follows = index + 1 < bytes.count && isWordCharacter(bytes[index + 1])
            let isSign =
                byte == UInt8(ascii: "-") && follows
                && (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[index + 1])
            if isWordCharacter(byte) || isSign {
                let start = index
                index += 1
                while index < bytes.count {
                    if isWordCharacter(bytes[index]) {
                        index += 1
                    } else if bytes[index] == UInt8(ascii: "-") || bytes[index] == UInt8(ascii: "."),
                        index + 1 < bytes.count, isWordCharacter(bytes[index + 1])
                    {
                        index += 2
                    } else {
                        break
                    }
                }
                tokens.append(.word(String(decoding: bytes[start..<index], as: UTF8.self)))
                continue
            }
            index += 1
            // Quotes say nothing: "gpa":4096 is gpa:4096.
            switch byte {
            case 0x20, UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "`"): break
            case 0x21..<0x7f: tokens.append(.mark(Character(Unicode.Scalar(byte))))
            default: break
            }
        }
        return tokens
    }

    private static func pairs(_ tokens: [Token]) -> [(key: String, value: String)] {
        var pairs: [(key: String, value: String)] = []
        for index in tokens.indices {
            guard let key = tokens[index].word else { continue }
            let name = NearWords.folded(key.split(separator: ".").last ?? "")
            func token(_ offset: Int) -> Token? {
                tokens.indices.contains(index + offset) ? tokens[index + offset] : nil
            }
            if let value = token(1)?.word, Words.number(value) != nil {
                pairs.append((name, value))
            }
            // data[0] = 5, and extra data[0]: 5
            if token(1) == .mark("["), let inner = token(2)?.word, token(3) == .mark("]"),
                [.mark(":"), .mark("=")].contains(token(4)), let value = token(5)?.word
            {
                pairs.append((name + inner, value))
            }
            guard token(1) == .mark("=") || token(1) == .mark(":"), token(2) != .mark(":") else { continue }
            var next = index + 2
            guard next < tokens.count, var value = tokens[next].word else { continue }
            // GuestAddress(4096), Some(4096)
            if Words.number(value) == nil, next + 2 < tokens.count, tokens[next + 1] == .mark("("),
                let inner = tokens[next + 2].word
            {
                value = inner
                next += 2
            }
            while next + 2 < tokens.count, tokens[next + 1] == .mark("|"), let more = tokens[next + 2].word {
                value += "|" + more
                next += 2
            }
            pairs.append((name, value))
        }
        return pairs
    }

    /// The value of the first of these keys that the line has.
    func value(_ keys: String...) -> String? {
        for key in keys {
            if let pair = pairs.first(where: { $0.key == key }) { return pair.value }
        }
        return nil
    }

    func number(_ keys: String...) -> UInt64? {
        for key in keys {
            if let number = pairs.lazy.filter({ $0.key == key }).compactMap({ Self.number($0.value) }).first {
                return number
            }
        }
        return nil
    }

    private static let flagNames: [String: UInt64] = [
        "private": 8, "kvm_memory_exit_flag_private": 8, "kvm_memory_attribute_private": 8,
        "kvm_mem_log_dirty_pages": 1, "kvm_mem_readonly": 2, "kvm_mem_guest_memfd": 4,
    ]

    /// A number, or names of flags with `|` between them.
    static func number(_ value: String) -> UInt64? {
        var sum: UInt64 = 0
        for part in value.split(separator: "|") {
            guard let number = Words.number(part) ?? flagNames[NearWords.folded(part)] else { return nil }
            sum |= number
        }
        return value.isEmpty ? nil : sum
    }

    /// The number as `explain` reads it on the command line, or the value as it is.
    static func normal(_ value: String) -> String { number(value).map(String.init) ?? value }

    /// Whether these words occur in this order, next to each other, in upper or lower case.
    func has(_ phrase: String) -> Bool { position(of: phrase) != nil }

    /// The index behind the phrase.
    func position(of phrase: String) -> Int? {
        let words = phrase.split(separator: " ").map(String.init)
        guard let first = words.first, folded.count >= words.count else { return nil }
        for start in 0...(folded.count - words.count) where folded[start] == first {
            if folded[start..<start + words.count].elementsEqual(words) { return start + words.count }
        }
        return nil
    }

    /// The first word from an index on that is a number.
    func numbers(from index: Int) -> [UInt64] {
        tokens.dropFirst(index).compactMap { $0.word.flatMap { Words.number($0) } }
    }
}
