/// A trace as it was recorded, in columns: an event takes a few dozen bytes, whatever its keys are.
///
/// Events with the same name, keys and types share a ``Shape``; their values lie in one array. Text is kept once.
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
    }

    /// The name, the keys and the types of an event.
    public struct Shape: Sendable {
        public let name: String
        public let keys: [String]
        public let types: [ValueType]
        /// Where a key that pictures look at is among the values, by ``EventKey``; -1 where it is not.
        let places: [Int8]
        /// Whether text shows a key's value in hex.
        let isAddress: [Bool]
        private static let addresses: Set<String> = [
            "gpa", "size", "offset", "error_offset", "image", "entry", "end", "port", "value", "flags",
            "number", "a0",
            "a1", "a2", "rip",
        ]

        init(name: String, keys: [String], types: [ValueType]) {
            self.name = name
            self.keys = keys
            self.types = types
            isAddress = keys.map(Self.addresses.contains)
            places = EventKey.allCases.map { key in
                Int8(truncatingIfNeeded: keys.prefix(100).firstIndex(of: key.rawValue) ?? -1)
            }
        }
    }

    /// Who answered: `kernel` and `host` of the first line.
    public var kernel = ""
    public var host = ""
    /// Nanoseconds of the kernel's monotonic clock when the trace began.
    public var start: UInt64 = 0
    /// What was wrong with the file, and could be lived with.
    public var notes: [String] = []

    public internal(set) var actors: [String] = []
    public internal(set) var shapes: [Shape] = []
    public internal(set) var strings: [String] = []

    // One element an event.
    public internal(set) var times: [UInt64] = []
    public internal(set) var actorOf: [UInt8] = []
    public internal(set) var shapeOf: [UInt16] = []
    var valuesAt: [Int] = []
    var values: [Int64] = []

    public init() {}

    public var count: Int { times.count }

    /// The kernel as text has it.
    public var identity: String { host.isEmpty ? kernel : "\(kernel) (\(host))" }

    /// Whether no kernel stood below it: everything on a picture of it is simulated.
    public var isSimulated: Bool { kernel.hasPrefix("SoftKVM") }

    public func name(_ event: Int) -> String { shapes[Int(shapeOf[event])].name }
    public func actor(_ event: Int) -> String { actors[Int(actorOf[event])] }
    public func shape(_ event: Int) -> Shape { shapes[Int(shapeOf[event])] }

    /// The value of a numeric key; negative numbers as their two's complement, nil where there is none.
    func number(_ event: Int, _ key: EventKey) -> UInt64? {
        let shape = shapes[Int(shapeOf[event])]
        let place = Int(shape.places[key.index])
        guard place >= 0, shape.types[place] != .text else { return nil }
        return UInt64(bitPattern: values[valuesAt[event] + place])
    }

    func signed(_ event: Int, _ key: EventKey) -> Int64? {
        number(event, key).map { Int64(bitPattern: $0) }
    }

    func text(_ event: Int, _ key: EventKey) -> String? {
        let shape = shapes[Int(shapeOf[event])]
        let place = Int(shape.places[key.index])
        guard place >= 0, shape.types[place] == .text else { return nil }
        return strings[Int(values[valuesAt[event] + place])]
    }

    /// The value at a place of the event's shape, as stored.
    func value(_ event: Int, _ place: Int) -> Int64 { values[valuesAt[event] + place] }
}

/// The keys that pictures look at. All others are shown as they are.
enum EventKey: String, CaseIterable, Sendable {
    case gpa, size, bytes, offset, target, state, errno, verdict, wants, number, a0, a1, a2, result, status,
        why
    case image, released, contents, means, before, after, ns, text, name, port, value, direction, write,
        attempt
    case outcome, ok, line
    case ram = "ram_bytes"
    case imageBytes = "image_bytes"
    case errorOffset = "error_offset"

    /// Its place in ``RecordedTrace/Shape/places``.
    var index: Int { Self.indices[self] ?? 0 }
    private static let indices = Dictionary(
        uniqueKeysWithValues: EventKey.allCases.enumerated().map { ($1, $0) })
}
