// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// A test that can be written but makes no sense.
public struct TestProblem: Error, Sendable, Equatable {
    /// The index in ``LitmusTest/steps``; nil if the problem is in no single step.
    public let step: Int?
    /// What is wrong, without the place.
    public let message: String
}

extension LitmusTest {
    /// Pages of the largest memory or view: 1 TiB.
    public static let mostPages: UInt64 = 1 << 28
    /// The largest number of steps in a test.
    public static let mostSteps = 10_000
    /// Bytes of the largest `fill`, `check` or `hold`: 64 MiB.
    public static let mostTouched: UInt64 = 64 << 20

    /// Words that begin an outcome, so that no result can have them for a name.
    static let outcomeWords: Set<String> = ["ok", "errno", "differs", "fault", "mmio"]

    /// What is wrong with the test. Nil if it can be run, and its written form reads back as the same test.
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

/// Goes through a test as a run would, with names alone.
private struct Check {
    private var step: Int?
    private var files: Set<Name> = []
    private var views: Set<Name> = []
    private var holds: Set<Name> = []
    /// Descriptors that were closed and views that were unmapped: they have their names until these are given anew.
    private var closed: Set<Name> = []
    private var unmapped: Set<Name> = []
    /// Children, with the views that there were when they were forked.
    private var children: [Int: Set<Name>] = [:]
    private var hasTwoAliases = false
    /// The memories that are the guest's, and those of them whose name is another file's by now.
    private var regions: Set<Name> = []
    private var replaced: Set<Name> = []
    /// What a vCPU's last access says about memory faults: `again` repeats it.
    private var faultConversions: [Actor: FaultConversion] = [:]

    private func fail(_ message: String) -> TestProblem { TestProblem(step: step, message: message) }

    private func require(_ condition: Bool, _ message: @autoclosure () -> String) throws(TestProblem) {
        if !condition { throw fail(message()) }
    }

    mutating func test(_ test: LitmusTest) throws(TestProblem) {
        let printable = test.name.utf8.allSatisfy { (0x20..<0x7f).contains($0) && $0 != 0x22 && $0 != 0x5c }
        try require(
            printable && !test.name.isEmpty && test.name.utf8.count <= 200,
            "what a test shows takes 1 to 200 bytes of printable ASCII, without quotes and backslashes")
        try require(test.hazards.count <= 64 && test.needs.count <= 64, "at most 64 hazards and 64 needs")
        for case .nodes(let count) in test.needs {
            try require(count <= Need.mostNodes, "at most \(Need.mostNodes) NUMA nodes")
        }
        try require(
            test.settings.attributeRuns.map { UInt32(exactly: $0) != nil } ?? true,
            "a kernel has 0 to 2^32 - 1 runs of attributes")
        try require(test.memory.count <= 64, "at most 64 memories")
        for memory in test.memory {
            try newName(memory.name)
            try require(files.insert(memory.name).inserted, "a second memory `\(memory.name)`")
            if !memory.isUnbound { regions.insert(memory.name) }
            try require(
                (1...LitmusTest.mostPages).contains(memory.pages),
                "a memory has 1 to \(LitmusTest.mostPages) pages, not \(memory.pages)")
            views.insert(memory.name)
        }
        try require(
            !test.hasTwoAliases || test.vm == .softwareProtected,
            "a default VM has no private memory, and one alias")
        hasTwoAliases = test.hasTwoAliases
        var number = 0
        for entry in test.body {
            switch entry {
            case .step(let step): try self.step(step, number: &number, results: nil)
            case .parallel(let block): try parallel(block, number: &number)
            }
        }
        step = nil
        try require(number > 0, "a test has a step")
    }

    private mutating func parallel(_ block: Parallel, number: inout Int) throws(TestProblem) {
        let first = number
        var results: Set<Name> = []
        for step in block.steps { results = try self.step(step, number: &number, results: results) }
        step = first < number ? first : nil
        for clause in block.clauses {
            try require(!clause.conditions.isEmpty, "`\(clause.kind.rawValue)` says nothing")
            try require(
                clause.description.utf8.count <= Lexer.longestLine,
                "a line has at most \(Lexer.longestLine) bytes, and this `\(clause.kind.rawValue)` has more")
            for condition in clause.conditions {
                try require(
                    results.contains(condition.result),
                    "no step of the block has a result `\(condition.result)`")
                try range(of: condition.outcome)
            }
        }
    }

    @discardableResult
    private mutating func step(
        _ step: Step, number: inout Int, results: Set<Name>?
    ) throws(TestProblem) -> Set<Name> {
        self.step = number
        number += 1
        var results = results
        try require(number <= LitmusTest.mostSteps, "at most \(LitmusTest.mostSteps) steps")
        try actor(step)
        try action(step.action, by: step.actor)
        if let onFault = step.onFault { try converting(onFault, step) }
        if step.action.isAccess { faultConversions[step.actor] = step.onFault }
        if results != nil { try atOnce(step) }
        switch step.expectation {
        case .unspecified: break
        case .anyOf(let outcomes):
            try require(!outcomes.isEmpty && outcomes.count <= 16, "1 to 16 outcomes behind `=>`")
            for outcome in outcomes {
                try range(of: outcome)
                try require(step.canEnd(with: outcome), step.hint(outcome))
            }
        case .named(let name):
            try require(
                results != nil, "`\(name)` is no outcome; results have names in parallel blocks only")
            try require(
                !LitmusTest.outcomeWords.contains(name.description), "`\(name)` is an outcome, and no name")
            try newName(name)
            try require(results?.insert(name).inserted == true, "a second result `\(name)`")
        }
        return results ?? []
    }

    /// What is more than one thing to those who act at the same time, and has no place in a block.
    private func atOnce(_ step: Step) throws(TestProblem) {
        switch (step.action, step.actor) {
        case (.check, _): throw fail("in a parallel block one byte is looked at: say `read`")
        case (.fill, .vcpu): throw fail("in a parallel block a vCPU touches one byte: say `write`")
        case (.fork, _): throw fail("a child is forked before the parallel block")
        case (.zapped, _):
            throw fail("in a parallel block nobody can say since when pages went: say `zapped` behind it")
        case (.convert(let conversion), _) where conversion.monitor != MonitorPolicy():
            throw fail("in a parallel block a conversion is one call: no `bisect`, `attempts` or `chunk`")
        case (.convert(let conversion), _) where conversion.contents == .zero:
            throw fail(
                "`zero` is a conversion and then another step of the monitor: say both in a parallel block")
        case (_, .vcpu):
            let onFault = step.action == .again ? faultConversions[step.actor] : step.onFault
            try require(
                onFault?.isOneCall ?? true,
                "in a parallel block the monitor converts by one call: no `zero`, `bisect`, `attempts` or "
                    + "`chunk` behind `converting`")
        default: break
        }
    }

    private func range(of outcome: StepOutcome) throws(TestProblem) {
        guard case .errno(let number, _) = outcome else { return }
        try require((1...4095).contains(number), "an errno is from 1 to 4095, not \(number)")
    }

    // MARK: who

    private func actor(_ step: Step) throws(TestProblem) {
        let number =
            switch step.actor {
            case .host(let number), .vcpu(let number), .child(let number): number
            }
        try require((0..<Actor.limit).contains(number), "actors have numbers below \(Actor.limit)")
        let isAccess =
            switch step.action {
            case .read, .write, .fill, .check: true
            default: false
            }
        switch step.actor {
        case .host:
            switch step.action {
            case .hypercall: throw fail("a hypercall is made by a vCPU")
            case .again, .preFault, .clock: throw fail("only a vCPU can `\(step.action)`")
            default: break
            }
        case .vcpu:
            switch step.action {
            case .hypercall, .again, .preFault, .clock: return
            default: break
            }
            try require(
                isAccess,
                "a vCPU can `read`, `write`, `fill`, `check`, `hypercall`, `prefault`, `clock` and `again`")
        case .child(let child):
            try require(children[child] != nil, "\(step.actor) has not been forked before")
            try require(isAccess, "a child can `read`, `write`, `fill` and `check`")
        }
    }

    // MARK: what

    private mutating func action(_ action: Action, by actor: Actor) throws(TestProblem) {
        if action.extent?.name == .guest {
            guard case .convert(let conversion) = action else {
                throw fail("only `convert` takes `guest:`; a vCPU's pages are guest-physical without it")
            }
            try monitor(conversion)
            return try guest(conversion)
        }
        switch action {
        case .read(let place), .write(let place, _): try view(place.name, actor)
        case .fill(let extent, _), .check(let extent, _):
            try touch(extent)
            try view(extent.name, actor)
        case .hold(let extent, _, let hold):
            try touch(extent)
            try view(extent.name, actor)
            try newName(hold)
            try require(holds.insert(hold).inserted, "a second hold `\(hold)`")
        case .advise(let extent, _):
            _ = try end(of: extent)
            try view(extent.name, actor)
        case .convert(let conversion):
            try file(conversion.extent.name)
            try monitor(conversion)
            try require(
                conversion.reserved.allSatisfy { (0...10).contains($0.index) },
                "the reserved words have numbers 0 to 10")
        case .allocate(let extent), .punch(let extent): try file(extent.name)
        case .map(let extent, let view):
            try file(extent.name)
            try require(extent.size <= LitmusTest.mostPages * pageSize, "a view has at most 1 TiB")
            try newView(view)
        case .unmap(let name):
            try view(name, actor)
            forget(name)
        case .remap(let name, let pages, let new):
            try view(name, actor)
            try require(pages <= LitmusTest.mostPages, "a view has at most 1 TiB")
            forget(name)
            try newView(new)
        case .protect(let extent, _), .mbind(let extent, _, _):
            _ = try end(of: extent)
            try view(extent.name, actor)
        case .node(let place), .migrate(let place, _): try view(place.name, actor)
        case .release(let hold):
            try require(holds.remove(hold) != nil, "there is no hold `\(hold)`")
        case .create(let new):
            try newFile(new.name)
        case .dup(let name, let copy):
            try file(name)
            try newFile(copy)
        case .close(let name):
            try file(name)
            files.remove(name)
            closed.insert(name)
        case .bind(let binding):
            try file(binding.extent.name)
            try require(binding.extent.size > 0, "a slot of no bytes: say `unbind`")
            if let address = binding.address { try view(address.name, actor) }
        case .unbind, .again, .zapped, .extension, .dirty: break
        case .setAttributes(let extent, _, _, _):
            try require(extent.name == .ram, "a VM's attributes are of guest-physical pages, and no file")
        case .syscall(let name, _): try file(name)
        case .peek(let place): try view(place.name, actor)
        case .preFault(let extent):
            try require(extent.name == .ram, "a vCPU names guest-physical pages, and no file")
        case .clock(let place):
            try require(place.name == .ram, "a vCPU names guest-physical pages, and no file")
        case .present(let extent):
            _ = try end(of: extent)
            try view(extent.name, actor)
        case .hypercall(let extent, _):
            try require(extent.name == .ram, "a vCPU names guest-physical pages, and no file")
        case .fork(let child):
            try require((0..<Actor.limit).contains(child), "actors have numbers below \(Actor.limit)")
            try require(children[child] == nil, "\(Actor.child(child)) has been forked before")
            children[child] = views
        }
    }

    /// The guest's memory has no descriptor, so there is no bare call on it.
    private func guest(_ conversion: Conversion) throws(TestProblem) {
        try require(!regions.isEmpty, "the guest has no memory: bind one with `memory`")
        if let name = replaced.sorted(by: { $0.description < $1.description }).first {
            throw fail("the guest's memory `\(name)` was closed, and its name is another file's by now")
        }
        try require(
            conversion.contents != nil,
            "the guest's memory has several files: say what is to become of the contents "
                + "(`preserve`, `zero` or `unspecified`), and the monitor converts")
        try require(
            conversion.isPlain && Attributes.state(conversion.attributes) != nil,
            "the monitor fills in the struct itself for `guest:`: no `attributes`, `flags`, `reserved`, "
                + "`error_offset` or `struct`")
        try require(
            PageRange(start: conversion.extent.offset, size: conversion.extent.size) != nil,
            "the monitor converts whole pages, and `\(conversion.extent)` is none")
    }

    private func monitor(_ conversion: Conversion) throws(TestProblem) {
        try require(
            conversion.contents != nil || conversion.monitor == MonitorPolicy(),
            "`bisect`, `attempts` and `chunk` are the monitor's: say what is to become of the contents")
        try limits(of: conversion.monitor)
    }

    private func converting(_ onFault: FaultConversion, _ step: Step) throws(TestProblem) {
        var isVCPU = false
        if case .vcpu = step.actor { isVCPU = true }
        try require(
            step.action != .again || !isVCPU,
            "`again` repeats an access with what that step says: `converting` belongs there")
        try require(
            isVCPU && step.action.isAccess,
            "`converting` is for a vCPU's `read`, `write`, `fill` and `check`: nothing else is converted on "
                + "a memory fault")
        try limits(of: onFault.monitor)
    }

    private func limits(of monitor: MonitorPolicy) throws(TestProblem) {
        try require(
            (1...MonitorPolicy.mostAttempts).contains(monitor.attempts),
            "1 to \(MonitorPolicy.mostAttempts) attempts")
        try require(
            monitor.chunk.map { (1...LitmusTest.mostPages).contains($0) } ?? true,
            "a chunk has 1 to \(LitmusTest.mostPages) pages")
    }

    private func end(of extent: Extent) throws(TestProblem) -> UInt64 {
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        try require(!overflow && extent.size > 0, "a step touches one byte at least, below 2^64")
        return end
    }

    private func touch(_ extent: Extent) throws(TestProblem) {
        _ = try end(of: extent)
        try require(extent.size <= LitmusTest.mostTouched, "one step touches at most 64 MiB")
    }

    private func file(_ name: Name) throws(TestProblem) {
        try require(files.contains(name) || closed.contains(name), "there is no file `\(name)`")
    }

    private func newName(_ name: Name) throws(TestProblem) {
        try require(name != .guest, "`guest` stands for the guest's memory, and is no other name")
    }

    private mutating func newFile(_ name: Name) throws(TestProblem) {
        try newName(name)
        if regions.contains(name) { replaced.insert(name) }
        try require(files.insert(name).inserted, "a second file `\(name)`")
        closed.remove(name)
    }

    private mutating func newView(_ name: Name) throws(TestProblem) {
        try newName(name)
        try require(views.insert(name).inserted, "a second view `\(name)`")
        unmapped.remove(name)
    }

    private mutating func forget(_ view: Name) {
        views.remove(view)
        unmapped.insert(view)
    }

    private func view(_ name: Name, _ actor: Actor) throws(TestProblem) {
        if case .vcpu = actor {
            let isAlias = name == .ram || name == .shared && hasTwoAliases
            return try require(
                isAlias, "a vCPU names guest-physical pages, and no view (`shared:` with `aliases two`)")
        }
        if case .child(let number) = actor, children[number]?.contains(name) == true { return }
        try require(views.contains(name) || unmapped.contains(name), "there is no view `\(name)`")
    }
}

extension Action {
    /// Whether that is a thing that can come of it, on some kernel.
    func canEnd(with outcome: StepOutcome, on actor: Actor) -> Bool {
        var isVCPU = false
        if case .vcpu = actor { isVCPU = true }
        switch (self, outcome) {
        case (.read, .value), (.check, .differs), (.again, .value), (.peek, .value): return true
        case (.peek, .ok): return false
        case (.zapped, .value), (.present, .value), (.extension, .value), (.dirty, .value), (.node, .value):
            return true
        case (.zapped, .ok), (.present, .ok), (.extension, .ok), (.dirty, .ok), (.node, .ok): return false
        case (.read, .ok): return false
        case (.again, .fault), (.again, .mmio): return true
        case (_, .ok): return true
        case (.read, .sigbus(let place)), (.write, .sigbus(let place)): return !isVCPU && place == nil
        case (.fill, .sigbus), (.check, .sigbus): return !isVCPU
        case (.read, .fault), (.write, .fault), (.fill, .fault), (.check, .fault): return isVCPU
        case (.read, .mmio), (.write, .mmio), (.fill, .mmio), (.check, .mmio): return isVCPU
        case (.read, .errno(let number, let place)), (.write, .errno(let number, let place)),
            (.fill, .errno(let number, let place)), (.check, .errno(let number, let place)):
            // A vCPU names the page whose memory has failed.
            if isVCPU, number == Errno.hardwarePoisoned.rawValue { return true }
            return place == nil && (isVCPU || number != 14)
        case (.again, .errno): return true
        case (.convert, .errno), (.hypercall, .errno): return true
        case (_, .errno(_, let place)): return place == nil
        default: return false
        }
    }
}

extension Step {
    /// Whether that is a thing that can come of it, on some kernel.
    func canEnd(with outcome: StepOutcome) -> Bool {
        // The answer to the conversion that a memory fault has asked for.
        if onFault != nil, case .errno = outcome { return true }
        return action.canEnd(with: outcome, on: actor)
    }

    func hint(_ outcome: StepOutcome) -> String {
        if case .errno(14, _) = outcome {
            return
                "an access that gets no page is `SIGBUS` here, also where the kernel is asked by a system call"
        }
        return "`\(outcome)` cannot come of `\(action)`"
    }
}
