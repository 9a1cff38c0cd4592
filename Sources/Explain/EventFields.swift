// SPDX-License-Identifier: MIT
public import MiniVMM

/// The name and the fields of a trace event, as values.
///
/// Explanations read these fields, so that a new field of an event changes no explanation.
public struct EventFields: TraceFields, Sendable {
    /// A field's value. The types of the keys are those of docs/trace.md.
    public enum Value: Sendable, Equatable {
        /// The value of a key of type number or address.
        case number(UInt64)
        /// The value of a key of type signed, such as an errno or a result.
        case signed(Int64)
        /// The value of a key of type flag.
        case flag(Bool)
        /// The value of a key of type text.
        case text(String)
    }

    /// The event's name.
    public private(set) var name = EventName.console
    /// The fields in the order of ``EventSchema``.
    public private(set) var fields: [(key: EventKey, value: Value)] = []

    /// An event without fields yet.
    init(_ name: EventName) { self.name = name }

    /// Adds a field as a trace's line spells it. A value that the key's type does not have is left out.
    mutating func add(_ key: EventKey, _ value: String) {
        switch key.type {
        case .number, .address: if let number = Words.number(value) { self.number(key, number) }
        case .signed:
            let isNegative = value.hasPrefix("-")
            guard let number = Words.number(isNegative ? value.dropFirst() : value[...]),
                let signed = Int64(exactly: number)
            else { return }
            self.signed(key, isNegative ? -signed : signed)
        case .flag: if let flag = Bool(value) ?? ["yes": true, "no": false][value] { self.flag(key, flag) }
        case .text: text(key, value)
        }
    }

    /// The name and fields of `event`, as ``TraceEvent/describe(to:)`` gives them.
    public init(_ event: TraceEvent) { event.describe(to: &self) }

    /// A `console` event: a line that a guest printed, and the number of exits that it took.
    public init(console text: String, exits: Int) {
        fields = [(.text, .text(text)), (.exits, .number(UInt64(max(0, exits))))]
    }

    /// Sets the event's name. ``TraceEvent/describe(to:)`` calls it first.
    public mutating func begin(_ name: EventName) { self.name = name }
    /// Adds a field of type number or address.
    public mutating func number(_ key: EventKey, _ value: UInt64) { fields.append((key, .number(value))) }
    /// Adds a field of type signed.
    public mutating func signed(_ key: EventKey, _ value: Int64) { fields.append((key, .signed(value))) }
    /// Adds a field of type flag.
    public mutating func flag(_ key: EventKey, _ value: Bool) { fields.append((key, .flag(value))) }
    /// Adds a field of type text.
    public mutating func text(_ key: EventKey, _ value: String) { fields.append((key, .text(value))) }

    // MARK: reading

    private func value(_ key: EventKey) -> Value? { fields.first { $0.key == key }?.value }

    func number(_ key: EventKey) -> UInt64? {
        switch value(key) {
        case .number(let value)?: value
        case .signed(let value)?: UInt64(exactly: value)
        default: nil
        }
    }

    func signed(_ key: EventKey) -> Int64? {
        switch value(key) {
        case .number(let value)?: Int64(exactly: value)
        case .signed(let value)?: value
        default: nil
        }
    }

    func text(_ key: EventKey) -> String? {
        if case .text(let value)? = value(key) { value } else { nil }
    }

    func flag(_ key: EventKey) -> Bool? {
        if case .flag(let value)? = value(key) { value } else { nil }
    }
}
