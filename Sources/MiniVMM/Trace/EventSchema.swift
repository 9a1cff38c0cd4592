// SPDX-License-Identifier: MIT
/// What a trace says of one kind of event: the schema `minivmm.trace/1`, row by row in ``all``.
///
/// Whatever writes, reads or explains events takes names, types and words from here. `docs/trace.md` has the same rows,
/// and a test compares them.
public struct EventSchema: Sendable {
    /// A key of the event.
    public struct Field: Sendable {
        /// Its type and unit are the same in every event.
        public let key: EventKey
        /// Whether an event may lack it. What it means then is part of ``means``.
        public let isOptional: Bool
        /// In Markdown.
        public let means: String

        init(_ key: EventKey, _ means: String, optional: Bool = false) {
            self.key = key
            self.means = means
            isOptional = optional
        }
    }

    /// The chapters of the document.
    public enum Section: String, CaseIterable, Sendable {
        /// The beginning and the end of a run.
        case machine = "The machine"
        /// What a vCPU left the guest for.
        case exits = "Exits"
        /// Requests, calls to the kernel, and retries.
        case conversions = "Conversions"
        /// References and accesses of the host.
        case host = "The host's side"
        /// Files, steps and accesses of a test.
        case litmus = "From litmus tests"
        /// No line of a trace has these: text and pictures put them in.
        case readers = "Made by readers"
    }

    /// There is one row for each name.
    public let name: EventName
    /// The chapter of `docs/trace.md` that has the row.
    public let section: Section
    /// What the event stands for.
    public let means: String
    /// What a picture says of the event, after the name of its actor. Braces hold what depends on the event:
    ///
    /// * `{key}`: the value, as its type and unit are shown to people. `{pages}`: the pages that the event is about.
    ///   `{page}`: the page of `gpa`.
    /// * `{key?text}` and `{key!text}`: the text if the value is there and neither 0, false nor empty, and if it is not.
    ///   `{pages?text}` likewise. `{key+text}`: the text if the key is there.
    /// * `{key=value?text}`, `{key&mask?text}` and the same with `!`: the text if the value is, or has a bit of, the one
    ///   given.
    public let sentence: String
    /// In the order in which ``TraceEvent/describe(to:)`` writes them.
    public let fields: [Field]

    init(_ name: EventName, _ section: Section, _ means: String, _ sentence: String, _ fields: [Field] = []) {
        self.name = name
        self.section = section
        self.means = means
        self.sentence = sentence
        self.fields = fields
    }

    /// One for each name, in the order of ``EventName``.
    public static let all = machine + exits + conversions + host + litmus + readers

    /// The row of an event.
    public static func of(_ name: EventName) -> EventSchema { all[Int(name.rawValue)] }
}
