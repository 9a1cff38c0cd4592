import MiniVMM

// One interleaving of all that were gone through, to be shown.
extension Interleavings {
    /// Runs one once more with its events recorded: one that fails or comes to what the test does not allow, if there is any.
    mutating func replayTelling(_ recorder: any RunRecorder) throws(Stop) {
        let all = try endings()
        let program = program
        func isTelling(_ ending: Ending) -> Bool { ending.failure != nil || program.disallows(ending) }
        guard let ending = all.first(where: isTelling) ?? all.first else { return }
        let path = try path(to: ending)
        defer { recorder.end(isTelling: isTelling(ending)) }
        let world = try World(facts, source.test, patience, trace: recorder.begin(kernel: facts.kernel))
        defer { world.close() }
        var cursor = Cursor(world: world)
        try advanceToBlock(&cursor)
        for actor in path { try advance(actor, &cursor) }
    }

    /// In an order that is always the same; what refuses comes first, since it says more.
    private mutating func endings() throws(Stop) -> [Ending] {
        let start = try replay([])
        guard start.failure == nil, let known = known[key(of: start)] else { return [] }
        func text(_ ending: Ending) -> String {
            program.blocks.map { $0.text($0.results(of: ending)) }.joined(separator: "; ")
                + (ending.failure?.description ?? "")
        }
        return known.map { (text($0), $0) }.sorted { $0.0 < $1.0 }.map(\.1)
    }

    /// The actors in the order of their pieces, of an interleaving that ends so.
    private mutating func path(to ending: Ending) throws(Stop) -> [Int] {
        var path: [Int] = []
        var wanted = ending
        while true {
            let here = try replay(path)
            guard here.failure == nil, here.part < program.parts.count,
                case .block(let block) = program.parts[here.part]
            else { return path }
            var next: (actor: Int, wanted: Ending)?
            for actor in here.actors(of: block) where next == nil {
                var there = try replay(path)
                let result = try advance(actor, &there)
                var rest = wanted
                if let result {
                    let key = ResultKey(block: block.number, name: result.name)
                    guard rest.results.removeValue(forKey: key) == result.outcome else { continue }
                }
                if self.endings(from: there).contains(rest) { next = (actor, rest) }
            }
            guard let next else { return path }
            path.append(next.actor)
            wanted = next.wanted
        }
    }

    private func endings(from cursor: Cursor) -> Set<Ending> {
        if let failure = cursor.failure { return [Ending(failure: failure)] }
        guard cursor.part < program.parts.count else { return [Ending()] }
        return known[key(of: cursor)] ?? []
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
