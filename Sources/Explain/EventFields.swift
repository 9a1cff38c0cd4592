public import MiniVMM

/// The name and the fields of an event of the trace, as values.
///
/// What an event means is told from these and not from the event itself: a field more changes nothing here, and a line
/// of a file does as well.
public struct EventFields: TraceFields, Sendable, Equatable {
    public enum Value: Sendable, Equatable {
        case number(UInt64)
        case address(UInt64)
        case signed(Int64)
        case flag(Bool)
        case text(String)
    }

    public private(set) var name = ""
    public private(set) var fields: [(key: String, value: Value)] = []

    public init(_ event: TraceEvent) { event.describe(to: &self) }

    /// What a guest has printed: many exits, one line.
    public init(console text: String, exits: Int) {
        name = "console"
        fields = [("text", .text(text)), ("exits", .number(UInt64(max(0, exits))))]
    }

    public mutating func name(_ name: StaticString) { self.name = name.description }
    public mutating func number(_ key: StaticString, _ value: UInt64) { add(key, .number(value)) }
    public mutating func address(_ key: StaticString, _ value: UInt64) { add(key, .address(value)) }
    public mutating func signed(_ key: StaticString, _ value: Int64) { add(key, .signed(value)) }
    public mutating func flag(_ key: StaticString, _ value: Bool) { add(key, .flag(value)) }
    public mutating func text(_ key: StaticString, _ value: String) { add(key, .text(value)) }

    private mutating func add(_ key: StaticString, _ value: Value) { fields.append((key.description, value)) }

    public static func == (left: EventFields, right: EventFields) -> Bool {
        left.name == right.name && left.fields.elementsEqual(right.fields) { $0 == $1 }
    }

    // MARK: reading

    private func value(_ key: String) -> Value? { fields.first { $0.key == key }?.value }

    func number(_ key: String) -> UInt64? {
        switch value(key) {
        case .number(let value)?, .address(let value)?: value
        case .signed(let value)?: UInt64(exactly: value)
        default: nil
        }
    }

    func signed(_ key: String) -> Int64? {
        switch value(key) {
        case .number(let value)?, .address(let value)?: Int64(exactly: value)
        case .signed(let value)?: value
        default: nil
        }
    }

    func text(_ key: String) -> String? {
        if case .text(let value)? = value(key) { value } else { nil }
    }

    func flag(_ key: String) -> Bool? {
        if case .flag(let value)? = value(key) { value } else { nil }
    }
}
