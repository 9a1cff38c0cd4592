// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// Steps of a student that must hold in several cases: the lines of a problem stand before, between and behind them.
///
/// A step of the student without `=>` may end in any way, like a call of a monitor that does not look at the result. What
/// counts is what the steps of the problem see afterwards.
struct CaseSuite: Sendable {
    /// A line of a case.
    enum Line: Sendable {
        /// A line of the problem, judged like a line of a test.
        case given(String)
        /// The steps of a blank.
        case answer(Int)
        /// A line of the problem that ends with the words of a blank, then an expectation.
        case words(String, Int, String)
    }

    struct Case: Sendable {
        /// For people: `page 3 is in use`.
        let name: String
        var kernel = ModelKernel()
        var lines: [Line]
    }

    let cases: [Case]
    /// The largest number of steps of the student, in all blanks together.
    let mostSteps: Int

    /// What a step of the student may do, for messages.
    static let permitted = "`host convert`, `host read` or `host check`"

    // MARK: checking

    func assess(_ fillings: [Filling]) throws(AnswerFile.Problem) -> Assessment {
        var passed = 0
        var shortest: (Case, LitmusTest, ModelTrace, line: Int?)?
        for item in cases {
            let (test, origins) = try test(item, fillings)
            let ignored = Self.ignored(test, origins)
            let trace: ModelTrace
            do throws(Oracle.Problem) { trace = try test.trace(on: item.kernel, ignoring: ignored) } catch {
                throw AnswerFile.Problem(
                    line: fillings.first?.line,
                    message: "the model cannot run this answer: \(error.description)")
            }
            guard let failure = trace.failure else {
                passed += 1
                continue
            }
            if shortest.map({ trace.lines.count < $0.2.lines.count }) ?? true {
                shortest = (item, test, trace, origins[failure])
            }
        }
        let count = cases.count == 1 ? "the case" : "all \(cases.count) cases"
        guard let (item, test, trace, line) = shortest else { return .right(cases.count, count) }
        let others =
            cases.count == 1
            ? "" : " (\(passed) of \(cases.count) cases hold)"
        return Assessment(
            .wrong, passed, of: cases.count, line: line, "it does not hold if \(item.name)\(others)",
            run: Run("The shortest run that shows it", test, trace))
    }

    /// The faults with which a case does not hold for these answers.
    func refused(_ answers: [[String]], among faults: [PlantedFault]) -> [PlantedFault] {
        let fillings = answers.map { lines in
            Filling(
                line: 1, lines: lines.map { AnswerFile.Line(number: 1, text: AnswerFile.normal($0)) },
                isEmpty: false)
        }
        var rest = faults
        for item in cases {
            guard let (test, origins) = try? test(item, fillings) else { return faults }
            let ignored = Self.ignored(test, origins)
            rest = rest.filter { fault in
                var kernel = item.kernel
                kernel.faults = [fault]
                guard let trace = try? test.trace(on: kernel, ignoring: ignored) else { return false }
                return trace.failure == nil
            }
        }
        return faults.filter { !rest.contains($0) }
    }

    /// The steps of the student that may end in any way.
    private static func ignored(_ test: LitmusTest, _ origins: [Int?]) -> Set<Int> {
        var ignored: Set<Int> = []
        for (index, step) in test.steps.enumerated()
        where origins[index] != nil && step.expectation == .unspecified { ignored.insert(index) }
        return ignored
    }

    /// - Returns: the test, and for each of its steps the line of the answer in which it stands.
    private func test(
        _ item: Case, _ fillings: [Filling]
    ) throws(AnswerFile.Problem) -> (LitmusTest, [Int?]) {
        var text = TestText([])
        for line in item.lines {
            switch line {
            case .given(let given): text.add(given)
            case .answer(let place):
                guard place < fillings.count else { continue }
                for line in fillings[place].lines { text.add(line.text, line: line.number) }
            case .words(let before, let place, let after):
                guard place < fillings.count else { continue }
                text.add(before + " " + fillings[place].text + after, line: fillings[place].line)
            }
        }
        let source = try text.source()
        var origins: [Int?] = []
        var count = 0
        for (step, place) in zip(source.test.steps, source.places) {
            let line = place.line - 1
            let origin = text.origins.indices.contains(line) ? text.origins[line] : nil
            origins.append(origin)
            guard let origin, fillings.contains(where: { $0.lines.contains { $0.number == origin } }) else {
                continue
            }
            count += 1
            guard Self.permits(step) else {
                throw AnswerFile.Problem(
                    line: origin, message: "a step of this answer is \(Self.permitted), not `\(step.text)`")
            }
        }
        guard source.test.body.allSatisfy({ if case .step = $0 { true } else { false } }) else {
            throw AnswerFile.Problem(line: fillings.first?.line, message: "this answer has no parallel block")
        }
        guard count <= mostSteps else {
            throw AnswerFile.Problem(
                line: fillings.first?.line,
                message: "the answer has \(count) steps, and at most \(mostSteps) are needed")
        }
        return (source.test, origins)
    }

    private static func permits(_ step: Step) -> Bool {
        switch (step.actor, step.action) {
        case (.host, .convert), (.host, .read), (.host, .check): true
        case (.vcpu, .read), (.vcpu, .write): step.onFault != nil
        default: false
        }
    }
}

// MARK: exercise 5

extension CaseSuite {
    static func pageInUse(_ seed: UInt64) -> Problem.Draft {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ 0x5005)
        let pages = chance.number(5...8)
        let held = chance.shuffled(Array(0..<pages)).prefix(chance.number(1...2)).sorted()
        let kind = chance.pick("io_uring", "vmsplice", "gup_test")
        // A page that is private before: the range is mixed.
        let mixed = chance.isTrue(50) ? chance.pick((0..<pages).filter { !held.contains($0) }) : nil
        let (low, high) = (chance.byte(), chance.byte())
        let split = chance.number(1...(pages - 1))
        func byte(_ page: Int) -> String { page < split ? low : high }

        var before = [
            "test      \"survive a page in use\"", "memory    \(pages) pages shared",
            line("host", "fill 0..\(split - 1) \(low)"), line("host", "fill \(split)..\(pages - 1) \(high)"),
        ]
        for (place, page) in held.enumerated() {
            before.append(line("host", "hold \(page) by \(kind) as dma\(place)"))
        }
        if let mixed { before.append(line("host", "convert \(mixed) private")) }
        var between: [String] = []
        for page in 0..<pages {
            if held.contains(page) {
                between.append(line("host", "read \(page)", byte(page)))
            } else {
                between.append(line("host", "read \(page)", "SIGBUS"))
                between.append(line("vcpu0", "read \(page)", byte(page)))
            }
        }
        for place in held.indices { between.append(line("host", "release dma\(place)")) }
        var behind: [String] = []
        for page in 0..<pages {
            behind.append(line("host", "read \(page)", "SIGBUS"))
            behind.append(line("vcpu0", "check \(page) \(byte(page))"))
        }
        var lines: [FormLine] = []
        lines.explain(
            "A guest asks for pages 0 to \(pages - 1) to become private. The host uses "
                + (held.count == 1 ? "one of them" : "two of them")
                + " (\(kind)), so the call fails with EAGAIN and converts nothing. Write the steps of a monitor."
        )
        lines.gap()
        lines.explain(
            "First answer: while the host still uses \(held.count == 1 ? "that page" : "those pages"), all other pages become "
                + "private. Second answer: after the release, the rest. No byte may change. Your steps are \(permitted); a step "
                + "without => may end in any way. At most 8 steps in both answers. The other lines are the check."
        )
        lines.gap()
        lines += before.map { .fixed($0) }
        lines.append(.steps([]))
        lines += between.map { .fixed($0) }
        lines.append(.steps([]))
        lines += behind.map { .fixed($0) }
        let item = Case(
            name: "the host uses page \(held.map { String($0) }.joined(separator: " and page "))",
            lines: before.map { .given($0) } + [.answer(0)] + between.map { .given($0) } + [.answer(1)]
                + behind.map { .given($0) })
        let all = "0..\(pages - 1)"
        return Problem.Draft(
            lines: lines, task: .cases(CaseSuite(cases: [item], mostSteps: 8)),
            sample: [
                [line("host", "convert \(all) private preserve bisect")],
                [line("host", "convert \(all) private preserve")],
            ])
    }

    /// A line of a test in columns.
    static func line(_ actor: String, _ action: String, _ outcome: String? = nil) -> String {
        let text = actor.padded(to: 10) + action
        return outcome.map { text.padded(to: 46) + "=> " + $0 } ?? text
    }
}
