// SPDX-License-Identifier: MIT
/// The keys of events. A key has one type and one unit, whichever event it belongs to.
public enum EventKey: UInt8, CaseIterable, Sendable {
    case image, imageBytes, entry, vcpus, ramBytes, sharedBit, end, status, why
    case port, bytes, value, gpa, write, flags, wants, errno, verdict
    case number, a0, a1, a2, by, result, rip
    case size, target, contents, before, after, offset, error, errorOffset, ns
    case released, refused, attempt, means, calls, busy, waitedNs, convertedBytes
    case yields, count, name, direction
    case state, line, text, outcome, ok
    case exits, events

    /// What a value is. Text for people shows an address in hex.
    public enum ValueType: String, Sendable {
        case address, number, signed, text, flag
    }

    public enum Unit: String, Sendable {
        case bytes, ns, bit, errno
        /// An errno if it is negative.
        case negativeErrno = "-errno"
        /// Of ``GuestCallNumber``.
        case call
    }

    /// As a trace spells it.
    public var spelling: StaticString { description.spelling }
    public var type: ValueType { description.type }
    public var unit: Unit? { description.unit }

    private var description: (spelling: StaticString, type: ValueType, unit: Unit?) {
        switch self {
        case .image: ("image", .address, nil)
        case .imageBytes: ("image_bytes", .number, .bytes)
        case .entry: ("entry", .address, nil)
        case .vcpus: ("vcpus", .number, nil)
        case .ramBytes: ("ram_bytes", .number, .bytes)
        case .sharedBit: ("shared_bit", .number, .bit)
        case .end: ("end", .address, nil)
        case .status: ("status", .signed, nil)
        case .why: ("why", .text, nil)
        case .port: ("port", .address, nil)
        case .bytes: ("bytes", .number, .bytes)
        case .value: ("value", .address, nil)
        case .gpa: ("gpa", .address, nil)
        case .write: ("write", .flag, nil)
        case .flags: ("flags", .address, nil)
        case .wants: ("wants", .text, nil)
        case .errno: ("errno", .signed, .errno)
        case .verdict: ("verdict", .text, nil)
        case .number: ("number", .address, .call)
        case .a0: ("a0", .address, nil)
        case .a1: ("a1", .address, nil)
        case .a2: ("a2", .address, nil)
        case .by: ("by", .text, nil)
        case .result: ("result", .signed, .negativeErrno)
        case .rip: ("rip", .address, nil)
        case .size: ("size", .address, .bytes)
        case .target: ("target", .text, nil)
        case .contents: ("contents", .text, nil)
        case .before: ("before", .text, nil)
        case .after: ("after", .text, nil)
        case .offset: ("offset", .address, nil)
        case .error: ("error", .text, nil)
        case .errorOffset: ("error_offset", .address, nil)
        case .ns: ("ns", .number, .ns)
        case .released: ("released", .number, nil)
        case .refused: ("refused", .number, nil)
        case .attempt: ("attempt", .number, nil)
        case .means: ("means", .text, nil)
        case .calls: ("calls", .number, nil)
        case .busy: ("busy", .number, nil)
        case .waitedNs: ("waited_ns", .number, .ns)
        case .convertedBytes: ("converted_bytes", .number, .bytes)
        case .yields: ("yields", .flag, nil)
        case .count: ("count", .number, nil)
        case .name: ("name", .text, nil)
        case .direction: ("direction", .text, nil)
        case .state: ("state", .text, nil)
        case .line: ("line", .number, nil)
        case .text: ("text", .text, nil)
        case .outcome: ("outcome", .text, nil)
        case .ok: ("ok", .flag, nil)
        case .exits: ("exits", .number, nil)
        case .events: ("events", .number, nil)
        }
    }

    private static let bySpelling = Dictionary(
        uniqueKeysWithValues: allCases.map { ($0.spelling.description, $0) })

    /// - Returns: nil for a key that this version does not know.
    public init?(_ spelling: String) {
        guard let key = Self.bySpelling[spelling] else { return nil }
        self = key
    }
}
