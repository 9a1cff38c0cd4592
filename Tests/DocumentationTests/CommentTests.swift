// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// Every public declaration that throws must document its errors. A rule of .swift-format requires the comment itself.
struct CommentTests {
    @Test func throwingDeclarationsDocumentTheirErrors() throws {
        let files = FileManager.default.enumerator(
            at: Document.root.appendingPathComponent("Sources"), includingPropertiesForKeys: nil)
        let paths = (files?.allObjects as? [URL] ?? []).filter { $0.pathExtension == "swift" }.map(\.path)
        #expect(paths.count > 100)
        for path in paths.sorted() {
            let text = try String(contentsOfFile: path, encoding: .utf8)
            guard text.contains("throws") else { continue }
            for (line, declaration) in Self.silent(in: text) {
                let place = path.dropFirst(Document.root.path.count + 1)
                Issue.record("\(place):\(line): no \"- Throws:\" in the comment of: \(declaration)")
            }
        }
    }

    @Test func everyFormOfDeclarationIsFound() {
        let text = """
            public protocol P {
                /// Says nothing of errors.
                func a() throws
                /// - Throws: `EIO`.
                func b() throws
                var c: Int { get throws }
            }
            @safe public struct S {
                public init(
                    _ x: Int = 0
                ) throws(Errno) {}
                @inlinable
                public subscript(i: Int) -> Int { get throws(Errno) { 0 } }
                public var d: Int {
                    get async throws { 0 }
                }
                /// - Throws: `EIO`.
                @inlinable
                public func e()
                    throws(Errno) -> Int
                { 0 }
                public func f(_ body: () throws -> Void) -> () throws -> Void { body }  // throws
                func g() throws {}
            }
            """
        #expect(Self.silent(in: text).map(\.line) == [3, 6, 9, 13, 14])
    }

    /// The throwing declarations without documented errors, with their lines, from 1.
    private static func silent(in text: String) -> [(line: Int, declaration: String)] {
        let raw = text.components(separatedBy: "\n")
        let lines = raw.map { $0.trimmingCharacters(in: .whitespaces) }
        let indents = raw.map { $0.prefix { $0 == " " }.count }
        let code = code(of: lines)
        let start = /^(?:@\w+(?:\([^)]*\))? )*((?:[a-z]+(?:\([a-z]+\))? )*)(?:func|init|subscript|var)\b/
        /// The indentation of the enclosing public protocol.
        var open: Int?
        var silent: [(line: Int, declaration: String)] = []
        for (index, line) in code.enumerated() {
            if indents[index] == open, line.hasPrefix("}") { open = nil }
            if line.contains("public protocol "), line.hasSuffix("{") { open = indents[index] }
            let isMember = open.map { indents[index] == $0 + 4 } ?? false
            guard isMember || line.contains("public "),
                let words = line.firstMatch(of: start)?.1.split(separator: " ")
            else { continue }
            guard isMember || words.contains("public") else { continue }
            var end = index + 1
            var declaration = line
            while end < code.count, hasOpenParenthesis(declaration) || continues(code[end]) {
                declaration += " " + code[end]
                end += 1
            }
            guard throwsItself(declaration), !saysErrors(above: index, lines) else { continue }
            silent.append((index + 1, line))
        }
        return silent
    }

    /// The lines without comments and without the contents of string literals.
    private static func code(of lines: [String]) -> [String] {
        var isInText = false
        return lines.map { line in
            // An odd number of triple quotes.
            let isEdge = line.components(separatedBy: "\"\"\"").count.isMultiple(of: 2)
            defer { if isEdge { isInText.toggle() } }
            guard !isInText, !line.hasPrefix("//") else { return "" }
            guard line.contains("\"") || line.contains("//") else { return line }
            return line.replacing(/"(?:\\.|[^"\\])*"/, with: "\"\"").replacing(/\ *\/\/.*/, with: "")
        }
    }

    private static func hasOpenParenthesis(_ text: String) -> Bool {
        text.count { $0 == "(" } > text.count { $0 == ")" }
    }

    private static func continues(_ line: String) -> Bool {
        ["throws", "async", "->", "where", "{", "get "].contains { line.hasPrefix($0) }
    }

    /// Whether the declaration or its getter throws, and not only a closure among its types.
    private static func throwsItself(_ declaration: String) -> Bool {
        var depth = 0
        var outside = ""
        for character in declaration {
            if character == "(" || character == "[" { depth += 1 }
            if depth == 0 { outside.append(character) }
            if character == ")" || character == "]" { depth -= 1 }
        }
        let parts = outside.split(separator: "{", maxSplits: 1)
        let head = parts.first?.components(separatedBy: "->")[0] ?? ""
        return head.contains(/\bthrows\b/)
            || parts.count > 1 && parts[1].prefixMatch(of: /\ *get (async )?throws\b/) != nil
    }

    /// Whether the comment above a line has `- Throws:`. Attributes may be in between.
    private static func saysErrors(above index: Int, _ lines: [String]) -> Bool {
        for line in lines[..<index].reversed() {
            if line.hasPrefix("/// - Throws:") { return true }
            let isAttribute = line.wholeMatch(of: /(@\w+(\(.*\))? ?)+/) != nil
            guard isAttribute || line.hasPrefix("///") else { return false }
        }
        return false
    }
}
