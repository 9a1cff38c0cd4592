// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM

// One of the interleavings that were explored, with its events recorded.
extension Interleavings {
    /// Goes through one interleaving once more and records it: one that fails or ends in what the test does not allow, if there
    /// is any.
    ///
    /// - Parameter backend: its clock goes on by a microsecond with each piece, and the trace names it.
    mutating func recordTelling(_ recorder: any RunRecorder, on backend: any Backend) throws(Stop) {
        let program = program
        func isTelling(_ ending: Ending) -> Bool { ending.failure != nil || program.disallows(ending) }
        let all = endings(from: try start()).map { ($0, text($0)) }.sorted { $0.1 < $1.1 }.map(\.0)
        guard let ending = all.first(where: isTelling) ?? all.first else { return }
        let path = try path(to: ending)
        defer { recorder.end(isTelling: isTelling(ending)) }
        tape = Tape(recorder.begin(backend: backend), backend)
        defer { tape = nil }
        var cursor = try start()
        for actor in path { try advance(actor, &cursor) }
        tape?.note(outcomes: program.blocks.compactMap { $0.event(of: ending, in: source) })
    }

    /// In an order that is always the same; what refuses comes first, since it says more.
    private func text(_ ending: Ending) -> String {
        program.blocks.map { $0.text($0.results(of: ending)) }.joined(separator: "; ")
            + (ending.failure?.description ?? "")
    }

    /// The actors in the order of their pieces, of an interleaving that ends so. No state comes twice.
    private mutating func path(to ending: Ending) throws(Stop) -> [Int] {
        struct Node {
            let cursor: Cursor
            /// What is still to come of the ending.
            let wanted: Ending
            /// The actors that have not been tried here, the next one last.
            var actors: [Int]
            /// The actor that went on from here.
            var actor: Int?
        }
        func place(_ cursor: Cursor, _ wanted: Ending) -> Node {
            let actors = block(at: cursor).map { cursor.actors(of: $0) } ?? []
            return Node(cursor: cursor, wanted: wanted, actors: actors.reversed())
        }
        var path = [place(try start(), ending)]
        var seen: Set<Key> = [key(of: path[0].cursor)]
        while let here = path.last, block(at: here.cursor) != nil {
            // Every way from here leads to a state that was tried.
            guard let actor = path[path.count - 1].actors.popLast() else {
                path.removeLast()
                continue
            }
            var there = here.cursor
            let result = try advance(actor, &there)
            var rest = here.wanted
            if let result {
                guard rest[result.place] == result.outcome else { continue }
                rest[result.place] = nil
            }
            guard endings(from: there).contains(rest), seen.insert(key(of: there)).inserted else { continue }
            path[path.count - 1].actor = actor
            path.append(place(there, rest))
        }
        return path.compactMap(\.actor)
    }

    /// Where one interleaving is recorded.
    struct Tape {
        private let trace: Trace
        private let backend: any Backend
        private var recording: Recording
        /// When the steps under way began, by actor.
        private var began: [Actor: UInt64] = [:]
        private var files: Set<Name> = []

        init(_ trace: Trace, _ backend: any Backend) {
            self.trace = trace
            self.backend = backend
            recording = Recording(trace)
        }

        /// A piece of a step is done next.
        mutating func begin(_ step: Step) {
            if began[step.actor] == nil { began[step.actor] = backend.now() }
            backend.sleep(for: .microseconds(1))
        }

        /// The step is done.
        mutating func end(_ step: Step, line: Int, _ seen: Observation, _ machine: ModelMachine) {
            note(machine)
            let took = backend.now() &- (began.removeValue(forKey: step.actor) ?? backend.now())
            for event in recording.events(step, seen, took: took, in: machine.nameMap) {
                trace.record(event, by: step.actor)
            }
            trace.record(Recording.event(step, line: line, seen), by: step.actor)
        }

        /// Records the outcomes of the parallel blocks beside the expected ones.
        func note(outcomes: [TraceEvent]) { for event in outcomes { trace.record(event, by: .monitor) } }

        /// Files that were not there before.
        mutating func note(_ machine: ModelMachine) {
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
    /// A block of it has an outcome that its clauses do not allow.
    func disallows(_ ending: Ending) -> Bool {
        blocks.contains { block in
            let results = block.results(of: ending)
            return results.count == block.results.count && !block.allows(results)
        }
    }
}
