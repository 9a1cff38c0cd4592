// SPDX-License-Identifier: MIT
public import MiniVMM
import SystemPackage

/// Records the runs of a test as traces, from which pictures are made.
///
/// A test without parallel blocks is one run. With blocks, every run on a real kernel is recorded. The
/// model explores all interleavings, then repeats and records one of them: the selected outcome, or a failing one if
/// there is any.
public protocol RunRecorder: AnyObject, Sendable {
    /// Called when a run of a VM of this type begins. Its events go to the trace that is returned.
    func begin(backend: any Backend, vm type: VMType) -> Trace
    /// Called when the run has ended.
    ///
    /// - Parameter isNotable: whether the run has the selected outcome (``Runner/Options/witness``); if none was selected,
    ///   whether it failed or has an outcome that the test does not allow.
    func end(isNotable: Bool)
}

/// Turns the steps of one run into events. All files share one address space, one file after the other.
///
/// Guarded by the lock of ``World/state``, which contains it. Events are recorded outside of that lock.
struct Recording {
    let trace: Trace
    /// The place of each file in that address space.
    private(set) var bases: [Name: PageRange] = [:]
    private var end: UInt64 = 0
    /// The pages of each hold in that address space.
    private var holds: [Name: PageRange] = [:]

    init(_ trace: Trace) { self.trace = trace }

    /// Assigns a place to a file; nil if there is no room left.
    mutating func add(_ name: Name, size: UInt64, _ state: PageState) -> TraceEvent? {
        // Pictures can count up to this address exactly.
        let limit: UInt64 = 1 << 52
        guard size <= limit, let range = PageRange(start: end, size: size), range.end <= limit else {
            return nil
        }
        bases[name] = range
        end = range.end
        return .fileAppeared(name.description, range, state)
    }

    /// Bytes of a file in that address space; nil if they are outside of it.
    private func place(_ extent: Extent) -> (start: UInt64, size: UInt64)? {
        guard let base = bases[extent.name], extent.offset <= base.size,
            extent.size <= base.size - extent.offset
        else { return nil }
        return (base.start + extent.offset, extent.size)
    }
}

extension Recording {
    /// The events of a step's effects, without the one for the step itself.
    ///
    /// - Parameters:
    ///   - seen: the outcome of the step.
    ///   - nanoseconds: the duration of the step.
    ///   - names: the names of the machine after the step.
    mutating func events(
        _ step: Step, _ seen: Observation, took nanoseconds: UInt64, in names: NameMap
    ) -> [TraceEvent] {
        let outcome = seen.outcome
        switch step.action {
        case .every(let pattern, let action):
            guard seen.conversions.isEmpty else {
                let took = nanoseconds / UInt64(seen.conversions.count)
                return seen.conversions.map { call($0, took) }
            }
            let took = nanoseconds / max(1, pattern.count ?? 1)
            var events: [TraceEvent] = []
            for (page, outcome) in pattern.outcomes(outcome) {
                guard let action = action.moved(to: page) else { continue }
                let step = Step(step.actor, action, step.expectation)
                events += self.events(step, Observation(outcome), took: took, in: names)
            }
            return events
        case .read, .write, .fill, .check:
            return seen.conversions.map { call($0, nanoseconds) } + accesses(step, outcome, names)
        case .again: return seen.conversions.map { call($0, nanoseconds) }
        case .convert where !seen.conversions.isEmpty:
            return seen.conversions.map { call($0, nanoseconds) }
        case .convert(let conversion):
            guard let target = Attributes.state(conversion.attributes) else { return [] }
            return [call(conversion.extent, target, outcome, nanoseconds)]
        case .hypercall(let extent, let attributes):
            guard let target = Attributes.state(attributes) else { return [] }
            return names.inFile(extent, step.actor).map { call($0, target, outcome, nanoseconds) }
        case .punch(let extent) where outcome == .ok, .advise(let extent, .remove) where outcome == .ok:
            return ranges(names.inFile(extent, step.actor)).map(TraceEvent.punched)
        case .hold(let extent, _, let name) where outcome == .ok:
            return ranges(names.inFile(extent, step.actor)).map { range in
                holds[name] = range
                return .heldByName(name.description, range)
            }
        case .release(let name):
            let range = holds.removeValue(forKey: name)
            return range.map { [.releasedByName(name.description, $0)] } ?? []
        default: return []
        }
    }

    private func call(_ conversion: FileConversion, _ nanoseconds: UInt64) -> TraceEvent {
        let outcome = conversion.failure.map { StepOutcome.errno($0.errno, at: $0.page) } ?? .ok
        return call(conversion.extent, conversion.target, outcome, nanoseconds)
    }

    private func call(
        _ extent: Extent, _ target: PageState, _ outcome: StepOutcome, _ nanoseconds: UInt64
    ) -> TraceEvent {
        var errno: Errno?
        var page: UInt64 = 0
        if case .errno(let number, let offset) = outcome {
            errno = Errno(rawValue: number)
            page = offset ?? 0
        }
        return .attributesCall(
            offset: extent.offset, size: extent.size, target: target, errno, page,
            gpa: place(extent)?.start, nanoseconds: nanoseconds)
    }

    private func accesses(_ step: Step, _ outcome: StepOutcome, _ names: NameMap) -> [TraceEvent] {
        var value = step.action.byteWritten
        let direction = value == nil ? HostAccessError.Direction.read : .write
        if value == nil, case .value(let byte) = outcome { value = byte }
        var errno: Errno?
        switch outcome {
        // An exception in the guest, such as #VC, leaves the access undone, too.
        case .sigbus, .fault, .mmio, .status: errno = .badAddress
        case .errno(let number, _): errno = Errno(rawValue: number)
        case .ok, .value, .differs, .garbage: break
        }
        guard let extent = step.action.extent else { return [] }
        return names.inFile(extent, step.actor).compactMap { part in
            place(part).map { place in
                .access(
                    gpa: place.start, size: place.size, direction, errno, value: errno == nil ? value : nil)
            }
        }
    }

    private func ranges(_ extents: [Extent]) -> [PageRange] {
        extents.compactMap { extent in
            place(extent).flatMap { PageRange.covering(start: $0.start, size: $0.size) }
        }
    }

    /// The event for the step itself.
    static func event(_ step: Step, line: Int, _ seen: Observation) -> TraceEvent {
        .step(
            line: line, step.text, outcome: seen.description, ok: step.accepts(seen),
            expected: step.expectation.text(seen.outcome))
    }
}

extension Pattern {
    /// The pages of the calls that were made, with the outcome of each.
    ///
    /// - Parameter outcome: of the step. The call that failed, if one did, is the one on the page that it names.
    fileprivate func outcomes(_ outcome: StepOutcome) -> [(page: Extent, outcome: StepOutcome)] {
        var calls: [(page: Extent, outcome: StepOutcome)] = []
        for offset in offsets {
            let page = Extent(extent.name, offset: offset, size: pageSize)
            guard let last = outcome.place, offset + pageSize > last else {
                calls.append((page, outcome.place == nil ? outcome : .ok))
                continue
            }
            calls.append((page, outcome))
            break
        }
        return calls
    }
}

extension Expectation {
    /// The expected outcomes beside the one that was seen; nil if the clauses of a parallel block judge it.
    fileprivate func text(_ seen: StepOutcome) -> String? {
        switch self {
        case .unspecified: seen == .ok ? "ok" : "success"
        case .anyOf(let outcomes): outcomes.map(\.description).joined(separator: " or ")
        case .named: nil
        }
    }
}

extension Program.Block {
    /// The event that compares the outcome of the block with its clauses; nil if the block did not complete.
    func event(of ending: Ending, in source: Source) -> TraceEvent? {
        let outcome = results(of: ending)
        guard !results.isEmpty, outcome.count == results.count else { return nil }
        return .step(
            line: source.places[first].line, "parallel block", outcome: text(outcome), ok: allows(outcome),
            expected: expectedText)
    }

    private var expectedText: String {
        func text(_ clauses: [Clause]) -> String { clauses.map(\.conditionText).joined(separator: " or ") }
        if clauses.contains(where: { $0.kind == .allowed }) {
            return text(clauses.filter { $0.kind != .forbidden })
        }
        let forbidden = clauses.filter { $0.kind == .forbidden }
        return forbidden.isEmpty ? "any outcome" : "any outcome except " + text(forbidden)
    }
}

/// The parts of files that names refer to.
struct NameMap {
    let views: [Name: (file: Name, offset: UInt64)]
    /// The memslots of the test's VM.
    let slots: [(gpa: UInt64, extent: Extent)]

    /// The parts of files that a step accesses, through a view or through a vCPU's memslots.
    func inFile(_ extent: Extent, _ actor: Actor) -> [Extent] {
        if case .vcpu = actor {
            guard let pages = PageRange.covering(start: extent.offset, size: extent.size) else { return [] }
            return (FilePart.places(of: pages, slots) ?? []).map { place in
                let start = max(extent.offset, place.gpa)
                let end = min(extent.offset + extent.size, place.gpa + place.bytes.size)
                return Extent(place.file, offset: place.bytes.start + (start - place.gpa), size: end - start)
            }
        }
        if let view = views[extent.name] {
            let (offset, overflow) = view.offset.addingReportingOverflow(extent.offset)
            return overflow ? [] : [Extent(view.file, offset: offset, size: extent.size)]
        }
        return [extent]
    }
}

extension World {
    var isRecording: Bool { state.withLock { $0.recording != nil } }

    /// Records the outcomes of the parallel blocks beside the expected ones.
    func record(_ ending: Ending, of program: Program, in source: Source) {
        let trace = state.withLock { $0.recording?.trace }
        for event in program.blocks.compactMap({ $0.event(of: ending, in: source) }) {
            trace?.record(event, by: .monitor)
        }
    }

    /// Records a step and its effects.
    ///
    /// - Parameters:
    ///   - line: the line of the step in the test's text.
    ///   - began: ``Backend/now()`` before the step.
    func record(_ step: Step, line: Int, _ seen: Observation, began: UInt64) {
        let took = backend.now() &- began
        let (trace, events) = state.withLock { state in
            let names = state.names(of: main)
            return (
                state.recording?.trace,
                state.recording?.events(step, seen, took: took, in: names) ?? []
            )
        }
        for event in events { trace?.record(event, by: step.actor) }
        trace?.record(Recording.event(step, line: line, seen), by: step.actor)
    }
}
