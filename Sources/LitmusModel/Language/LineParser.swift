// SPDX-License-Identifier: MIT
import ConversionModel

/// Parses the tokens of a line.
package struct LineParser {
    private let tokens: [Token]
    private let line: Int
    private var position = 0
    /// Words that would have been accepted at the current position, for suggestions.
    private var candidates: [String] = []
    /// The place of the next action, if its line has it before the action's other arguments.
    package var given: Extent?

    /// - Parameter tokens: the last one is `end`.
    package init(_ tokens: [Token], line: Int) {
        self.tokens = tokens
        self.line = line
    }

    package var token: Token { tokens[min(position, tokens.count - 1)] }
    package var column: Int { token.column }
    package var isAtEnd: Bool { token.kind == .end }

    package func error(at column: Int? = nil, _ message: String) -> SyntaxError {
        SyntaxError(line: line, column: column ?? self.column, message: message)
    }

    private func unexpected(_ wanted: String) -> SyntaxError {
        error("expected \(wanted), found \(token.name)\(suggestion)")
    }

    /// Names the words most like the current one among those that would have been accepted.
    private var suggestion: String {
        guard case .word(let word) = token.kind else { return "" }
        return NearWords.suggestion(for: word, among: candidates)
    }

    private mutating func advance() {
        position += 1
        candidates.removeAll(keepingCapacity: true)
    }

    // MARK: single tokens

    package mutating func end() throws(SyntaxError) {
        guard isAtEnd else { throw unexpected("the end of the line") }
    }

    package mutating func word(_ wanted: String) throws(SyntaxError) -> String {
        guard case .word(let word) = token.kind else { throw unexpected(wanted) }
        advance()
        return word
    }

    package mutating func string(_ wanted: String) throws(SyntaxError) -> String {
        guard case .string(let text) = token.kind else { throw unexpected(wanted) }
        advance()
        return text
    }

    package mutating func number<Number: FixedWidthInteger>(
        _ wanted: String, upTo limit: Number = .max
    ) throws(SyntaxError) -> Number {
        guard case .number(let value) = token.kind else { throw unexpected(wanted) }
        guard let number = Number(exactly: value), number <= limit else {
            throw error("\(value) is too large: expected \(wanted), at most \(limit)")
        }
        advance()
        return number
    }

    /// Consumes the word if it is next.
    package mutating func take(_ word: String) -> Bool {
        guard token.kind == .word(word) else {
            candidates.append(word)
            return false
        }
        advance()
        return true
    }

    /// Throws if the next token is a word like this one and a number follows. No place begins with a word and a number.
    package func refuseMisspelt(_ word: String) throws(SyntaxError) {
        guard case .word(let found) = token.kind, position + 1 < tokens.count,
            case .number = tokens[position + 1].kind
        else { return }
        let near = NearWords.suggestion(for: found, among: [word])
        guard near.isEmpty else { throw error("expected a place, found `\(found.prefix(40))`\(near)") }
    }

    package mutating func take(_ kind: Token.Kind) -> Bool {
        guard token.kind == kind else { return false }
        advance()
        return true
    }

    package mutating func require(_ word: String) throws(SyntaxError) {
        guard take(word) else { throw unexpected("`\(word)`") }
    }

    package mutating func require(sign: Character, _ byte: UInt8) throws(SyntaxError) {
        guard take(.sign(byte)) else { throw unexpected("`\(sign)`") }
    }

    /// One of these words.
    ///
    /// - Parameter words: suggestions for a misspelt word, besides those tried before.
    package mutating func choice<Choice>(
        _ wanted: @autoclosure () -> String, among words: @autoclosure () -> [String] = [],
        _ make: (String) -> Choice?
    ) throws(SyntaxError) -> Choice {
        guard case .word(let word) = token.kind, let choice = make(word) else {
            candidates += words()
            throw unexpected(wanted())
        }
        advance()
        return choice
    }

    package mutating func choice<Choice: RawRepresentable<String> & CaseIterable>(
        of type: Choice.Type
    ) throws(SyntaxError) -> Choice {
        let words = type.allCases.map { $0.rawValue }
        return try choice(
            "one of \(words.map { "`\($0)`" }.joined(separator: ", "))", among: words
        ) {
            Choice(rawValue: $0)
        }
    }

    /// `pages`, or `page`.
    package mutating func requirePages() throws(SyntaxError) {
        guard take("pages") || take("page") else { throw unexpected("`pages`") }
    }

    /// An error about an unknown word, with the most similar known ones.
    package func unknown(_ kind: String, _ word: String, at column: Int, among words: [String]) -> SyntaxError
    {
        let near = NearWords.suggestion(for: word, among: words)
        let all = near.isEmpty ? ": expected \(words.joined(separator: ", "))" : near
        return error(at: column, "unknown \(kind) \(word.prefix(40))\(all)")
    }

    package mutating func name(_ wanted: String) throws(SyntaxError) -> Name {
        try choice("\(wanted) (a lower-case letter, then letters, digits and `_`, 32 at most)") { Name($0) }
    }

    // MARK: the header

    package mutating func hazard() throws(SyntaxError) -> Hazard {
        try choice("a hazard of a table, like `A6`, `H22` or `V16`") { word in
            let digits = word.dropFirst()
            guard let table = Hazard.Table(rawValue: String(word.prefix(1))), let number = UInt16(digits),
                String(number) == digits
            else { return nil }
            return Hazard(table, number: number)
        }
    }

    package mutating func need() throws(SyntaxError) -> Need {
        let plain = [Need.inPlace, .preservation, .references]
        if take("holder") { return .holder(try choice(of: HoldKind.self)) }
        if take("nodes") { return .nodes(try number("a number of NUMA nodes", upTo: Need.mostNodes)) }
        return try choice(
            "`in-place`, `preservation`, `references`, `holder` or `nodes`",
            among: plain.map { $0.description }
        ) { word in
            plain.first { $0.description == word }
        }
    }

    package mutating func setting(_ settings: inout KernelSettings) throws(SyntaxError) {
        let column = self.column
        let before = settings
        let words = ["in-place", "runs", "design", "keeps"]
        switch try choice(
            "one of `in-place`, `runs`, `design`, `keeps`", among: words, { words.contains($0) ? $0 : nil })
        {
        case "in-place":
            try require("off")
            settings.isInPlaceOff = true
        case "runs":
            let number: UInt32 = try number("a number of runs")
            settings.attributeRuns = Int(number)
        case "design": settings.design = try choice(of: ContentDesign.self)
        default:
            settings.keptDirection = try choice(
                "`to-private` or `to-shared`", among: PageState.allCases.map { "to-\($0.rawValue)" }
            ) { word in
                PageState.allCases.first { "to-\($0.rawValue)" == word }
            }
        }
        guard settings != before else { throw error(at: column, "this is set already") }
    }

    package mutating func vmType() throws(SyntaxError) -> VMType {
        try choice("`protected`, `default`, `snp` or `tdx`", among: VMType.words) { VMType(word: $0) }
    }

    package mutating func memory() throws(SyntaxError) -> Memory {
        var name = Name.ram
        if case .word = token.kind { name = try self.name("a name or a number of pages") }
        let pages: UInt64 = try number("a number of pages", upTo: LitmusTest.mostPages)
        try requirePages()
        let initial = try choice(of: PageState.self)
        return Memory(name: name, pages: pages, initial: initial, isUnbound: take("unbound"))
    }

    // MARK: places

    /// A byte offset: the number of a page, or `@` and bytes.
    package mutating func offset(_ wanted: String = "a page, or `@` and a byte") throws(SyntaxError) -> UInt64
    {
        if take(.sign(UInt8(ascii: "@"))) { return try number("a byte offset") }
        let page: UInt64 = try number(wanted, upTo: UInt64.max / pageSize)
        return page * pageSize
    }

    /// `NAME:`, or nothing for `ram`.
    private mutating func prefix() throws(SyntaxError) -> Name {
        guard case .word = token.kind else { return .ram }
        let name = try self.name("a page, `@` and a byte, or a name")
        try require(sign: ":", UInt8(ascii: ":"))
        return name
    }

    package mutating func place() throws(SyntaxError) -> Place {
        if let given { return Place(given.name, offset: given.offset) }
        return Place(try prefix(), offset: try offset())
    }

    package mutating func extent() throws(SyntaxError) -> Extent {
        if let given { return given }
        let name = try prefix()
        if take(.sign(UInt8(ascii: "@"))) {
            let offset: UInt64 = try number("a byte offset")
            try require(sign: "+", UInt8(ascii: "+"))
            return Extent(name, offset: offset, size: try number("a number of bytes"))
        }
        // The byte after the last page must have an offset, too.
        let largest = UInt64.max / pageSize - 1
        let first: UInt64 = try number("a page, or `@` and a byte", upTo: largest)
        guard take(.dots) else { return Extent(name, offset: first * pageSize, size: pageSize) }
        let column = self.column
        let last: UInt64 = try number("the last page", upTo: largest)
        guard last >= first else {
            throw error(at: column, "the last page, \(last), is before the first, \(first)")
        }
        return Extent(name, offset: first * pageSize, size: (last - first + 1) * pageSize)
    }

    // MARK: outcomes

    package mutating func outcome() throws(SyntaxError) -> StepOutcome {
        if case .number = token.kind { return .value(try number("a byte")) }
        let column = self.column
        let word = try word("an outcome: \(Self.outcomes)")
        switch word {
        case "ok": return .ok
        case "SIGBUS": return .sigbus(at: take("at") ? try offset() : nil)
        case "mmio": return .mmio
        case "garbage": return .garbage
        case _ where ArchitectureStatus(rawValue: word) != nil:
            guard let status = ArchitectureStatus(rawValue: word) else { return .ok }
            return .status(status, at: take("at") ? try offset() : nil)
        case "fault":
            return .fault(try choice(of: PageState.self), at: take("at") ? try offset() : nil)
        case "differs":
            try require("at")
            return .differs(at: try offset())
        default:
            var number = ErrorNumber(symbol: word)?.rawValue
            if word == "errno" {
                let numberColumn = self.column
                number = try self.number("an errno", upTo: 4095)
                guard number != 0 else { throw error(at: numberColumn, "0 is not an errno: write `ok`") }
            }
            guard let number else {
                throw error(at: column, "unknown outcome \(word.prefix(40))" + Self.nearOutcome(word))
            }
            return .errno(number, at: take("at") ? try offset() : nil)
        }
    }

    /// The end of a message about an unknown outcome: similar outcomes, or everything that is allowed.
    package static func nearOutcome(_ word: String) -> String {
        let near = NearWords.suggestion(
            for: word,
            among: ["ok", "SIGBUS", "differs", "fault", "mmio", "garbage"]
                + ArchitectureStatus.allCases.map { $0.rawValue } + ErrorNumber.named.compactMap { $0.symbol }
        )
        return near.isEmpty ? ": expected \(outcomes)" : near
    }

    private static let outcomes =
        "`ok`, an errno, a byte, `SIGBUS`, `differs`, `fault` or `mmio`; with `vm snp` and `vm tdx` also `garbage`, "
        + ArchitectureStatus.allCases.map { "`\($0.rawValue)`" }.joined(separator: ", ")

    package mutating func expectation() throws(SyntaxError) -> Expectation {
        guard take(.arrow) else { return .unspecified }
        if case .word(let word) = token.kind, let name = Name(word), !LitmusTest.outcomeWords.contains(word) {
            advance()
            return .named(name)
        }
        var outcomes = [try outcome()]
        while take("or") { outcomes.append(try outcome()) }
        return .anyOf(outcomes)
    }

    package mutating func clause(_ kind: Clause.Kind) throws(SyntaxError) -> Clause {
        Clause(kind, try conditions())
    }

    /// `NAME = outcome, …`.
    ///
    /// - Parameters:
    ///   - known: receives each name and its column; throws if there is no such result.
    ///   - check: receives each condition and the column of its outcome; throws if the condition cannot apply.
    package mutating func conditions(
        known: (Name, _ column: Int, LineParser) throws(SyntaxError) -> Void = { _, _, _ in },
        check: (Clause.Condition, _ column: Int, LineParser) throws(SyntaxError) -> Void = { _, _, _ in }
    ) throws(SyntaxError) -> [Clause.Condition] {
        var conditions: [Clause.Condition] = []
        repeat {
            let start = column
            let name = try name("the name of a result")
            try known(name, start, self)
            try require(sign: "=", UInt8(ascii: "="))
            let place = column
            let condition = Clause.Condition(result: name, outcome: try outcome())
            try check(condition, place, self)
            conditions.append(condition)
        } while take(.sign(UInt8(ascii: ",")))
        return conditions
    }
}
