// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage

// Recording one of the explored interleavings.
extension Interleavings {
    /// Repeats one interleaving and records it: one that fails or has an outcome that the test does not allow, if there is
    /// any.
    ///
    /// - Parameters:
    ///   - backend: its clock advances by a microsecond with each piece, and the trace names it.
    ///   - outcome: if not nil, only an interleaving with this outcome is recorded; nothing if there is none.
    mutating func recordOne(
        _ recorder: any RunRecorder, on backend: any Backend, with outcome: OutcomePattern?
    ) throws(Stop) {
        let all = sorted(endings(from: try start()))
        let chosen =
            if let outcome {
                program.ending(with: outcome, in: all)
            } else {
                all.first(where: program.fails) ?? all.first
            }
        guard let ending = chosen else { return }
        let path = try path(to: ending)
        defer { recorder.end(isNotable: outcome != nil || program.fails(ending)) }
        let events = EventRecorder(recorder.begin(backend: backend, vm: source.test.vm), backend)
        observer = events.observer
        defer { observer = nil }
        var cursor = try start()
        for actor in path { try advance(actor, &cursor) }
        events.note(outcomes: program.blocks.compactMap { $0.event(of: ending, in: source) })
    }

    /// Records one interleaving. It belongs to the thread that explores.
    final class EventRecorder {
        private let trace: Trace
        private let backend: any Backend
        private var recording: Recording
        /// The times at which the current steps began, by actor.
        private var began: [Actor: UInt64] = [:]
        private var files: Set<Name> = []
        /// SNP and TDX: how far the guest had taken the private pages of each file, in the recording's address space.
        private var guestPages: [Name: [GuestPages]] = [:]

        private struct GuestPages: Hashable {
            let range: PageRange
            let state: GuestPageState
        }

        init(_ trace: Trace, _ backend: any Backend) {
            self.trace = trace
            self.backend = backend
            recording = Recording(trace)
        }

        var observer: StepObserver {
            StepObserver(
                made: { self.note($0) }, began: { self.begin($0) },
                ended: { self.end($0, line: $1, $2, $3) })
        }

        /// Called before each piece of a step.
        func begin(_ step: Step) {
            if began[step.actor] == nil { began[step.actor] = backend.now() }
            backend.sleep(for: .microseconds(1))
        }

        /// Called when a step has ended.
        func end(_ step: Step, line: Int, _ seen: Observation, _ machine: ModelMachine) {
            noteFiles(machine)
            let took = backend.now() &- (began.removeValue(forKey: step.actor) ?? backend.now())
            for event in recording.events(step, seen, took: took, in: machine.nameMap) {
                trace.record(event, by: step.actor)
            }
            noteGuestPages(step.actor, machine)
            trace.record(Recording.event(step, line: line, seen), by: step.actor)
        }

        /// Records which private pages the guest has taken or lost.
        private func noteGuestPages(_ actor: Actor, _ machine: ModelMachine) {
            guard let vm = machine.vms[machine.setup.main] else { return }
            for (name, base) in recording.bases.sorted(by: { $0.value.start < $1.value.start }) {
                guard let descriptor = machine.files[name] else { continue }
                let pages = machine.kernel.guestPages(vm, of: machine.kernel.file(of: descriptor)).compactMap
                {
                    pages in
                    pages.range.advanced(by: base.start).map { GuestPages(range: $0, state: pages.state) }
                }
                let old = Set(guestPages[name] ?? [])
                for new in pages where !old.contains(new) {
                    trace.record(.guestPages(new.range, new.state), by: actor)
                }
                guestPages[name] = pages
            }
        }

        /// Records the outcomes of the parallel blocks beside the expected ones.
        func note(outcomes: [TraceEvent]) { for event in outcomes { trace.record(event, by: .monitor) } }

        /// Records the machine before the first step.
        func note(_ machine: ModelMachine) {
            noteFiles(machine)
            noteGuestPages(.monitor, machine)
        }

        /// Records files that were not there before.
        private func noteFiles(_ machine: ModelMachine) {
            for (name, descriptor) in machine.files.sorted(by: { $0.value.rawValue < $1.value.rawValue })
            where files.insert(name).inserted {
                let file = machine.kernel.file(of: descriptor)
                let size = machine.kernel.size(of: file)
                let initial = machine.kernel.flags(of: file).initialState
                if let event = recording.add(name, size: size, initial) { trace.record(event, by: .monitor) }
            }
        }
    }
}

extension ModelMachine {
    var nameMap: NameMap {
        NameMap(
            views: views.mapValues { (file: $0.file, offset: $0.offset) },
            slots: slots.filter { $0.key.vm == setup.main }.map { ($0.value.gpa, $0.value.extent) })
    }
}

extension Program {
    /// Whether a step failed, or a block has an outcome that its clauses do not allow.
    func fails(_ ending: Ending) -> Bool {
        ending.failure != nil
            || blocks.contains { block in
                let results = block.results(of: ending)
                return results.count == block.results.count && !block.allows(results)
            }
    }

    /// The first ending with the first of all matching outcomes, in the order of the report.
    fileprivate func ending(with pattern: OutcomePattern, in endings: [Ending]) -> Ending? {
        for block in blocks {
            let found = endings.filter { block.matches(pattern, $0) }
            let text = found.map { block.text(block.results(of: $0)) }.min()
            if let text { return found.first { block.text(block.results(of: $0)) == text } }
        }
        return nil
    }

    /// Whether a block has a matching outcome.
    func matches(_ pattern: OutcomePattern, _ ending: Ending) -> Bool {
        blocks.contains { $0.matches(pattern, ending) }
    }
}

extension Program.Block {
    fileprivate func matches(_ pattern: OutcomePattern, _ ending: Ending) -> Bool {
        let results = results(of: ending)
        return results.count == self.results.count && pattern.matches(list(results))
    }
}
