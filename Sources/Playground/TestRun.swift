// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

// The answer to `run`.

/// A step that has ended, or a piece of one.
private struct Moment {
    let step: Step
    let line: Int
    /// Nil if the step goes on.
    let seen: Observation?
    /// What the piece does, for a piece of a step.
    var piece: String?
    let picture: PagePicture
}

/// Collects what an observer sees.
private final class Moments {
    var start: PagePicture?
    var all: [Moment] = []

    var observer: StepObserver {
        StepObserver(
            made: { self.start = PagePicture($0) },
            ended: { step, line, seen, machine in
                self.all.append(Moment(step: step, line: line, seen: seen, picture: PagePicture(machine)))
            })
    }
}

extension JSONText {
    /// The largest number of outcomes with an order.
    private static let mostOrders = 32

    mutating func run(_ request: PlaygroundRequest) {
        let source: Source
        do throws(SyntaxError) { source = try request.source() } catch { return problem(error) }
        let sound = request.soundRules.configured(for: source.test)
        for need in source.test.needs {
            guard let reason = sound.absence(of: need, on: source.test.vm) else { continue }
            return skipped(reason)
        }
        do throws(Stop) {
            if source.test.body.contains(where: { $0.isBlock }) {
                try explore(source, request)
            } else {
                try perform(source, request)
            }
        } catch {
            switch error {
            case .skip(let reason): skipped(reason)
            case .broken(let reason): failed(Failure(.machine(reason: reason)))
            case .brokenStep(let failure): failed(failure)
            case .host(let failure): skipped("\(failure.call): \(failure.error.name)")
            }
        }
    }

    private mutating func skipped(_ reason: String) {
        member("verdict", "skipped")
        member("reason", reason)
    }

    private mutating func failed(_ failure: Failure) {
        member("verdict", "failed")
        member("failure") { json in
            if let line = failure.line { json.member("line", line) }
            json.strings("text", failure.lines)
        }
    }

    // MARK: tests without parallel blocks

    /// Performs the steps up to the first that ends otherwise than expected; with predictions, all steps.
    private mutating func perform(_ source: Source, _ request: PlaygroundRequest) throws(Stop) {
        var machine = try ModelMachine(
            ModelMachine.Setup(request.rules.configured(for: source.test), source.test))
        let start = PagePicture(machine)
        var moments: [Moment] = []
        var failure: Failure?
        for (index, step) in source.test.steps.enumerated() {
            let line = source.places[index].line
            let seen: Observation
            do throws(Stop) {
                seen = try source.attempt(index, step) { () throws(Stop) in try machine.perform(step) }
            } catch {
                guard case .brokenStep(let broken) = error else { throw error }
                failure = failure ?? broken
                break
            }
            moments.append(Moment(step: step, line: line, seen: seen, picture: PagePicture(machine)))
            failure = failure ?? source.judge(seen, index, step, machine.pages)
            if failure != nil, request.predictions.isEmpty { break }
        }
        if let failure { failed(failure) } else { member("verdict", "passed") }
        member("start") { start.write(to: &$0) }
        steps(moments, request)
        members("blocks", [Int]()) { _, _ in }
    }

    private mutating func steps(_ moments: [Moment], _ request: PlaygroundRequest) {
        members("steps", moments) { json, moment in
            json.moment(moment)
            json.member("expectation", moment.step.answer)
            if let seen = moment.seen {
                json.member("accepted", moment.step.accepts(seen))
                if let text = request.predictions[moment.line] {
                    json.member("prediction") { $0.prediction(text, of: moment.step, seen) }
                }
            }
        }
    }

    private mutating func moment(_ moment: Moment) {
        member("line", moment.line)
        member("actor", moment.step.actor.description)
        member("text", moment.step.text)
        member("piece", moment.piece)
        member("outcome", moment.seen?.outcome.description)
        member("oddity", moment.seen?.oddity)
        if moment.seen?.isAnyByte == true { member("anyByte", true) }
        member("state") { moment.picture.write(to: &$0) }
    }

    /// Judges what the reader has predicted for a step.
    private mutating func prediction(_ text: String, of step: Step, _ seen: Observation) {
        member("text", text)
        do throws(SyntaxError) {
            var parser = LineParser(try Lexer.tokens(Array(text.utf8)[...], line: 1), line: 1)
            let outcome = try parser.outcome()
            try parser.end()
            var isRight = outcome.covers(seen.outcome)
            // Nothing says which byte an undefined one is.
            if seen.isAnyByte, case .value = outcome { isRight = true }
            member("right", isRight)
        } catch {
            member("right", false)
            member("problem", error.message)
        }
    }

    // MARK: tests with parallel blocks

    private mutating func explore(_ source: Source, _ request: PlaygroundRequest) throws(Stop) {
        var interleavings = Interleavings(
            source, on: request.rules.configured(for: source.test), mostPieces: request.mostPieces,
            keepsPart: true)
        let moments = Moments()
        interleavings.observer = moments.observer
        _ = try interleavings.start()
        interleavings.observer = nil
        let exact = try interleavings.explore()
        let report = Judge(source).report(exact: exact)
        switch report.verdict {
        case .passed: member("verdict", report.cut == nil ? "passed" : "cut")
        case .failed(let failure): failed(failure)
        case .skipped(let reason): skipped(reason)
        case .hostFailed(let failure): skipped(failure.call)
        }
        if let cut = report.cut { member("reason", "not all interleavings were tried: \(cut.reason)") }
        if let start = moments.start { member("start") { start.write(to: &$0) } }
        steps(moments.all, request)
        let program = Program(source.test)
        name("blocks")
        var failure: Stop?
        array { json in
            for (block, seen) in zip(program.blocks, report.blocks) {
                json.object { json in
                    do throws(Stop) {
                        try json.block(block, seen, source, exact, &interleavings)
                    } catch {
                        failure = failure ?? error
                    }
                }
            }
        }
        if let failure { throw failure }
    }

    private mutating func block(
        _ block: Program.Block, _ report: BlockReport, _ source: Source, _ exact: Interleavings.Result,
        _ interleavings: inout Interleavings
    ) throws(Stop) {
        member("line", report.line)
        if let states = report.states { member("states", states) }
        member("complete", report.isComplete)
        let endings = interleavings.sorted(exact.endings)
        var orders: [[Moment]] = []
        for outcome in report.outcomes.prefix(Self.mostOrders) {
            let ending = endings.first { block.list(block.results(of: $0)) == outcome.results }
            // The endings of a part of the interleavings lead nowhere for certain.
            guard let ending, exact.cut == nil else {
                orders.append([])
                continue
            }
            orders.append(try order(to: ending, upTo: block, source, &interleavings))
        }
        members("outcomes", Array(report.outcomes.enumerated())) { json, entry in
            let (index, outcome) = (entry.offset, entry.element)
            json.members("results", outcome.results) { json, result in
                json.member("name", result.name.description)
                json.member("outcome", result.outcome.description)
            }
            json.member("permitted", outcome.isAllowed)
            let named = block.clauses.first { clause in
                clause.conditions.allSatisfy { condition in
                    outcome.results.contains {
                        $0.name == condition.result && condition.outcome.covers($0.outcome)
                    }
                }
            }
            json.member("clause", named.map { "\($0.kind.rawValue) \($0.conditionText)" })
            json.members("order", index < orders.count ? orders[index] : []) { $0.moment($1) }
        }
    }

    /// One interleaving with this ending, piece by piece, to the end of the block.
    private func order(
        to ending: Ending, upTo block: Program.Block, _ source: Source, _ interleavings: inout Interleavings
    ) throws(Stop) -> [Moment] {
        let path = try interleavings.path(to: ending)
        let moments = Moments()
        var cursor = try interleavings.start()
        interleavings.observer = moments.observer
        defer { interleavings.observer = nil }
        for actor in path {
            guard let here = interleavings.block(at: cursor), here.number <= block.number else { break }
            let before = cursor.actors[actor]
            let (index, step) = here.actors[actor][before.step]
            if try interleavings.advancePiece(actor, &cursor) == nil {
                moments.all.append(
                    Moment(
                        step: step, line: source.places[index].line, seen: nil,
                        piece: before.text(to: cursor.actors[actor]), picture: PagePicture(cursor.machine)))
            }
        }
        return moments.all
    }
}
