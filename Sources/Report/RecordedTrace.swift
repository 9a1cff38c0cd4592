// SPDX-License-Identifier: MIT
public import MiniVMM

/// A recorded trace, stored in columns.
///
/// Events with the same name, keys and types share a ``Shape``. Events are numbered from 0 to ``count`` - 1;
/// another index traps.
public struct RecordedTrace: Sendable {
    /// The type of a key's values.
    public enum ValueType: UInt8, Sendable {
        /// A whole number from -2⁵³ to 2⁵³, which a double holds exactly.
        case number
        /// An unsigned number above 2⁵³, stored as its 64 bits.
        case wide
        /// An index into ``RecordedTrace/strings``.
        case text
        /// True or false, stored as 1 or 0.
        case flag

        init(_ magnitude: UInt64) { self = magnitude <= 1 << 53 ? .number : .wide }
    }

    /// The name, the keys and the types that events have in common.
    public struct Shape: Sendable {
        /// The event's name as the trace spells it, such as `memory-fault`.
        public let name: String
        /// The event's name as a value; nil for an event that this version does not support.
        public let event: EventName?
        /// The keys of the event in the order of its values, without time, actor and event name.
        public let keys: [String]
        /// One type for each of ``keys``.
        public let types: [ValueType]
        /// One element for each of ``keys``; nil for a key that this version does not support.
        public let known: [EventKey?]
        /// For each ``EventKey`` its index in ``keys``, or -1 if the event does not have it.
        private let places: [Int8]

        init(name: String, keys: [String], types: [ValueType]) {
            self.name = name
            self.keys = keys
            self.types = types
            event = EventName(name)
            let known = keys.map { EventKey($0) }
            self.known = known
            places = EventKey.allCases.map { key in
                Int8(truncatingIfNeeded: known.prefix(100).firstIndex(of: key) ?? -1)
            }
        }

        /// Whether the value is shown in hex.
        func isAddress(_ place: Int) -> Bool { known[place]?.type == .address }

        func place(of key: EventKey) -> Int? {
            let place = Int(places[Int(key.rawValue)])
            return place < 0 ? nil : place
        }
    }

    /// The number of conversions that guests requested, by memory faults or hypercalls. It equals the number that
    /// `minivmm run` prints.
    ///
    /// The monitor's conversion at boot is drawn but not counted.
    public struct ConversionCount: Sendable, Equatable, CustomStringConvertible {
        /// Number of `converted` events of vCPUs.
        public internal(set) var succeeded = 0
        /// Number of `not-converted` events of vCPUs: requests that were refused, failed or given up.
        public internal(set) var failed = 0

        /// For people: `3 conversions, 1 refused or failed`.
        public var description: String {
            "\(succeeded) conversion\(succeeded == 1 ? "" : "s")"
                + (failed > 0 ? ", \(failed) refused or failed" : "")
        }

        mutating func add(_ event: EventName?, byVCPU: Bool) {
            guard byVCPU else { return }
            if event == .converted { succeeded += 1 }
            if event == .notConverted { failed += 1 }
        }
    }

    /// `backend` of the header, such as `LinuxKVM`.
    public internal(set) var backend = ""
    /// `host` of the header: the kernel or engine below the backend, such as `Linux 6.18.44`. Empty if the
    /// header has none.
    public internal(set) var host = ""
    /// `simulated` of the header: no real kernel was involved, and times are of a simulated clock. Every picture
    /// states this.
    public internal(set) var isSimulated = false
    /// The time when the trace began, in nanoseconds of the clock of ``times``.
    public internal(set) var start: UInt64 = 0
    /// Sentences for people about defects of the file and events that were left out.
    public internal(set) var notes: [String] = []
    /// The conversions of the whole trace, including events that were left out.
    public internal(set) var conversions = ConversionCount()

    /// The names of the actors in the order of their first events. All actors after the first 200 share the name
    /// `others`.
    public internal(set) var actors: [String] = []
    /// The shapes in the order of their first events. All events with shapes after the first 2000 share the shape
    /// `other`.
    public internal(set) var shapes: [Shape] = []
    var columns = EventColumns()

    /// The texts of all events. Texts of fewer than 64 bytes are stored once.
    public var strings: [String] { columns.strings }
    /// The time of each event, in nanoseconds of the host's monotonic clock, or of SoftKVM's simulated clock.
    /// Neighbouring events of different actors may be out of order.
    public var times: [UInt64] { columns.times }
    /// For each event the index of its actor in ``actors``.
    public var actorOf: [UInt8] { columns.actorOf }
    /// For each event the index of its shape in ``shapes``.
    public var shapeOf: [UInt16] { columns.shapeOf }
    /// The number of events, without events that were left out.
    public var count: Int { columns.count }

    /// The backend and its host for people, such as `MemslotTrapKVM (Linux 6.18.44)`.
    public var identity: String { host.isEmpty ? backend : "\(backend) (\(host))" }

    /// The name of an event as the trace spells it.
    public func name(_ event: Int) -> String { shape(event).name }
    /// The name of an event's actor, such as `vcpu0`.
    public func actor(_ event: Int) -> String { actors[Int(columns.actorOf[event])] }
    /// The name, keys and types of an event.
    public func shape(_ event: Int) -> Shape { shapes[Int(columns.shapeOf[event])] }

    static func isVCPU(_ actor: String) -> Bool { actor.hasPrefix("vcpu") }

    /// Whether the actor of an event is a vCPU.
    func isVCPU(_ event: Int) -> Bool { Self.isVCPU(actor(event)) }

    func number(_ event: Int, _ key: EventKey) -> UInt64? { columns.number(event, key, shape(event)) }

    func signed(_ event: Int, _ key: EventKey) -> Int64? {
        number(event, key).map { Int64(bitPattern: $0) }
    }

    func text(_ event: Int, _ key: EventKey) -> String? { columns.text(event, key, shape(event)) }

    /// The stored value at a place of the event's shape.
    func value(_ event: Int, _ place: Int) -> Int64 { columns.value(event, place) }
}
