// SPDX-License-Identifier: MIT
/// The keys of a trace's lines besides those of the event.
public enum LineKey: UInt8, CaseIterable, Sendable {
    /// In the header: ``EventSchema/version``.
    case schema
    /// In the header: `monotonic ns`.
    case clock
    /// Nanoseconds of ``Backend/now()``: when the trace began, or when the event was stamped.
    case time
    /// In the header: the name of the ``BackendIdentity``.
    case backend
    /// In the header: the host of the ``BackendIdentity``.
    case host
    /// In the header: whether the backend is ``BackendIdentity/Kind/simulated``.
    case simulated
    /// In an event: `Actor`.
    case actor
    /// In an event: ``EventName/spelling``.
    case event

    /// The keys of the first line, in order.
    public static let header: [LineKey] = [.schema, .clock, .time, .backend, .host, .simulated]
    /// The keys with which each event's line begins, in order.
    public static let everyEvent: [LineKey] = [.time, .actor, .event]

    /// The key's spelling in a trace.
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
