// SPDX-License-Identifier: MIT
import ConversionModel

// Tests that can be written but cannot be performed on any kernel.

extension Source {
    /// The first step or clause that no kernel can ever perform or satisfy, with its place; nil if there is
    /// none.
    ///
    /// A request that every kernel refuses is not one of these: it has an answer.
    public func impossibility() -> SyntaxError? {
        var feasibility = Feasibility(test)
        do throws(TestProblem) {
            try feasibility.check()
            return nil
        } catch {
            let place = error.step.flatMap { places.indices.contains($0) ? places[$0] : nil } ?? (1, 1)
            return SyntaxError(line: place.0, column: place.1, message: error.message)
        }
    }
}

private struct Feasibility {
    private let test: LitmusTest
    private var step: Int?
    /// The length of each view, bytes.
    private var lengths: [Name: UInt64] = [:]
    /// Views that do not exist because the step that would create them is expected to fail.
    private var neverThere: Set<Name> = []

    init(_ test: LitmusTest) {
        self.test = test
        for memory in test.memory { lengths[memory.name] = memory.pages * pageSize }
    }

    private func require(_ condition: Bool, _ message: @autoclosure () -> String) throws(TestProblem) {
        if !condition { throw TestProblem(step: step, message: message()) }
    }

    mutating func check() throws(TestProblem) {
        var number = 0
        for entry in test.body {
            switch entry {
            case .step(let step):
                self.step = number
                try check(step)
                number += 1
            case .parallel(let block):
                let first = number
                for step in block.steps {
                    self.step = number
                    try check(step)
                    number += 1
                }
                self.step = first
                for clause in block.clauses { try check(clause, of: block) }
            }
        }
    }

    private mutating func check(_ step: Step) throws(TestProblem) {
        switch step.action {
        case .every(let pattern, let action) where action.isAccess:
            try access(pattern.extent, step.actor, mostBytes: .max)
        case .read(let place), .write(let place, _):
            try access(Extent(place.name, offset: place.offset, size: 1), step.actor)
        case .fill(let extent, _), .check(let extent, _), .hold(let extent, _, _):
            try access(extent, step.actor)
        case .peek(let place): try access(Extent(place.name, offset: place.offset, size: 1), step.actor)
        case .present(let extent): try access(extent, step.actor)
        case .map(let extent, let view):
            lengths[view] = extent.size
            neverThere.remove(view)
            if case .anyOf(let outcomes) = step.expectation, !outcomes.contains(.ok) {
                neverThere.insert(view)
            }
        case .hypercall(let extent, _):
            try require(
                extent.offset % pageSize == 0 && extent.size % pageSize == 0,
                "a hypercall is for whole pages, which \(extent) is not")
        default: break
        }
    }

    /// - Parameter mostBytes: the largest number of bytes that a vCPU accesses.
    private func access(
        _ extent: Extent, _ actor: Actor, mostBytes: UInt64 = GuestReach.mostBytes
    ) throws(TestProblem) {
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        if case .vcpu = actor {
            try require(
                extent.size <= mostBytes,
                "a vCPU accesses at most \(GuestReach.mostBytes / pageSize) pages in a step")
            return try require(
                !overflow && end <= GuestReach.end,
                "a vCPU can only access guest-physical addresses below 0x\(String(GuestReach.end, radix: 16))"
            )
        }
        try require(
            !neverThere.contains(extent.name),
            "there is no view `\(extent.name)`: the step that creates it is expected to fail")
        guard let length = lengths[extent.name] else { return }
        let pages = length % pageSize == 0 ? " (\(length / pageSize) pages from page 0)" : ""
        try require(
            !overflow && end <= length,
            "\(extent) is not inside the view `\(extent.name)`, which has \(length) bytes\(pages)")
    }

    private func check(_ clause: Clause, of block: Parallel) throws(TestProblem) {
        for condition in clause.conditions {
            let steps = block.steps.filter { $0.result == condition.result }
            for step in steps {
                try require(
                    step.canEnd(with: condition.outcome),
                    "`\(clause.kind.rawValue) \(clause.conditionText)` never applies: "
                        + step.hint(condition.outcome))
            }
            try require(
                clause.conditions.allSatisfy {
                    $0.result != condition.result || $0.outcome == condition.outcome
                },
                "`\(clause.kind.rawValue) \(clause.conditionText)` never applies: "
                    + "`\(condition.result)` has one outcome in a run")
        }
    }
}
