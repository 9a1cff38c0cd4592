// SPDX-License-Identifier: MIT
import ConversionModel

/// A test with the places of its steps in the text.
public struct Source: Sendable {
    private final class Content: Sendable {
        let test: LitmusTest
        let places: [(line: Int, column: Int)]

        init(_ test: LitmusTest, _ places: [(line: Int, column: Int)]) {
            self.test = test
            self.places = places
        }
    }
    /// A test has many parts, and each run of it copies its source.
    private let content: Content

    /// The test without its comments.
    public var test: LitmusTest { content.test }
    /// Line and column of every step, both from 1, in the order of ``LitmusTest/steps``.
    public var places: [(line: Int, column: Int)] { content.places }

    /// The largest text that is accepted, bytes.
    public static let largestText = 1 << 20

    /// Reads the written form, as ``init(parsing:)`` does with bytes.
    ///
    /// - Throws: ``SyntaxError`` at the first error, or if the text exceeds ``largestText``.
    public init(parsing text: String) throws(SyntaxError) { try self.init(parsing: Array(text.utf8)) }

    /// Reads the written form in UTF-8. Time and memory are linear in its size.
    ///
    /// - Throws: ``SyntaxError`` at the first error, or if the text exceeds ``largestText``. A
    ///   ``LitmusTest/firstProblem()`` is such an error, too.
    public init(parsing bytes: [UInt8]) throws(SyntaxError) {
        guard bytes.count <= Self.largestText else {
            throw SyntaxError(line: 1, column: 1, message: "a test has at most \(Self.largestText) bytes")
        }
        var file = FileParser()
        for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            try file.take(line.last == UInt8(ascii: "\r") ? line.dropLast() : line)
        }
        content = Content(try file.finish(), file.places)
    }

    /// A test that was not read from a text. The places are those in ``LitmusTest/text``.
    ///
    /// - Throws: ``SyntaxError`` if the written form cannot be read back: the test has a
    ///   ``LitmusTest/firstProblem()``, or a line or the text is too long.
    public init(_ test: LitmusTest) throws(SyntaxError) { try self.init(parsing: test.text) }

    /// A variant of a test with the same steps, at the same places.
    package init(_ test: LitmusTest, placedAs source: Source) {
        content = Content(test, source.places)
    }

    /// A test that is never written as text. Its places are line 0.
    package init(unwritten test: LitmusTest) {
        content = Content(test, Array(repeating: (0, 0), count: test.steps.count))
    }
}

/// Parses the lines of a test.
private struct FileParser {
    private var line = 0
    private var name: String?
    private var test = LitmusTest(name: "")
    /// The body of the test, which gets it at the end: each of its changes lists all steps.
    private var body: [Entry] = []
    private var block: (start: Int, Parallel)?
    private var seen: Set<String> = []
    private(set) var places: [(line: Int, column: Int)] = []

    mutating func take(_ bytes: ArraySlice<UInt8>) throws(SyntaxError) {
        line += 1
        var parser = LineParser(try Lexer.tokens(bytes, line: line), line: line)
        guard !parser.isAtEnd else { return }
        let column = parser.column
        let keyword = try parser.word(
            "an actor (`host`, `vcpu0`, `child`) or a keyword (`test`, `memory`, …)")
        guard name != nil || keyword == "test" else {
            let near = NearWords.suggestion(for: keyword, among: ["test"])
            throw parser.error(
                at: column,
                near.isEmpty
                    ? "a test begins with `test \"what it shows\"`"
                    : "unknown keyword \(keyword.prefix(40))" + near)
        }
        try dispatch(keyword, column, &parser)
        try parser.end()
    }

    private mutating func dispatch(
        _ keyword: String, _ column: Int, _ parser: inout LineParser
    ) throws(SyntaxError) {
        switch keyword {
        case "test", "hazard", "vm", "aliases", "doors", "needs", "kernel", "memory":
            try header(keyword, column, &parser)
        case "parallel":
            guard block == nil else { throw parser.error(at: column, "parallel blocks cannot be nested") }
            block = (line, Parallel(steps: []))
        case "end":
            guard let (_, parallel) = block else {
                throw parser.error(at: column, "`end` without `parallel`")
            }
            body.append(.parallel(parallel))
            block = nil
        case "preempted":
            guard block != nil else {
                throw parser.error(at: column, "`preempted` belongs in a parallel block, after its steps")
            }
            guard block?.1.preemption == nil else {
                throw parser.error(at: column, "the block already has a `preempted` line")
            }
            block?.1.preemption = try parser.preemption()
        case _ where Clause.Kind(rawValue: keyword) != nil:
            guard let kind = Clause.Kind(rawValue: keyword), block != nil else {
                throw parser.error(at: column, "`\(keyword)` belongs in a parallel block, after its steps")
            }
            block?.1.clauses.append(try parser.clause(kind))
        default:
            guard let actor = Actor(word: keyword) else {
                throw unknown(keyword, column, parser)
            }
            let before = block?.1.clauses.last?.kind.rawValue ?? block?.1.preemption.map { _ in "preempted" }
            if let before {
                throw parser.error(
                    at: column, "a step after `\(before)`: in a block, steps come before everything else")
            }
            let step = try parser.step(of: actor)
            places.append((line, column))
            if block != nil { block?.1.steps.append(step) } else { body.append(.step(step)) }
        }
    }

    /// The words that can begin a line, besides actors.
    private static let keywords =
        ["test", "hazard", "vm", "aliases", "needs", "kernel", "memory", "parallel", "preempted", "end"]
        + Clause.Kind.allCases.map { $0.rawValue }

    private func unknown(_ keyword: String, _ column: Int, _ parser: LineParser) -> SyntaxError {
        // `vcpu` or `host99`: an actor without a number, or with one that is too large.
        if let stem = ["host", "vcpu", "child"].first(where: { stem in
            keyword.hasPrefix(stem) && keyword.dropFirst(stem.count).allSatisfy { $0.isNumber }
        }) {
            let example =
                stem == "vcpu"
                ? "`vcpu0` to `vcpu\(Actor.limit - 1)`" : "`\(stem)` to `\(stem)\(Actor.limit - 1)`"
            return parser.error(at: column, "unknown actor \(keyword.prefix(40)): expected \(example)")
        }
        let near = NearWords.suggestion(for: keyword, among: Self.keywords + ["host", "vcpu0", "child"])
        return parser.error(
            at: column,
            "unknown keyword \(keyword.prefix(40))"
                + (near.isEmpty
                    ? ": expected an actor (`host`, `host1`, `vcpu0`, `child`) or one of \(Self.keywords.joined(separator: ", "))"
                    : near))
    }

    private mutating func header(
        _ keyword: String, _ column: Int, _ parser: inout LineParser
    ) throws(SyntaxError) {
        guard body.isEmpty, block == nil else {
            throw parser.error(at: column, "`\(keyword)` belongs before the first step")
        }
        let kind = keyword == "doors" ? "aliases" : keyword
        if !["needs", "kernel", "memory"].contains(keyword), !seen.insert(kind).inserted {
            throw parser.error(at: column, "there is already a `\(keyword)` line")
        }
        switch keyword {
        case "test": name = try parser.string("what the test shows, in quotes")
        case "hazard":
            repeat { test.hazards.append(try parser.hazard()) } while !parser.isAtEnd
        case "vm": test.vm = try parser.vmType()
        // `doors two` is the former spelling.
        case "aliases", "doors":
            try parser.require("two")
            test.hasTwoAliases = true
        case "needs": test.needs.append(try parser.need())
        case "kernel": try parser.setting(&test.settings)
        default: test.memory.append(try parser.memory())
        }
    }

    mutating func finish() throws(SyntaxError) -> LitmusTest {
        guard let name else {
            throw SyntaxError(
                line: 1, column: 1, message: "the text is empty: a test begins with `test \"what it shows\"`")
        }
        if let (start, _) = block {
            throw SyntaxError(
                line: start, column: 1, message: "the parallel block that begins here has no `end`")
        }
        test.name = name
        test.body = body
        if let problem = test.firstProblem() {
            let place = problem.step.flatMap { places.indices.contains($0) ? places[$0] : nil } ?? (1, 1)
            throw SyntaxError(line: place.0, column: place.1, message: problem.message)
        }
        return test
    }
}
