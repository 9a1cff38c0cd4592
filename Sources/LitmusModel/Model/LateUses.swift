// SPDX-License-Identifier: MIT
import ConversionModel

/// The files and views of a test that a step uses after they are closed or unmapped, or may use then because another
/// actor of the block closes or unmaps them.
package struct LateUses {
    package private(set) var files: Set<Name> = []
    package private(set) var views: Set<Name> = []

    package init(_ test: LitmusTest) {
        guard test.steps.contains(where: { $0.action.endedFile != nil || $0.action.endedView != nil }) else {
            return
        }
        let guest = test.memory.regions.map { $0.name }
        files = Self.find(
            in: test, begins: { $0.begunFile },
            uses: { $0.action.usedFile.map { $0 == .guest ? guest : [$0] } ?? [] },
            ends: { $0.endedFile })
        // A child keeps the views that existed when it was forked.
        views = Self.find(
            in: test, begins: { $0.begunView },
            uses: { step in
                if case .child = step.actor { [] } else { step.action.usedView.map { [$0] } ?? [] }
            },
            ends: { $0.endedView })
    }

    private static func find(
        in test: LitmusTest, begins: (Action) -> Name?, uses: (Step) -> [Name], ends: (Action) -> Name?
    ) -> Set<Name> {
        var ended: Set<Name> = []
        var late: Set<Name> = []
        for entry in test.body {
            switch entry {
            case .step(let step):
                if !ended.isEmpty { for name in uses(step) where ended.contains(name) { late.insert(name) } }
                if let name = ends(step.action) { ended.insert(name) }
                if let name = begins(step.action) { ended.remove(name) }
            case .parallel(let block):
                let endings = block.steps.enumerated().filter { ends($0.element.action) != nil }
                for (place, step) in block.steps.enumerated() where !endings.isEmpty || !ended.isEmpty {
                    for name in uses(step) {
                        let isOver = endings.contains { other, end in
                            ends(end.action) == name && (end.actor == step.actor ? other < place : true)
                        }
                        if isOver || ended.contains(name) { late.insert(name) }
                    }
                }
                ended.formUnion(block.steps.compactMap { ends($0.action) })
                ended.subtract(block.steps.compactMap { begins($0.action) })
            }
        }
        return late
    }
}

extension Action {
    fileprivate var begunFile: Name? {
        switch self {
        case .create(let new): new.name
        case .dup(_, let copy): copy
        default: nil
        }
    }

    package var endedFile: Name? { if case .close(let name) = self { name } else { nil } }

    fileprivate var usedFile: Name? {
        switch single {
        case .convert(let conversion): conversion.extent.name
        case .map(let extent, _), .allocate(let extent), .punch(let extent): extent.name
        case .close(let name), .dup(let name, _), .syscall(let name, _): name
        case .bind(let binding): binding.extent.name
        default: nil
        }
    }

    fileprivate var begunView: Name? {
        switch self {
        case .map(_, let view), .remap(_, _, let view): view
        default: nil
        }
    }

    /// The view that this action removes.
    package var endedView: Name? {
        switch self {
        case .unmap(let view), .remap(let view, _, _): view
        default: nil
        }
    }

    fileprivate var usedView: Name? {
        switch single {
        case .read(let place), .write(let place, _), .peek(let place), .node(let place),
            .migrate(let place, _):
            place.name
        case .fill(let extent, _), .check(let extent, _), .advise(let extent, _), .hold(let extent, _, _),
            .present(let extent), .protect(let extent, _), .mbind(let extent, _, _):
            extent.name
        case .unmap(let view), .remap(let view, _, _): view
        case .bind(let binding): binding.address?.name
        default: nil
        }
    }
}
