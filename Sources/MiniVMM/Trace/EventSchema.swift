// SPDX-License-Identifier: MIT
/// The description of one kind of event: the schema `minivmm.trace/1`, row by row in ``all``.
///
/// Everything that writes, reads or explains events uses these names, types and texts. `docs/trace.md` has the same
/// rows, and a test compares them.
public struct EventSchema: Sendable {
    /// A key of the event.
    public struct Field: Sendable {
        /// Its type and unit are the same in every event.
        public let key: EventKey
        /// Whether an event may lack it. ``means`` then says what that means.
        public let isOptional: Bool
        /// The meaning, in Markdown.
        public let means: String

        init(_ key: EventKey, _ means: String, optional: Bool = false) {
            self.key = key
            self.means = means
            isOptional = optional
        }
    }

    /// The sections of the document.
    public enum Section: String, CaseIterable, Sendable {
        /// The beginning and the end of a run.
        case machine = "The machine"
        /// Why a vCPU exited.
        case exits = "Exits"
        /// Requests, system calls, and retries.
        case conversions = "Conversions"
        /// References and accesses of the host.
        case host = "The host's side"
        /// Files, steps and accesses of a test.
        case litmus = "From litmus tests"
        /// Never in a trace file: added by text and pictures.
        case readers = "Made by readers"
    }

    /// Each name has exactly one row.
    public let name: EventName
    /// The section of `docs/trace.md` that has the row.
    public let section: Section
    /// The meaning of the event.
    public let means: String
    /// The sentence that a picture shows for the event, after the name of its actor. Braces enclose placeholders:
    ///
    /// * `{key}`: the value, formatted for people according to its type and unit. `{pages}`: the pages of the event.
    ///   `{page}`: the page of `gpa`.
    /// * `{key?text}`: the text if the value is present and neither 0, false nor empty. `{key!text}`: the text
    ///   otherwise. `{pages?text}` likewise. `{key+text}`: the text if the key is present.
    /// * `{key=value?text}` and `{key&mask?text}`, and the same with `!`: the text if the value equals the given one,
    ///   or has its bit set.
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

    /// One row for each name, in the order of ``EventName``.
    public static let all = machine + exits + conversions + host + litmus + readers

    /// The row of an event.
    public static func of(_ name: EventName) -> EventSchema { all[Int(name.rawValue)] }
}
