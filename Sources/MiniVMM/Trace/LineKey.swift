// SPDX-License-Identifier: MIT
/// What the lines of a trace have besides the keys of an event.
public enum LineKey: UInt8, CaseIterable, Sendable {
    /// Of the header: ``EventSchema/version``.
    case schema
    /// Of the header: `monotonic ns`.
    case clock
    /// Nanoseconds of ``Backend/now()``: when the trace began, or when the event was stamped.
    case time
    /// Of the header: the name of the ``BackendIdentity``.
    case backend
    /// Of the header: the host of the ``BackendIdentity``.
    case host
    /// Of the header: whether the kernel is ``BackendIdentity/Kind/simulated``.
    case simulated
    /// Of an event: ``Actor/description``.
    case actor
    /// Of an event: ``EventName/spelling``.
    case event

    /// The keys of the first line, in their order.
    public static let header: [LineKey] = [.schema, .clock, .time, .backend, .host, .simulated]
    /// The keys with which each line of an event begins, in their order.
    public static let everyEvent: [LineKey] = [.time, .actor, .event]

    /// As a trace spells it.
    public var spelling: StaticString {
        switch self {
        case .schema: "schema"
        case .clock: "clock"
        case .time: "t"
        case .backend: "backend"
        case .host: "host"
        case .simulated: "simulated"
        case .actor: "actor"
        case .event: "event"
        }
    }

    /// A number for ``time``, a flag for ``simulated``, text for all others.
    public var type: EventKey.ValueType {
        switch self {
        case .time: .number
        case .simulated: .flag
        default: .text
        }
    }
    /// ``EventKey/Unit/ns`` for ``time``; nil for the texts.
    public var unit: EventKey.Unit? { self == .time ? .ns : nil }
}

extension EventSchema {
    /// The value of ``LineKey/schema``.
    public static var version: StaticString { "minivmm.trace/1" }
}
