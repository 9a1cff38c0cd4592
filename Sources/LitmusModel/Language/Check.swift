// SPDX-License-Identifier: MIT
import ConversionModel

/// Why a test that can be written cannot be run.
public struct TestProblem: Error, Sendable, Equatable {
    /// The index in ``LitmusTest/steps``; nil if the problem is not in a single step.
    public let step: Int?
    /// The error message, without the place.
    public let message: String
}

extension LitmusTest {
    /// Pages of the largest memory or view: 1 TiB.
    public static let mostPages: UInt64 = 1 << 28
    /// The largest number of steps in a test.
    public static let mostSteps = 10_000
    /// Bytes of the largest `fill`, `check` or `hold`: 64 MiB.
    public static let mostTouched: UInt64 = 64 << 20

    /// Words that begin an outcome, so that no result can be named like them.
    package static let outcomeWords: Set<String> = ["ok", "errno", "differs", "fault", "mmio", "garbage"]

    /// The first problem of the test. Nil if it can be run, and its written form reads back as the same test.
    public func firstProblem() -> TestProblem? {
        var check = Check()
        do throws(TestProblem) {
            try check.test(self)
            return nil
        } catch {
            return error
        }
    }
}

/// Follows the names of a test from step to step, as a run would.
package struct Check {
    package var step: Int?
    package var files: Set<Name> = []
    package var views: Set<Name> = []
    package var holds: Set<Name> = []
    /// Closed descriptors and unmapped views. Their names stay valid until they are used for new objects.
    package var closed: Set<Name> = []
    package var unmapped: Set<Name> = []
    /// Children, with the views that existed when they were forked.
    package var children: [Int: Set<Name>] = [:]
    package var hasTwoAliases = false
    package var vm = VMType.softwareProtected
    package var hasFinalized = false
    /// The memories that are guest memory, and those of them whose name now refers to another file.
    package var regions: Set<Name> = []
    package var replaced: Set<Name> = []
    /// The fault policy of a vCPU's last access, which `again` repeats.
    package var faultConversions: [Actor: FaultConversion] = [:]

    package func fail(_ message: String) -> TestProblem { TestProblem(step: step, message: message) }

    package func require(_ condition: Bool, _ message: @autoclosure () -> String) throws(TestProblem) {
        if !condition { throw fail(message()) }
    }

    package mutating func test(_ test: LitmusTest) throws(TestProblem) {
        let printable = test.name.utf8.allSatisfy { (0x20..<0x7f).contains($0) && $0 != 0x22 && $0 != 0x5c }
        try require(
            printable && !test.name.isEmpty && test.name.utf8.count <= 200,
            "the sentence after `test` must be 1 to 200 bytes of printable ASCII, without quotes and backslashes"
        )
        try require(
            test.hazards.count <= 64 && test.needs.count <= 64, "a test has at most 64 hazards and 64 needs")
        for case .nodes(let count) in test.needs {
            try require(count <= Need.mostNodes, "`needs nodes` must be at most \(Need.mostNodes)")
        }
        try require(
            test.settings.attributeRuns.map { UInt32(exactly: $0) != nil } ?? true,
            "`kernel runs` must be 0 to 2^32 - 1")
        try require(test.memory.count <= 64, "a test has at most 64 memories")
        for memory in test.memory {
            try newName(memory.name)
            try require(files.insert(memory.name).inserted, "there is already a memory `\(memory.name)`")
            if !memory.isUnbound { regions.insert(memory.name) }
            try require(
                (1...LitmusTest.mostPages).contains(memory.pages),
                "a memory has 1 to \(LitmusTest.mostPages) pages, not \(memory.pages)")
            views.insert(memory.name)
        }
        try require(
            !test.hasTwoAliases || test.vm == .softwareProtected,
            test.vm.isConfidential
                ? "every guest of `vm \(test.vm.word)` has two aliases: omit `aliases two`"
                : "a default VM has no private memory, so `aliases two` needs `vm protected`")
        hasTwoAliases = test.guestHasTwoAliases
        vm = test.vm
        var number = 0
        for entry in test.body {
            switch entry {
            case .step(let step): try self.step(step, number: &number, results: nil)
            case .parallel(let block): try parallel(block, number: &number)
            }
        }
        step = nil
        try require(number > 0, "a test needs at least one step")
    }

    package mutating func parallel(_ block: Parallel, number: inout Int) throws(TestProblem) {
        let first = number
        var results: Set<Name> = []
        for step in block.steps { results = try self.step(step, number: &number, results: results) }
        step = first < number ? first : nil
        if let preemption = block.preemption {
            do throws(PreemptionProblem) { try preemption.check(block.actors) } catch {
                throw TestProblem(step: step, message: "`preempted \(preemption)`: \(error)")
            }
            for condition in preemption.outcome { try self.condition(condition, results) }
        }
        for clause in block.clauses {
            try require(!clause.conditions.isEmpty, "`\(clause.kind.rawValue)` needs at least one condition")
            try require(
                clause.description.utf8.count <= Lexer.longestLine,
                "a line has at most \(Lexer.longestLine) bytes, and this `\(clause.kind.rawValue)` has more")
            for condition in clause.conditions { try self.condition(condition, results) }
        }
    }

    private func condition(_ condition: Clause.Condition, _ results: Set<Name>) throws(TestProblem) {
        try require(
            results.contains(condition.result), "no step of the block has a result `\(condition.result)`")
        try range(of: condition.outcome)
    }

    @discardableResult
    package mutating func step(
        _ step: Step, number: inout Int, results: Set<Name>?
    ) throws(TestProblem) -> Set<Name> {
        self.step = number
        number += 1
        var results = results
        try require(number <= LitmusTest.mostSteps, "a test has at most \(LitmusTest.mostSteps) steps")
        try actor(step)
        try action(step.action, by: step.actor)
        if let onFault = step.onFault { try converting(onFault, step) }
        if step.action.isAccess { faultConversions[step.actor] = step.onFault }
        if results != nil { try atOnce(step) }
        switch step.expectation {
        case .unspecified: break
        case .anyOf(let outcomes):
            try require(!outcomes.isEmpty && outcomes.count <= 16, "`=>` needs 1 to 16 outcomes")
            for outcome in outcomes {
                try range(of: outcome)
                try require(step.canEnd(with: outcome), step.hint(outcome))
            }
        case .named(let name):
            try require(
                results != nil,
                "unknown outcome \(name)\(LineParser.nearOutcome(name.description)) "
                    + "(results have names in parallel blocks only)")
            try require(
                !LitmusTest.outcomeWords.contains(name.description),
                "`\(name)` is an outcome: choose another name for the result")
            try newName(name)
            try require(results?.insert(name).inserted == true, "there is already a result `\(name)`")
        }
        return results ?? []
    }

    /// Refuses steps that are not atomic, which are not allowed in a parallel block.
    package func atOnce(_ step: Step) throws(TestProblem) {
        switch (step.action, step.actor) {
        case (.every, _):
            throw fail("`every` is many calls, not one: write it before or after the parallel block")
        case (.check, _): throw fail("`check` is not atomic: use `read` in a parallel block")
        case (.fill, .vcpu): throw fail("a vCPU's `fill` is not atomic: use `write` in a parallel block")
        case (.fork, _): throw fail("fork the child before the parallel block")
        case (.zapped, _):
            throw fail("`zapped` has no defined start in a parallel block: use it after the block")
        case (.convert(let conversion), _) where conversion.monitor != MonitorPolicy():
            throw fail("in a parallel block a conversion is one call: omit `bisect`, `attempts` and `chunk`")
        case (.convert(let conversion), _) where conversion.contents == .zero:
            throw fail(
                "`zero` is a conversion and then another step of the monitor: write both in a parallel block")
        case (_, .vcpu):
            let onFault = step.action == .again ? faultConversions[step.actor] : step.onFault
            try require(
                onFault?.isOneCall ?? true,
                "in a parallel block the monitor converts by one call: omit `zero`, `bisect`, `attempts` and "
                    + "`chunk` after `converting`")
        default: break
        }
    }

    package func range(of outcome: StepOutcome) throws(TestProblem) {
        guard case .errno(let number, _) = outcome else { return }
        try require((1...4095).contains(number), "an errno must be 1 to 4095, not \(number)")
    }

    // MARK: actors

    package func actor(_ step: Step) throws(TestProblem) {
        let number =
            switch step.actor {
            case .host(let number), .vcpu(let number), .child(let number): number
            }
        try require((0..<Actor.limit).contains(number), "actors are numbered 0 to \(Actor.limit - 1)")
        let isAccess = step.action.isAccess
        switch step.actor {
        case .host:
            switch step.action.single {
            case .hypercall: throw fail("only a vCPU can make a hypercall")
            case .again, .preFault, .clock: throw fail("only a vCPU can `\(step.action)`")
            case .confidential(let action):
                try require(!action.isOfGuest, "only a vCPU can `\(step.action)`")
            default: break
            }
        case .vcpu:
            switch step.action.single {
            case .hypercall, .again, .preFault, .clock: return
            case .confidential(let action):
                return try require(action.isOfGuest, "only a host can `\(step.action)`")
            default: break
            }
            try require(
                isAccess,
                "a vCPU can `read`, `write`, `fill`, `check`, `hypercall`, `prefault`, `clock` and `again`")
        case .child(let child):
            try require(children[child] != nil, "\(step.actor) must be forked first")
            try require(isAccess, "a child can `read`, `write`, `fill` and `check`")
        }
    }
}
