// SPDX-License-Identifier: MIT
import ConversionModel

/// Sees the steps of one interleaving while the model performs them.
package struct StepObserver {
    /// The machine was made; called before the first step.
    package var made: (ModelMachine) -> Void
    /// Called before each piece of a step.
    package var began: (Step) -> Void
    /// A step has ended: its line in the text, its answer, and the machine after it.
    package var ended: (Step, Int, Observation, ModelMachine) -> Void

    package init(
        made: @escaping (ModelMachine) -> Void, began: @escaping (Step) -> Void = { _ in },
        ended: @escaping (Step, Int, Observation, ModelMachine) -> Void
    ) {
        (self.made, self.began, self.ended) = (made, began, ended)
    }
}

/// What ends an exploration early. By default nothing does.
package struct ExplorationLimit {
    /// Why no further piece is performed; nil to continue.
    package var reason: () -> Cut.Reason?
    /// Whether the time of the test is over.
    package var isOver: () -> Bool

    package init(reason: @escaping () -> Cut.Reason? = { nil }, isOver: @escaping () -> Bool = { false }) {
        (self.reason, self.isOver) = (reason, isOver)
    }
}
