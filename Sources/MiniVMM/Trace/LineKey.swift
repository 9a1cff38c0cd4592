// SPDX-License-Identifier: MIT
/// What the lines of a trace have besides the keys of an event.
public enum LineKey: UInt8, CaseIterable, Sendable {
    case schema, clock, time, kernel, host, simulated, actor, event

    public static let header: [LineKey] = [.schema, .clock, .time, .kernel, .host, .simulated]
    public static let everyEvent: [LineKey] = [.time, .actor, .event]

    /// As a trace spells it.
    public var spelling: StaticString {
        switch self {
        case .schema: "schema"
        case .clock: "clock"
        case .time: "t"
        case .kernel: "kernel"
        case .host: "host"
        case .simulated: "simulated"
        case .actor: "actor"
        case .event: "event"
        }
    }

    public var type: EventKey.ValueType {
        switch self {
        case .time: .number
        case .simulated: .flag
        default: .text
        }
    }
    public var unit: EventKey.Unit? { self == .time ? .ns : nil }
}

extension EventSchema {
    /// The value of ``LineKey/schema``.
    public static var version: StaticString { "minivmm.trace/1" }
}
