// SPDX-License-Identifier: MIT
import MiniVMM

/// Events in columns: one takes a few dozen bytes, whatever its keys are. Texts are kept once.
struct EventColumns: Sendable {
    // One element an event.
    private(set) var times: [UInt64] = []
    private(set) var actorOf: [UInt8] = []
    private(set) var shapeOf: [UInt16] = []
    private var valuesAt: [Int] = []
    private var values: [Int64] = []
    private(set) var strings: [String] = []
    /// Where short texts are among ``strings``, by their hash.
    private var known: [UInt64: [Int]] = [:]
    /// Bytes of all texts.
    private(set) var textBytes = 0

    /// Longer texts are seldom the same twice.
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

    /// - Parameter hash: of the bytes, as ``hash(_:)`` has it.
    mutating func append(utf8: some Collection<UInt8>, hash: UInt64, _ make: () -> String) {
        let count = utf8.count
        if count < Self.longestShared {
            // Most texts are a few words again and again: found without making a string.
            for index in known[hash] ?? [] where strings[index].utf8.elementsEqual(utf8) {
                return values.append(Int64(index))
            }
            known[hash, default: []].append(strings.count)
        }
        textBytes += count
        values.append(Int64(strings.count))
        strings.append(make())
    }

    /// FNV-1a.
    static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 {
        bytes.reduce(LineScanner.seed) { ($0 ^ UInt64($1)) &* LineScanner.prime }
    }

    /// The event that was begun last is complete.
    mutating func end(_ shape: UInt16) { shapeOf[count - 1] = shape }

    /// Takes back the values of the event that was begun last.
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

    /// The value at a place of the event's shape, as stored.
    func value(_ event: Int, _ place: Int) -> Int64 { values[valuesAt[event] + place] }

    /// The value of a numeric key; negative numbers as their two's complement, nil where there is none.
    func number(_ event: Int, _ key: EventKey, _ shape: RecordedTrace.Shape) -> UInt64? {
        guard let place = shape.place(of: key), shape.types[place] != .text else { return nil }
        return UInt64(bitPattern: value(event, place))
    }

    func text(_ event: Int, _ key: EventKey, _ shape: RecordedTrace.Shape) -> String? {
        guard let place = shape.place(of: key), shape.types[place] == .text else { return nil }
        return strings[Int(value(event, place))]
    }
}
