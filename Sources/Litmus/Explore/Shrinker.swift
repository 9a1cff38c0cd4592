// SPDX-License-Identifier: MIT
import MiniVMM

/// Makes a test smaller as long as it still shows a difference: fewer steps first, then simpler ones, then less memory.
///
/// This is Zeller's delta debugging (ddmin) on the steps of a test.
struct Shrinker {
    /// Whether a test still shows the difference.
    private let shows: (LitmusTest) -> Bool
    /// Tests that do not show it.
    private var tried: Set<LitmusTest> = []

    init(shows: @escaping (LitmusTest) -> Bool) { self.shows = shows }

    func shrink(_ test: LitmusTest) -> LitmusTest {
        var own = self
        return own.reduce(test)
    }

    private mutating func reduce(_ test: LitmusTest) -> LitmusTest {
        var best = test
        while true {
            let before = best
            removeSteps(&best)
            untangle(&best)
            simplify(&best)
            if best == before { return best }
        }
    }

    /// Applies a change if the test still shows the difference.
    private mutating func take(_ candidate: LitmusTest, _ best: inout LitmusTest) -> Bool {
        guard candidate != best, !tried.contains(candidate) else { return false }
        guard shows(candidate) else {
            tried.insert(candidate)
            return false
        }
        best = candidate
        return true
    }

    // MARK: fewer steps

    private mutating func removeSteps(_ best: inout LitmusTest) {
        var size = max(1, best.steps.count / 2)
        while true {
            var start = 0
            while start < best.steps.count {
                let cut = Set(start..<min(start + size, best.steps.count))
                if !take(best.without(cut), &best) { start += size }
            }
            if size == 1 { return }
            size /= 2
        }
    }

    /// Replaces a block by sequential steps if they show the difference.
    private mutating func untangle(_ best: inout LitmusTest) {
        var index = 0
        while index < best.body.count {
            if case .parallel(let block) = best.body[index] {
                var candidate = best
                candidate.body.replaceSubrange(
                    index...index,
                    with: block.steps.map {
                        .step(Step($0.actor, $0.action, onFault: $0.onFault))
                    })
                _ = take(candidate, &best)
            }
            index += 1
        }
    }

    // MARK: simpler steps

    private mutating func simplify(_ best: inout LitmusTest) {
        // Each candidate is the best test so far with one change.
        var isNew = true
        while isNew {
            isNew = false
            for machine in Self.machines(best) where !isNew { isNew = take(machine, &best) }
        }
        for index in best.steps.indices {
            var isNew = true
            while isNew {
                isNew = false
                guard index < best.steps.count else { break }
                for step in best.steps[index].simpler {
                    if take(best.replacing(index, step), &best) {
                        isNew = true
                        break
                    }
                }
            }
        }
    }

    /// Smaller machines for the same steps.
    private static func machines(_ test: LitmusTest) -> [LitmusTest] {
        var machines: [LitmusTest] = []
        func change(_ body: (inout LitmusTest) -> Void) {
            var test = test
            body(&test)
            machines.append(test)
        }
        change { $0.vm = .softwareProtected }
        change { $0.hasTwoAliases = false }
        for index in test.memory.indices.reversed() {
            change { $0.memory.remove(at: index) }
            let pages = test.memory[index].pages
            if pages > 1 { change { $0.memory[index].pages = 1 } }
            // A half, a quarter and so on less.
            var less = pages / 2
            while less > 0 {
                change { $0.memory[index].pages -= less }
                less /= 2
            }
            change { $0.memory[index].initial = .shared }
            change { $0.memory[index].isUnbound = false }
        }
        return machines
    }
}

extension LitmusTest {
    /// The test without the steps with these indices. A block with a single actor becomes sequential steps.
    func without(_ cut: Set<Int>) -> LitmusTest {
        mapSteps { index, step in cut.contains(index) ? nil : step }
    }

    func replacing(_ wanted: Int, _ new: Step) -> LitmusTest {
        mapSteps { index, step in index == wanted ? new : step }
    }

    private func mapSteps(_ change: (Int, Step) -> Step?) -> LitmusTest {
        var test = self
        var index = 0
        test.body = body.compactMap { entry in
            func next(_ step: Step) -> Step? {
                defer { index += 1 }
                return change(index, step)
            }
            switch entry {
            case .step(let step): return next(step).map(Entry.step)
            case .parallel(let block):
                let steps = block.steps.compactMap(next)
                var rest = Parallel(steps: steps, preemption: block.preemption, clauses: block.clauses)
                if !rest.canBePreempted { rest.preemption = nil }
                return steps.isEmpty ? nil : .parallel(rest)
            }
        }
        return test
    }
}

extension Step {
    /// Simpler variants of a step, the largest change first.
    fileprivate var simpler: [Step] {
        var steps: [Step] = []
        func add(_ actor: Actor, _ action: Action, onFault: FaultConversion?) {
            let step = Step(actor, action, expectation, onFault: onFault)
            if step != self { steps.append(step) }
        }
        func add(_ actor: Actor, _ action: Action) { add(actor, action, onFault: onFault) }
        switch actor {
        case .host(let number): for lower in [0, number - 1] where lower >= 0 { add(.host(lower), action) }
        case .vcpu(let number): for lower in [0, number - 1] where lower >= 0 { add(.vcpu(lower), action) }
        case .child: break
        }
        for action in action.simpler { add(actor, action) }
        if let onFault {
            add(actor, action, onFault: nil)
            add(actor, action, onFault: FaultConversion(onFault.contents))
            add(actor, action, onFault: FaultConversion(.unspecified, monitor: onFault.monitor))
        }
        return steps
    }
}

extension Action {
    fileprivate var simpler: [Action] {
        switch self {
        case .every(let pattern, let action): pattern.simpler(action)
        case .read(let place): place.simpler.map(Action.read)
        case .peek(let place): place.simpler.map(Action.peek)
        case .write(let place, let byte): place.simpler.map { .write($0, byte) } + [.write(place, 0x41)]
        case .fill(let extent, let byte):
            [.write(extent.start, byte)] + extent.simpler.map { .fill($0, byte) } + [.fill(extent, 0x41)]
        case .check(let extent, let byte):
            [.read(extent.start)] + extent.simpler.map { .check($0, byte) }
        case .convert(let conversion): conversion.simpler.map(Action.convert)
        case .map(let extent, let view): extent.simpler.map { .map($0, view: view) }
        case .advise(let extent, let advice): extent.simpler.map { .advise($0, advice) }
        case .allocate(let extent): extent.simpler.map(Action.allocate)
        case .punch(let extent): extent.simpler.map(Action.punch)
        case .present(let extent): extent.simpler.map(Action.present)
        case .preFault(let extent): extent.simpler.map(Action.preFault)
        case .hypercall(let extent, let attributes):
            extent.simpler.map { .hypercall($0, attributes: attributes) }
        case .hold(let extent, let kind, let name):
            [.hold(extent, by: .vmsplice, hold: name)]
                + extent.simpler.map { .hold($0, by: kind, hold: name) }
        case .bind(let binding):
            binding.extent.simpler.map { extent in
                var binding = binding
                binding.extent = extent
                return .bind(binding)
            }
        case .create(let file):
            [
                .create(
                    NewFile(
                        file.name, size: min(file.size, pageSize),
                        flags: file.size == pageSize ? file.flags : file.flags & 3, vm: nil))
            ]
                + Extent(offset: 0, size: file.size).simpler.filter { $0.offset == 0 && $0.size > pageSize }
                .map {
                    .create(NewFile(file.name, size: $0.size, flags: file.flags, vm: file.vm))
                }
        case .protect(let extent, let protection): extent.simpler.map { .protect($0, protection) }
        case .mbind(let extent, let policy, let flags): extent.simpler.map { .mbind($0, policy, flags) }
        case .setAttributes(let extent, let attributes, let flags, let vm):
            extent.simpler.map { .setAttributes($0, attributes: attributes, flags: flags, on: vm) }
        case .unmap, .release, .close, .unbind, .again, .fork, .clock, .syscall, .zapped, .extension, .remap,
            .dup, .migrate, .node, .dirty:
            []
        case .confidential(let action): action.simpler.map(Action.confidential)
        }
    }
}

extension ConfidentialAction {
    fileprivate var simpler: [ConfidentialAction] {
        switch self {
        case .validate(let extent, let isValid, let isLarge):
            extent.simpler.map { .validate($0, isValid: isValid, isLarge: isLarge) }
        case .accept(let extent, let isLarge): extent.simpler.map { .accept($0, isLarge: isLarge) }
        case .launch(let extent): extent.simpler.map(ConfidentialAction.launch)
        case .take(let extent): extent.simpler.map(ConfidentialAction.take)
        case .block(let extent): extent.simpler.map(ConfidentialAction.block)
        case .remove(let extent): extent.simpler.map(ConfidentialAction.remove)
        case .answer(let number): number == 1 ? [] : [.answer(1)]
        case .remap, .finalize, .track, .raiseVE: []
        }
    }
}

extension Pattern {
    /// A single call on one page or on the whole range, fewer calls, and calls on neighbouring pages.
    fileprivate func simpler(_ action: Action) -> [Action] {
        var ends = [extent.offset]
        if let count, count > 1 { ends.append(extent.offset + (count - 1) * stride * pageSize) }
        let single = ends.compactMap { action.moved(to: Extent(extent.name, offset: $0, size: pageSize)) }
        let whole = action.isSingle ? nil : action.moved(to: extent)
        let patterns =
            extent.simpler.filter { $0.pages != nil }.map { Pattern(every: stride, of: $0) }
            + [2, 1, stride / 2].filter { $0 > 0 && $0 < stride }.map { distance in
                // The same number of calls, closer together.
                let size = ((count ?? 1) - 1) * distance * pageSize + pageSize
                return Pattern(every: distance, of: Extent(extent.name, offset: extent.offset, size: size))
            }
        return single + [whole].compactMap { $0 }
            + patterns.compactMap { Action.every($0.stride, of: $0.extent, action) }
    }
}

extension Conversion {
    fileprivate var simpler: [Conversion] {
        var conversions: [Conversion] = []
        func change(_ body: (inout Conversion) -> Void) {
            var conversion = self
            body(&conversion)
            conversions.append(conversion)
        }
        change { $0.flags = 0 }
        change { $0.reserved = [] }
        change { $0.errorOffset = 0 }
        change { $0.structure = .writable }
        change { $0.monitor = MonitorPolicy() }
        change {
            $0.contents = nil
            $0.monitor = MonitorPolicy()
        }
        if extent.name == .guest { change { $0.extent.name = .ram } }
        if flags > 1 { change { $0.flags = 1 } }
        if errorOffset > 1 { change { $0.errorOffset = 1 } }
        if let word = reserved.first, word.value > 1 {
            change { $0.reserved = [Word(index: word.index, value: 1)] }
        }
        for extent in extent.simpler { change { $0.extent = extent } }
        return conversions
    }
}

extension Place {
    fileprivate var simpler: [Place] {
        let page = offset / pageSize
        return [
            Place(name, offset: 0), Place(name, offset: page * pageSize),
            Place(name, offset: page > 0 ? (page - 1) * pageSize : 0),
        ].filter { $0 != self }
    }
}

extension Extent {
    fileprivate var start: Place { Place(name, offset: offset) }

    /// Fewer pages and lower page numbers. They are halved, so that a large range takes a few dozen tests, and at last
    /// reduced page by page.
    fileprivate var simpler: [Extent] {
        var extents: [Extent] = []
        func add(_ offset: UInt64, _ size: UInt64) {
            let extent = Extent(name, offset: offset, size: size)
            if extent != self { extents.append(extent) }
        }
        func addRest(from distance: UInt64) {
            let (start, overflow) = offset.addingReportingOverflow(distance)
            if !overflow { add(start, size - distance) }
        }
        let few = 64 * pageSize
        add(offset / pageSize * pageSize, pageSize)
        // A half less. If the range is large, also a quarter, an eighth and so on, so that it ends at the page that
        // matters.
        var less = size / 2 / pageSize * pageSize
        while less > 0 {
            add(offset, size - less)
            addRest(from: less)
            if size <= few { break }
            less = less / 2 / pageSize * pageSize
        }
        if size > pageSize, size <= few {
            add(offset, size - pageSize)
            addRest(from: pageSize)
        }
        if offset >= pageSize {
            add(offset / 2 / pageSize * pageSize, size)
            var less = offset / 4 / pageSize * pageSize
            while less > pageSize {
                add(offset - less, size)
                less = less / 2 / pageSize * pageSize
            }
            add(offset - pageSize, size)
        }
        return extents
    }
}
