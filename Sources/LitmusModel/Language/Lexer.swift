// SPDX-License-Identifier: MIT
import ConversionModel

/// Why a text is not a litmus test: the first error and its place.
public struct SyntaxError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The line, from 1.
    public let line: Int
    /// The byte in the line, from 1.
    public let column: Int
    /// The error message, or the expected word, without the place.
    public let message: String

    /// An error at a line and a column, both from 1.
    public init(line: Int, column: Int, message: String) {
        self.line = line
        self.column = column
        self.message = message
    }

    /// `LINE:COLUMN: MESSAGE`.
    public var description: String { "\(line):\(column): \(message)" }
}

/// A token of a line.
package struct Token {
    package enum Kind: Equatable {
        case word(String)
        case number(UInt64)
        case string(String)
        /// `=>`
        case arrow
        /// `..`
        case dots
        /// One of `: @ + = ,`
        case sign(UInt8)
        case end
    }
    package let kind: Kind
    package let column: Int

    /// The token in error messages.
    package var name: String {
        switch kind {
        case .word(let word): "`\(word.prefix(40))`"
        case .number(let number): "the number \(number)"
        case .string: "a text in quotes"
        case .arrow: "`=>`"
        case .dots: "`..`"
        case .sign(let byte): "`\(Character(Unicode.Scalar(byte)))`"
        case .end: "the end of the line"
        }
    }
}

/// Splits a line into tokens.
package struct Lexer {
    private let bytes: ArraySlice<UInt8>
    private let line: Int
    private var position: Int

    /// The longest line, bytes.
    package static let longestLine = 1000

    package init(_ bytes: ArraySlice<UInt8>, line: Int) {
        self.bytes = bytes
        self.line = line
        position = bytes.startIndex
    }

    /// All tokens; the last one is `end`.
    package static func tokens(_ bytes: ArraySlice<UInt8>, line: Int) throws(SyntaxError) -> [Token] {
        guard bytes.count <= longestLine else {
            throw SyntaxError(
                line: line, column: longestLine + 1, message: "a line has at most \(longestLine) bytes")
        }
        var lexer = Lexer(bytes, line: line)
        var tokens: [Token] = []
        while true {
            let token = try lexer.next()
            tokens.append(token)
            if token.kind == .end { return tokens }
        }
    }

    package static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    private mutating func next() throws(SyntaxError) -> Token {
        while position < bytes.endIndex, bytes[position] == 0x20 || bytes[position] == 0x09 { position += 1 }
        let column = position - bytes.startIndex + 1
        guard position < bytes.endIndex, bytes[position] != UInt8(ascii: "#") else {
            position = bytes.endIndex
            return Token(kind: .end, column: column)
        }
        let byte = bytes[position]
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"):
            return Token(kind: .number(try number(column)), column: column)
        case _ where Self.isWordByte(byte): return Token(kind: .word(run()), column: column)
        case UInt8(ascii: "\""): return Token(kind: .string(try string(column)), column: column)
        case UInt8(ascii: "."):
            guard follows(UInt8(ascii: ".")) else { break }
            position += 2
            return Token(kind: .dots, column: column)
        case UInt8(ascii: "="):
            let isArrow = follows(UInt8(ascii: ">"))
            position += isArrow ? 2 : 1
            return Token(kind: isArrow ? .arrow : .sign(byte), column: column)
        case UInt8(ascii: ":"), UInt8(ascii: "@"), UInt8(ascii: "+"), UInt8(ascii: ","):
            position += 1
            return Token(kind: .sign(byte), column: column)
        default: break
        }
        let shown =
            (0x21..<0x7f).contains(byte)
            ? "`\(Character(Unicode.Scalar(byte)))`" : "byte 0x\(String(byte, radix: 16))"
        throw SyntaxError(line: line, column: column, message: "unexpected \(shown)")
    }

    private func follows(_ byte: UInt8) -> Bool {
        position + 1 < bytes.endIndex && bytes[position + 1] == byte
    }

    private mutating func run() -> String {
        let start = position
        while position < bytes.endIndex, Self.isWordByte(bytes[position]) { position += 1 }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func number(_ column: Int) throws(SyntaxError) -> UInt64 {
        let digits = run()
        let isHex = digits.hasPrefix("0x")
        // A sign is not a digit, but the initialisers of numbers accept one.
        let value =
            digits.dropFirst(isHex ? 2 : 0).allSatisfy { $0.isHexDigit }
            ? isHex ? UInt64(digits.dropFirst(2), radix: 16) : UInt64(digits) : nil
        guard let value else {
            throw SyntaxError(
                line: line, column: column,
                message:
                    "`\(digits.prefix(40))` is not a number: expected decimal digits, or 0x and hexadecimal digits, up to 2^64 - 1"
            )
        }
        return value
    }

    private mutating func string(_ column: Int) throws(SyntaxError) -> String {
        let start = position + 1
        position = start
        while position < bytes.endIndex, bytes[position] != UInt8(ascii: "\"") {
            guard (0x20..<0x7f).contains(bytes[position]), bytes[position] != UInt8(ascii: "\\") else {
                throw SyntaxError(
                    line: line, column: position - bytes.startIndex + 1,
                    message: "only printable ASCII is allowed in quotes, without backslashes")
            }
            position += 1
        }
        guard position < bytes.endIndex else {
            throw SyntaxError(
                line: line, column: column, message: "the text that begins here has no closing quote")
        }
        defer { position += 1 }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }
}
