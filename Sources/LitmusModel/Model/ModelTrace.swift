// SPDX-License-Identifier: MIT
import ConversionModel

/// A kernel of the model: a version of the interface, or one with rules that are broken on purpose.
package struct ModelKernel: Sendable {
    /// The version of the interface.
    package var abi: ABIProfile
    /// The effect of conversions on contents; nil is that of ``abi``.
    package var promise: ContentPromise?
    /// Where contents are decided; nil is the rule of ``abi``.
    package var design: ContentDesign?
    /// The rules that are broken.
    package var faults: [PlantedFault]

    /// Linux 7.4 by default.
    package init(
        abi: ABIProfile = .linux74, promise: ContentPromise? = nil, design: ContentDesign? = nil,
        faults: [PlantedFault] = []
    ) {
        self.abi = abi
        self.promise = promise
        self.design = design
        self.faults = faults
    }

    fileprivate func rules(for test: LitmusTest) -> Rules {
        Rules(
            abi: abi, contentDesign: design, contentPromise: promise, faults: PlantedFaults(faults),
            memoryLimit: KernelModel.backedBytes
        )
        .configured(for: test)
    }
}

/// One run of a test in the model: every step with its outcome, and what each actor sees afterwards.
package struct ModelTrace: Sendable {
    /// A step, or a part of a step that others interrupt.
    package struct Line: Sendable {
        /// The index of the step in ``LitmusTest/steps``.
        package let step: Int
        /// How much of the step was performed.
        package let part: WitnessOrder.Part
        /// A phrase for each piece. Empty for a step that is a single piece.
        package let pieces: [String]
        /// The outcome; nil if the step has not ended.
        package let outcome: StepOutcome?
        /// Whether the contents are undefined, so that a kernel may return any other byte.
        package let isAnyByte: Bool
    }

    /// What each actor sees of a page of the test's memories.
    package struct Page: Sendable, Hashable {
        /// The name of the memory.
        package let memory: Name
        /// From the start of the memory.
        package let number: UInt64
        /// Private or shared; nil if the file is gone.
        package let state: PageState?
        /// The first byte for the host; nil without a view.
        package let host: VisibleByte?
        /// The first byte for a vCPU; nil without a memslot.
        package let guest: VisibleByte?
    }

    /// The lines in their order.
    package fileprivate(set) var lines: [Line] = []
    /// The index of the step that ended unexpectedly, the last one performed; nil if none did.
    package fileprivate(set) var failure: Int?
    /// Why the model cannot perform the step ``failure``; nil if it can.
    package fileprivate(set) var problem: String?
    /// The pages at the end, at most ``mostPages``.
    package fileprivate(set) var pages: [Page] = []

    /// The number of pages that are shown.
    package static let mostPages = 16
}

/// The outcomes of a test with one parallel block.
package struct ModelRace: Sendable {
    /// An outcome of the block, and one run that leads to it.
    package struct Outcome: Sendable {
        /// The results in the order of the text.
        package let results: [Clause.Condition]
        /// A run that has it.
        package let trace: ModelTrace
    }
    /// All outcomes of the block in a fixed order.
    package fileprivate(set) var outcomes: [Outcome] = []
    /// A run for each way in which a step ends unexpectedly, the shortest first.
    package fileprivate(set) var failures: [ModelTrace] = []
    /// The number of different states.
    package fileprivate(set) var states = 0
    /// Whether every interleaving was explored.
    package fileprivate(set) var isComplete = true
}

extension LitmusTest {
    /// Performs the steps of a test without parallel blocks.
    ///
    /// - Parameters:
    ///   - kernel: the kernel that answers.
    ///   - ignored: indices of steps that may end in any way. Nil ignores every outcome, so that all steps are performed.
    /// - Throws: ``Oracle/Problem`` if the machine of the test cannot be created.
    package func trace(on kernel: ModelKernel, ignoring ignored: Set<Int>?) throws(Oracle.Problem)
        -> ModelTrace
    {
        do throws(Stop) {
            var machine = try ModelMachine(ModelMachine.Setup(kernel.rules(for: self), self))
            var trace = ModelTrace()
            trace.perform(steps, from: 0, &machine, ignoring: ignored)
            trace.pages = machine.pageViews()
            return trace
        } catch {
            throw Oracle.Problem(error)
        }
    }

    /// Explores all interleavings of a test with one parallel block.
    ///
    /// - Parameter pieces: the number of atomic pieces after which the exploration ends.
    /// - Throws: ``Oracle/Problem`` if the machine of the test cannot be created, or an interleaving cannot be performed.
    package func race(on kernel: ModelKernel, pieces: Int) throws(Oracle.Problem) -> ModelRace {
        let source: Source
        do throws(SyntaxError) { source = try Source(self) } catch {
            throw Oracle.Problem(description: error.message)
        }
        do throws(Stop) {
            var all = Interleavings(
                source, on: kernel.rules(for: self), mostPieces: pieces, keepsPart: true)
            let result = try all.explore()
            var race = ModelRace()
            race.states = result.states
            race.isComplete = result.cut == nil
            guard let block = all.program.blocks.first, race.isComplete else { return race }
            var seen: Set<[Name: StepOutcome]> = []
            for ending in all.sorted(result.endings) {
                let results = block.results(of: ending)
                let isNew = results.count == block.results.count && seen.insert(results).inserted
                guard isNew || ending.failure != nil else { continue }
                let trace = try all.trace(of: ending, block)
                if isNew {
                    let conditions = block.list(results).map {
                        Clause.Condition(result: $0.name, outcome: $0.outcome)
                    }
                    race.outcomes.append(ModelRace.Outcome(results: conditions, trace: trace))
                }
                if ending.failure != nil { race.failures.append(trace) }
            }
            // The sort is stable only by this second key.
            let order = race.failures.enumerated().sorted {
                ($0.element.lines.count, $0.offset) < ($1.element.lines.count, $1.offset)
            }
            race.failures = order.map { $0.element }
            return race
        } catch {
            throw Oracle.Problem(error)
        }
    }
}

extension Interleavings {
    /// The run with this ending, from the first step to the last one or to a failure.
    fileprivate mutating func trace(of ending: Ending, _ block: Program.Block) throws(Stop) -> ModelTrace {
        let path = try path(to: ending)
        let steps = source.test.steps
        let after = block.first + block.actors.reduce(0) { $0 + $1.count }
        var trace = ModelTrace()
        var machine = try ModelMachine(setup)
        trace.perform(Array(steps[..<block.first]), from: 0, &machine, ignoring: [])
        guard trace.failure == nil else {
            trace.pages = machine.pageViews()
            return trace
        }
        var cursor = Cursor(machine: machine)
        cursor.part = program.parts.firstIndex { if case .block = $0 { true } else { false } } ?? 0
        cursor.actors = block.actors.map { _ in Position() }
        for turn in try turns(path, &cursor, block) { trace.lines.append(turn) }
        if cursor.failure != nil {
            trace.failure = trace.lines.last?.step
        } else {
            trace.perform(Array(steps[after...]), from: after, &cursor.machine, ignoring: [])
        }
        trace.pages = cursor.machine.pageViews()
        return trace
    }

    /// The turns of a block. The steps after the block are not performed.
    private mutating func turns(
        _ path: [Int], _ cursor: inout Cursor, _ block: Program.Block
    ) throws(Stop) -> [ModelTrace.Line] {
        var lines: [ModelTrace.Line] = []
        var begun: Set<Int> = []
        var pieces: [String] = []
        for (place, actor) in path.enumerated() {
            let (index, step) = block.actors[actor][cursor.actors[actor].step]
            let before = cursor.actors[actor]
            let seen = try source.attempt(index, step) { () throws(Stop) in
                try cursor.actors[actor].advance(step, &cursor.machine)
            }
            pieces.append(before.text(to: seen == nil ? cursor.actors[actor] : nil))
            let next = place + 1 < path.count ? path[place + 1] : nil
            guard seen != nil || next != actor else { continue }
            let isFirst = begun.insert(index).inserted
            let part: WitnessOrder.Part =
                seen != nil ? (isFirst ? .whole : .ends) : (isFirst ? .begins : .continues)
            if part == .whole, pieces.count == 1 { pieces = [] }
            lines.append(
                ModelTrace.Line(
                    step: index, part: part, pieces: pieces, outcome: seen?.outcome,
                    isAnyByte: seen?.isAnyByte ?? false))
            pieces = []
            guard let seen else { continue }
            cursor.actors[actor] = Position(step: before.step + 1)
            if let failure = source.judge(seen, index, step, cursor.machine.pages) {
                cursor.failure = failure
                break
            }
        }
        return lines
    }
}

extension ModelTrace {
    /// Performs steps until one ends unexpectedly.
    fileprivate mutating func perform(
        _ steps: [Step], from first: Int, _ machine: inout ModelMachine, ignoring ignored: Set<Int>?
    ) {
        for (place, step) in steps.enumerated() {
            let index = first + place
            do throws(Stop) {
                let seen = try machine.perform(step)
                lines.append(
                    Line(
                        step: index, part: .whole, pieces: [], outcome: seen.outcome,
                        isAnyByte: seen.isAnyByte)
                )
                let isIgnored = ignored?.contains(index) ?? true
                if !isIgnored, seen.isAnyByte || !step.accepts(seen) {
                    failure = index
                    return
                }
            } catch {
                failure = index
                problem = Oracle.Problem(error).description
                return
            }
        }
    }
}

extension ModelMachine {
    /// What each actor sees of the test's memories, the first ``ModelTrace/mostPages`` pages.
    fileprivate func pageViews() -> [ModelTrace.Page] {
        var pages: [ModelTrace.Page] = []
        for memory in setup.memories {
            let region = setup.regions.first { $0.name == memory.name }
            for number in 0..<memory.pages {
                guard pages.count < ModelTrace.mostPages else { return pages }
                let offset = number * pageSize
                var host: VisibleByte?
                if let view = views[memory.name], offset < kernel.length(of: view.mapping) {
                    host = kernel.visibleToHost(view.mapping, at: offset)
                }
                var guest: VisibleByte?
                if let region, let vm = vms[setup.main] {
                    guest = kernel.visibleToGuest(vm, at: region.gpa.start + offset)
                }
                let state = files[memory.name].flatMap {
                    kernel.attributes(of: kernel.file(of: $0)).value(at: offset)
                }
                pages.append(
                    ModelTrace.Page(
                        memory: memory.name, number: number, state: state, host: host, guest: guest))
            }
        }
        return pages
    }
}

extension Oracle {
    /// The machine of a test before its first step, on this kernel.
    ///
    /// - Throws: ``Problem`` if a VM, file, view or memslot of the header cannot be created.
    package init(_ test: LitmusTest, on kernel: ModelKernel) throws(Problem) {
        try self.init(test, rules: kernel.rules(for: test))
    }
}
