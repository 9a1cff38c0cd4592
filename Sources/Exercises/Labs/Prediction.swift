// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// A test with blanks for some of its outcomes, which the student predicts.
struct Prediction: Sendable {
    /// The lines of the test before its steps.
    let header: [String]
    let test: LitmusTest
    /// The indices of the steps with a blank.
    let asked: [Int]

    /// The outcomes on a kernel; nil for a step that was not performed.
    func outcomes(on kernel: ModelKernel) -> [StepOutcome?] {
        guard let trace = try? test.trace(on: kernel, ignoring: nil) else { return asked.map { _ in nil } }
        return asked.map { index in trace.lines.first { $0.step == index }?.outcome }
    }

    // MARK: checking

    func assess(_ fillings: [Filling]) throws(AnswerFile.Problem) -> Assessment {
        let predicted = try predictions(fillings)
        let trace: ModelTrace
        do throws(Oracle.Problem) { trace = try test.trace(on: ModelKernel(), ignoring: nil) } catch {
            return Assessment(
                .undecided, 0, of: asked.count, "the model cannot run the test: \(error.description)")
        }
        var points = 0
        var first: (place: Int, seen: StepOutcome, said: StepOutcome)?
        for (place, index) in asked.enumerated() {
            guard let seen = trace.lines.first(where: { $0.step == index })?.outcome else { continue }
            let said = predicted[place]
            if said.means(seen) {
                points += 1
            } else if first == nil {
                first = (place, seen, said)
            }
        }
        guard let first else { return .right(asked.count, "all \(asked.count) outcomes") }
        let index = asked[first.place]
        var short = test
        short.body = Array(test.body.prefix(index + 1))
        let run = (try? short.trace(on: ModelKernel(), ignoring: nil)).map {
            Run("The run up to that step", short, $0, remarks: [index: "you: \(first.said.description)"])
        }
        return Assessment(
            .wrong, points, of: asked.count, line: fillings[first.place].line,
            "the outcome is not \(first.said.description)", run: run)
    }

    /// Reads the predictions, each one outcome.
    private func predictions(_ fillings: [Filling]) throws(AnswerFile.Problem) -> [StepOutcome] {
        var text = TestText(header)
        var lines: [StepOutcome] = []
        for (index, step) in test.steps.enumerated() {
            if let place = asked.firstIndex(of: index), place < fillings.count {
                text.add(step.text + " => " + fillings[place].text, line: fillings[place].line)
            } else {
                text.add(step.text)
            }
        }
        let parsed = try text.parsed()
        for (place, index) in asked.enumerated() {
            guard case .anyOf(let outcomes) = parsed.steps[index].expectation, outcomes.count == 1,
                let outcome = outcomes.first
            else {
                throw AnswerFile.Problem(
                    line: fillings[place].line, message: "a prediction is one outcome, without `or`")
            }
            lines.append(outcome)
        }
        return lines
    }
}

extension StepOutcome {
    /// Whether a prediction says this outcome. The place of `SIGBUS` may be left out.
    func means(_ seen: StepOutcome) -> Bool {
        if case .sigbus(nil) = self, case .sigbus = seen { return true }
        return self == seen
    }

    /// The kind without numbers, to see whether answers differ.
    var kind: Int {
        switch self {
        case .ok: 0
        case .errno(let number, _): 100 + Int(number)
        case .value: 1
        case .sigbus: 2
        case .differs: 3
        case .fault(let state, _): state == .private ? 4 : 5
        case .mmio: 6
        case .garbage: 7
        case .status(let status, _): 10_000 + (ArchitectureStatus.allCases.firstIndex(of: status) ?? 0)
        }
    }
}

/// The text of a test that is put together from lines of a problem and lines of an answer.
struct TestText {
    private(set) var lines: [String] = []
    /// For each line its line in the answer; nil if it belongs to the problem.
    private(set) var origins: [Int?] = []

    init(_ header: [String]) {
        for line in header { add(line) }
    }

    mutating func add(_ text: String, line: Int? = nil) {
        lines.append(text)
        origins.append(line)
    }

    /// - Throws: ``AnswerFile/Problem`` in the line of the answer, or in the first line of the answer if a line of the
    ///   problem cannot be read because of it.
    func parsed() throws(AnswerFile.Problem) -> LitmusTest { try source().test }

    func source() throws(AnswerFile.Problem) -> Source {
        do throws(SyntaxError) {
            return try Source(parsing: lines.joined(separator: "\n"))
        } catch {
            let place = error.line - 1
            let origin = origins.indices.contains(place) ? origins[place] : nil
            guard origin == nil, origins.indices.contains(place) else {
                throw AnswerFile.Problem(line: origin, message: error.message)
            }
            throw AnswerFile.Problem(
                line: origins[..<place].last { $0 != nil } ?? nil,
                message:
                    "behind this line the step `\(AnswerFile.shown(lines[place]))` is impossible: \(error.message)"
            )
        }
    }
}

// MARK: generating

extension Prediction {
    /// A random test as lines, from which a prediction is made.
    struct Sketch {
        var header: [String]
        /// Each step, and whether its outcome may be asked for.
        var steps: [(text: String, asks: Bool)] = []
        /// The number of first steps whose outcomes must be asked for, if they may be.
        var certain = 0

        mutating func step(_ text: String) { steps.append((text, false)) }
        mutating func ask(_ text: String) { steps.append((text, true)) }
    }

    /// How many outcomes are asked for, and how many kinds they must have.
    struct Demand {
        var blanks: Int
        /// The number of different kinds of outcome.
        var kinds: Int
        /// The number of different outcomes.
        var outcomes: Int
    }

    /// Draws sketches until one makes a problem that is not trivial: enough outcomes to ask for, of several kinds, and
    /// none that the interface leaves open. If none does, the best one is taken.
    static func draft(
        _ seed: UInt64, salt: UInt64, _ demand: Demand, explain: (inout [FormLine]) -> Void,
        sketch: (inout Chance) -> Sketch
    ) -> Problem.Draft {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ salt)
        var best: (prediction: Prediction, trace: ModelTrace)?
        var score = 0
        for _ in 0..<400 {
            let drawn = sketch(&chance)
            guard let made = prediction(drawn, demand), made.score > score else { continue }
            (best, score) = (made.found, made.score)
            if made.isGood { break }
        }
        guard let (prediction, trace) = best else {
            let test = LitmusTest(name: "empty")
            let empty = Prediction(header: [], test: test, asked: [])
            return Problem.Draft(lines: [], task: .prediction(empty), sample: [])
        }
        var lines: [FormLine] = []
        explain(&lines)
        lines.gap()
        for line in prediction.header { lines.append(.fixed(line)) }
        var sample: [[String]] = []
        for (index, step) in prediction.test.steps.enumerated() {
            let shown = step.actor.description.padded(to: 10) + step.withoutActor
            let outcome = trace.lines.first { $0.step == index }?.outcome
            if prediction.asked.contains(index) {
                lines.append(.blank(shown.padded(to: 46) + "=>"))
                sample.append([outcome?.description ?? "ok"])
            } else if let outcome, outcome != .ok {
                lines.append(.fixed(shown.padded(to: 46) + "=> " + outcome.description))
            } else {
                lines.append(.fixed(shown))
            }
        }
        return Problem.Draft(lines: lines, task: .prediction(prediction), sample: sample)
    }

    private static func prediction(
        _ sketch: Sketch, _ demand: Demand
    ) -> (found: (Prediction, ModelTrace), score: Int, isGood: Bool)? {
        var text = TestText(sketch.header)
        for step in sketch.steps { text.add(step.text) }
        guard let test = try? text.parsed(), let trace = try? test.trace(on: ModelKernel(), ignoring: nil),
            trace.failure == nil, trace.lines.count == sketch.steps.count,
            !trace.lines.contains(where: { $0.isAnyByte })
        else { return nil }
        var asked: [Int] = []
        for (index, step) in sketch.steps.enumerated() where step.asks { asked.append(index) }
        // The last ones, because more has happened before them.
        let certain = asked.prefix { $0 < sketch.certain }
        asked = certain + asked.dropFirst(certain.count).suffix(max(0, demand.blanks - certain.count))
        let outcomes = asked.compactMap { trace.lines[$0].outcome }
        var different: [StepOutcome] = []
        var kinds: [Int] = []
        for outcome in outcomes {
            if !different.contains(outcome) { different.append(outcome) }
            if !kinds.contains(outcome.kind) { kinds.append(outcome.kind) }
        }
        let isGood =
            asked.count == demand.blanks && different.count >= demand.outcomes && kinds.count >= demand.kinds
        // Steps behind the last blank have no purpose.
        var short = test
        short.body = Array(test.body.prefix((asked.last ?? 0) + 1))
        let score = 100 * min(asked.count, demand.blanks) + 10 * kinds.count + different.count
        return ((Prediction(header: sketch.header, test: short, asked: asked), trace), score, isGood)
    }
}
