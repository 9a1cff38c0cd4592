// SPDX-License-Identifier: MIT
import ConversionModel
public import SoftKVM

// The model with the rules of a SoftKVM.

extension Oracle {
    /// The machine of a test before its first step, with the rules of a configuration.
    ///
    /// - Throws: ``Problem`` if a VM, file, view or memslot of the header cannot be created in this configuration.
    public init(_ test: LitmusTest, _ configuration: SoftKVM.Configuration) throws(Problem) {
        try self.init(test, rules: configuration.rules)
    }
}

extension Interleavings {
    /// - Parameter configuration: with the settings of the test's header.
    init(
        _ source: Source, on configuration: SoftKVM.Configuration, _ deadline: TestDeadline,
        merges: Bool = true, mostPieces: Int = Interleavings.mostPieces, keepsPart: Bool = false,
        watcher: (@Sendable (RunEvent) -> Void)? = nil
    ) {
        self.init(
            source, on: configuration.rules,
            ExplorationLimit(reason: { deadline.stop }, isOver: { deadline.isOver }), merges: merges,
            mostPieces: mostPieces, keepsPart: keepsPart, watcher: watcher)
    }
}
