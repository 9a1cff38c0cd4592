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
    /// The guest whose text can be looked at.
    var guest: String?
}
