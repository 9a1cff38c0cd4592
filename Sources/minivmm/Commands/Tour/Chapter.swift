// SPDX-License-Identifier: MIT
import MiniVMM

/// A chapter of the tour: an idea, a guest or test that runs, a question, and commands to try.
struct Chapter: Sendable {
    let title: String
    /// Paragraphs before anything runs.
    let idea: [String]
    /// Runs the guest or test, and prints what this backend cannot show.
    let play: @Sendable (TourStage) throws -> Void
    /// Paragraphs after it has run.
    let afterwards: [String]
    let question: String
    let answer: String
    /// Commands, each with its purpose.
    let toTry: [(command: String, why: String)]
    /// The source that can be shown.
    let source: Source

    enum Source: Sendable {
        /// A built-in guest.
        case guest(String)
        /// A litmus test.
        case test(String)
    }
}
