// SPDX-License-Identifier: MIT
public import MiniVMM

/// A trace as it was recorded, in columns.
///
/// Events with the same name, keys and types share a ``Shape``.
public struct RecordedTrace: Sendable {
    /// What the values of a key are.
    public enum ValueType: UInt8, Sendable {
        /// A number between -2⁵³ and 2⁵³.
        case number
        /// An unsigned number above that.
        case wide
        /// An index into ``RecordedTrace/strings``.
        case text
        case flag

        init(_ magnitude: UInt64) { self = magnitude <= 1 << 53 ? .number : .wide }
    }

    /// The name, the keys and the types of an event.
    public struct Shape: Sendable {
        public let name: String
        /// Nil for an event that this version does not know.
        public let event: EventName?
        public let keys: [String]
        public let types: [ValueType]
        /// What this version knows of each key.
        public let known: [EventKey?]
        /// Where a known key is among the values, by its number; -1 where it is not.
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

        /// Whether people see the value in hex.
        func isAddress(_ place: Int) -> Bool { known[place]?.type == .address }

        func place(of key: EventKey) -> Int? {
            let place = Int(places[Int(key.rawValue)])
            return place < 0 ? nil : place
        }
    }

    /// Conversions that a guest asked for, by a memory fault or a call, and what came of them: `converted` and
    /// `not-converted` of vCPUs. It is what `run` counts, too; the monitor's own conversion of all RAM at boot is drawn
    /// and not counted.
    public struct ConversionCount: Sendable, Equatable, CustomStringConvertible {
        public internal(set) var succeeded = 0
        public internal(set) var failed = 0

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

    /// Who answered: `kernel` and `host` of the first line.
    public internal(set) var kernel = ""
    public internal(set) var host = ""
    /// Nanoseconds of the kernel's monotonic clock when the trace began.
    public internal(set) var start: UInt64 = 0
    /// What was wrong with the file, and what is not shown.
    public internal(set) var notes: [String] = []
    /// Of the whole trace, with the events that are left out.
    public internal(set) var conversions = ConversionCount()

    public internal(set) var actors: [String] = []
    public internal(set) var shapes: [Shape] = []
    var columns = EventColumns()

    public var strings: [String] { columns.strings }
    public var times: [UInt64] { columns.times }
    public var actorOf: [UInt8] { columns.actorOf }
    public var shapeOf: [UInt16] { columns.shapeOf }
    public var count: Int { columns.count }

    /// The kernel as text has it.
    public var identity: String { host.isEmpty ? kernel : "\(kernel) (\(host))" }

    /// Whether no kernel stood below it: everything on a picture of it is simulated.
    public var isSimulated: Bool { kernel.hasPrefix("SoftKVM") }

    public func name(_ event: Int) -> String { shape(event).name }
    public func actor(_ event: Int) -> String { actors[Int(columns.actorOf[event])] }
    public func shape(_ event: Int) -> Shape { shapes[Int(columns.shapeOf[event])] }

    static func isVCPU(_ actor: String) -> Bool { actor.hasPrefix("vcpu") }

    func number(_ event: Int, _ key: EventKey) -> UInt64? { columns.number(event, key, shape(event)) }

    func signed(_ event: Int, _ key: EventKey) -> Int64? {
        number(event, key).map { Int64(bitPattern: $0) }
    }

    func text(_ event: Int, _ key: EventKey) -> String? { columns.text(event, key, shape(event)) }

    /// The value at a place of the event's shape, as stored.
    func value(_ event: Int, _ place: Int) -> Int64 { columns.value(event, place) }
}
