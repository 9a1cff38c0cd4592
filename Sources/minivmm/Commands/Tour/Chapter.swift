// SPDX-License-Identifier: MIT
import MiniVMM

/// One idea of the tour: what is said, what runs, a question, and something to try.
struct Chapter: Sendable {
    let title: String
    /// Paragraphs before anything runs.
    let idea: [String]
    /// What runs. It says on its own what this kernel cannot show.
    let play: @Sendable (TourStage) throws -> Void
    /// Said when it has run.
    let afterwards: [String]
    let question: String
    let answer: String
    /// Commands, each with what it is for.
    let toTry: [(command: String, why: String)]
    /// What can be looked at.
    var source = Source.none

    enum Source: Sendable {
        /// A guest of the catalogue.
        case guest(String)
        /// A litmus test that the chapter brings.
        case test(String)
        case none
    }
}
