// SPDX-License-Identifier: MIT
import MiniVMM

/// Events stored in columns. An event takes a few dozen bytes; equal short texts are stored once.
struct EventColumns: Sendable {
    // One element per event.
    private(set) var times: [UInt64] = []
    private(set) var actorOf: [UInt8] = []
    private(set) var shapeOf: [UInt16] = []
    private var valuesAt: [Int] = []
    private var values: [Int64] = []
    private(set) var strings: [String] = []
    /// The indices of short texts in ``strings``, by their hash.
    private var indices: [UInt64: [Int]] = [:]
    /// Total bytes of all texts.
    private(set) var textBytes = 0

    /// Texts of at least this many bytes are rarely repeated, and each is stored by itself.
    private static let longestShared = 64

    var count: Int { times.count }

    // MARK: writing

    mutating func begin(_ time: UInt64, _ actor: UInt8) {
        times.append(time)
        actorOf.append(actor)
        shapeOf.append(0)
        valuesAt.append(values.count)
    }

    mutating func append(_ bits: Int64) { values.append(bits) }

    mutating func append(_ text: String) {
        append(utf8: text.utf8, hash: text.utf8.count < Self.longestShared ? Self.hash(text.utf8) : 0) {
            text
        }
    }

    /// - Parameter hash: ``hash(_:)`` of the bytes.
    mutating func append(utf8: some Collection<UInt8>, hash: UInt64, _ make: () -> String) {
        let count = utf8.count
        if count < Self.longestShared {
            // Most texts repeat: look them up without making a string.
            for index in indices[hash] ?? [] where strings[index].utf8.elementsEqual(utf8) {
                return values.append(Int64(index))
            }
            indices[hash, default: []].append(strings.count)
        }
        textBytes += count
        values.append(Int64(strings.count))
        strings.append(make())
    }

    /// The FNV-1a hash.
    static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 {
        bytes.reduce(LineScanner.seed) { ($0 ^ UInt64($1)) &* LineScanner.prime }
    }

    /// Ends the last event and sets its shape.
    mutating func end(_ shape: UInt16) { shapeOf[count - 1] = shape }

    /// Removes the values of the last event.
    mutating func removeValues() { values.removeSubrange(valuesAt[count - 1]...) }

    mutating func append(_ event: Int, of other: EventColumns, _ shape: RecordedTrace.Shape) {
        begin(other.times[event], other.actorOf[event])
        for (place, type) in shape.types.enumerated() {
            let bits = other.value(event, place)
            if type == .text { append(other.strings[Int(bits)]) } else { append(bits) }
        }
        end(other.shapeOf[event])
    }

    // MARK: reading

    /// The stored value at a place of the event's shape.
    func value(_ event: Int, _ place: Int) -> Int64 { values[valuesAt[event] + place] }

    /// The value of a numeric key, negative numbers in two's complement. Nil if the event has no such number.
    func number(_ event: Int, _ key: EventKey, _ shape: RecordedTrace.Shape) -> UInt64? {
        guard let place = shape.place(of: key), shape.types[place] != .text else { return nil }
        return UInt64(bitPattern: value(event, place))
    }

    func text(_ event: Int, _ key: EventKey, _ shape: RecordedTrace.Shape) -> String? {
        guard let place = shape.place(of: key), shape.types[place] == .text else { return nil }
        return strings[Int(value(event, place))]
    }
}
