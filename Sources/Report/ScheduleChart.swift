// SPDX-License-Identifier: MIT

/// The outcomes of the schedules of a race, for ``ScheduleDrawing``: a strip for each pair of actors, with a band for each interval of
/// delays.
public struct ScheduleChart: Sendable {
    /// An outcome with its share of an interval.
    public struct Outcome: Sendable, Hashable {
        /// `c = ok, r = 0x41`.
        public let text: String
        /// Whether neither the test nor the model forbids it.
        public let isAllowed: Bool
        /// The number of schedules with it.
        public let count: Int

        /// An outcome of `count` schedules.
        public init(_ text: String, isAllowed: Bool, count: Int) {
            self.text = text
            self.isAllowed = isAllowed
            self.count = count
        }
    }

    /// Consecutive delays with the same outcomes.
    public struct Band: Sendable {
        /// The first and the last delay, in nanoseconds, as numbers and as a text.
        public let delays: ClosedRange<UInt64>
        /// `1,594 to 2,152`.
        public let label: String
        /// The outcomes, the most frequent first; not empty.
        public let outcomes: [Outcome]
        /// Where the preempted actor was, such as the names of kernel functions.
        public let place: String
        /// Whether the actor that preempts had to wait for the preempted one.
        public let waits: Bool

        /// A band of a strip.
        public init(
            _ delays: ClosedRange<UInt64>, label: String, outcomes: [Outcome], place: String, waits: Bool
        ) {
            self.delays = delays
            self.label = label
            self.outcomes = outcomes
            self.place = place
            self.waits = waits
        }
    }

    /// The schedules of one pair of actors.
    public struct Strip: Sendable {
        /// Which actor preempts which.
        public let title: String
        /// A remark below the title; empty for none.
        public let note: String
        /// In ascending order of their delays.
        public let bands: [Band]

        /// A strip.
        public init(_ title: String, note: String, bands: [Band]) {
            self.title = title
            self.note = note
            self.bands = bands
        }
    }

    /// The title of the drawing.
    public let title: String
    /// The backend that answered.
    public let backend: String
    /// The unit of delays, as a sentence.
    public let unit: String
    /// The strips from top to bottom.
    public let strips: [Strip]

    /// A chart.
    public init(title: String, backend: String, unit: String, strips: [Strip]) {
        self.title = title
        self.backend = backend
        self.unit = unit
        self.strips = strips
    }

    /// All outcomes in the order in which they are first seen. Their number chooses letter and colour.
    var outcomes: [String] {
        strips.flatMap(\.bands).flatMap(\.outcomes).map(\.text).reduce(into: []) {
            if !$0.contains($1) { $0.append($1) }
        }
    }
}
