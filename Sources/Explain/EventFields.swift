// SPDX-License-Identifier: MIT
public import MiniVMM

/// The name and the fields of an event of the trace, as values.
///
/// Explanations read these fields, so adding a field to an event changes no explanation.
public struct EventFields: TraceFields, Sendable {
    public enum Value: Sendable, Equatable {
        case number(UInt64)
        case signed(Int64)
        case flag(Bool)
        case text(String)
    }

    public private(set) var name = EventName.console
    public private(set) var fields: [(key: EventKey, value: Value)] = []

    public init(_ event: TraceEvent) { event.describe(to: &self) }

    /// What a guest has printed: many exits, one line.
    public init(console text: String, exits: Int) {
        fields = [(.text, .text(text)), (.exits, .number(UInt64(max(0, exits))))]
    }

    public mutating func begin(_ name: EventName) { self.name = name }
    public mutating func number(_ key: EventKey, _ value: UInt64) { fields.append((key, .number(value))) }
    public mutating func signed(_ key: EventKey, _ value: Int64) { fields.append((key, .signed(value))) }
    public mutating func flag(_ key: EventKey, _ value: Bool) { fields.append((key, .flag(value))) }
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
