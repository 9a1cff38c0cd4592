// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// Exercise 4: what happens to contents, by version of the interface or design, direction and policy.
struct ContentTable: Sendable {
    /// The fate of the byte.
    enum Fate: Int, Sendable, CaseIterable {
        case preserved, zero, undefined, refused

        var word: String {
            switch self {
            case .preserved: "preserved"
            case .zero: "zero"
            case .undefined: "undefined"
            case .refused: "refused"
            }
        }
    }

    /// A kernel on which the monitor asks.
    struct System: Sendable {
        let name: String
        let kernel: ModelKernel
        /// Whether the monitor can zero pages itself. The designs were proposed for the bare call.
        let hasZero: Bool

        static let all: [System] = [
            System(name: "rfc-v2", kernel: ModelKernel(abi: .rfcV2), hasZero: true),
            System(name: "rfc-v4", kernel: ModelKernel(abi: .rfcV4), hasZero: true),
            System(name: "7.4", kernel: ModelKernel(), hasZero: true),
            System(
                name: "to-private-only",
                kernel: ModelKernel(promise: ContentPromise(toPrivate: .preserved, toShared: .undefined)),
                hasZero: true),
            System(name: "creation-flag", kernel: ModelKernel(design: .creationFlag), hasZero: false),
            System(name: "build-scramble", kernel: ModelKernel(design: .buildScramble), hasZero: false),
            System(name: "module-preserve", kernel: ModelKernel(design: .modulePreserve), hasZero: false),
            System(name: "call-flag", kernel: ModelKernel(design: .callFlag), hasZero: false),
        ]
    }

    struct Row: Sendable {
        let system: System
        let target: PageState
        let policy: String

        static var all: [Row] {
            System.all.flatMap { system in
                [PageState.private, .shared].flatMap { target in
                    ["preserve", "unspecified"].map { Row(system: system, target: target, policy: $0) }
                        + (system.hasZero ? [Row(system: system, target: target, policy: "zero")] : [])
                }
            }
        }

        var text: String { "\(system.name) to-\(target.rawValue) \(policy)" }

        /// The request, from the write of the byte to its reading.
        var test: LitmusTest? {
            let writer = target == .private ? "host" : "vcpu0"
            let reader = target == .private ? "vcpu0" : "host"
            let initial: PageState = target == .private ? .shared : .private
            let text = """
                test "one request"
                memory 1 page \(initial.rawValue)
                \(writer) write 0 0x41
                host convert 0 \(target.rawValue) \(policy)
                \(reader) read 0
                """
            return try? Source(parsing: text).test
        }

        func trace(_ faults: [PlantedFault] = []) -> ModelTrace? {
            var kernel = system.kernel
            kernel.faults = faults
            return try? test?.trace(on: kernel, ignoring: nil)
        }

        func fate(_ faults: [PlantedFault] = []) -> Fate? {
            guard let lines = trace(faults)?.lines, lines.count == 3 else { return nil }
            guard lines[1].outcome == .ok else { return .refused }
            if lines[2].isAnyByte { return .undefined }
            return switch lines[2].outcome {
            case .value(0x41): .preserved
            case .value(0): .zero
            case .value: .undefined
            default: nil
            }
        }
    }

    let rows: [Row]

    // MARK: checking

    func assess(_ fillings: [Filling]) throws(AnswerFile.Problem) -> Assessment {
        var said: [Fate] = []
        for filling in fillings {
            guard let fate = Fate.allCases.first(where: { $0.word == filling.text }) else {
                throw AnswerFile.Problem(
                    line: filling.line,
                    message: "`\(AnswerFile.shown(filling.text))` is not one of "
                        + Fate.allCases.map { $0.word }.joined(separator: ", "))
            }
            said.append(fate)
        }
        var points = 0
        var first: Int?
        for (place, row) in rows.enumerated() where place < said.count {
            if row.fate() == said[place] { points += 1 } else { first = first ?? place }
        }
        guard let first else { return .right(rows.count, "all \(rows.count) requests") }
        let row = rows[first]
        var run: Run?
        if let test = row.test, let trace = row.trace() {
            run = Run(
                "The request on \(row.system.name)", test, trace, remarks: [1: "you: \(said[first].word)"])
        }
        return Assessment(
            .wrong, points, of: rows.count, line: fillings[first].line,
            "the contents are not \(said[first].word) after `\(row.text)`".fixedRefusal(said[first]), run: run
        )
    }

    // MARK: generating

    static func draft(_ seed: UInt64) -> Problem.Draft {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ 0x4004)
        let all = Row.all.map { ($0, $0.fate()) }
        var rows: [Row] = []
        // Two rows of each fate, so that no answer is right for all of them.
        for fate in Fate.allCases {
            rows += chance.shuffled(all.filter { $0.1 == fate }.map { $0.0 }).prefix(2)
        }
        let rest = all.filter { row in row.1 != nil && !rows.contains { $0.text == row.0.text } }.map { $0.0 }
        rows = chance.shuffled(rows + chance.shuffled(rest).prefix(max(0, 10 - rows.count)))
        var lines: [FormLine] = []
        lines.explain(
            "A page has the byte 0x41. Its owner wrote it: the host while the page was shared, the guest while it was private. "
                + "The monitor asks for the other state and says what should happen to the contents: preserve, zero or "
                + "unspecified. What is certain about the byte afterwards?")
        lines.gap()
        lines.explain(
            "preserved: the new owner reads 0x41 on every kernel that keeps the rules. zero: it reads 0. undefined: it may "
                + "read anything. refused: the request fails before anything has changed.")
        lines.gap()
        lines.explain(
            "rfc-v2, rfc-v4 and 7.4 are versions of the interface. to-private-only is 7.4 on hardware that keeps contents "
                + "in that direction only. creation-flag (the file was created without the flag), build-scramble, "
                + "module-preserve and call-flag are designs that were discussed: there `preserve` is the call with the flag "
                + "if the call has one. The VM is software-protected.")
        lines.gap()
        for row in rows { lines.append(.blank(row.text.padded(to: 46) + "=>")) }
        return Problem.Draft(
            lines: lines, task: .contents(ContentTable(rows: rows)),
            sample: rows.map { [($0.fate() ?? .undefined).word] })
    }
}

extension String {
    /// "not refused" needs another sentence than a fate of bytes.
    fileprivate func fixedRefusal(_ said: ContentTable.Fate) -> String {
        guard said == .refused, let request = after("the contents are not refused after") else { return self }
        return request + " is not refused"
    }
}
