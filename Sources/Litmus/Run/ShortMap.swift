// SPDX-License-Identifier: MIT

/// A dictionary with a few entries. A key is compared with one after the other, which takes a tenth of the time of hashing a
/// name.
struct ShortMap<Key: Hashable, Value>: Collection, ExpressibleByDictionaryLiteral {
    typealias Element = (key: Key, value: Value)

    private var entries: [Element] = []

    init(dictionaryLiteral elements: (Key, Value)...) { for (key, value) in elements { self[key] = value } }

    var startIndex: Int { entries.startIndex }
    var endIndex: Int { entries.endIndex }
    func index(after index: Int) -> Int { index + 1 }
    subscript(index: Int) -> Element { entries[index] }

    var keys: [Key] { entries.map(\.key) }
    var values: [Value] { entries.map(\.value) }

    private func place(of key: Key) -> Int? { entries.firstIndex { $0.key == key } }

    subscript(key: Key) -> Value? {
        get { place(of: key).map { entries[$0].value } }
        set {
            switch (place(of: key), newValue) {
            case (let place?, let value?): entries[place].value = value
            case (let place?, nil): entries.remove(at: place)
            case (nil, let value?): entries.append((key, value))
            case (nil, nil): break
            }
        }
    }

    /// Changes a value in place. Does nothing without the key.
    mutating func update(_ key: Key, _ change: (inout Value) -> Void) {
        if let place = place(of: key) { change(&entries[place].value) }
    }

    mutating func removeValue(forKey key: Key) -> Value? {
        place(of: key).map { entries.remove(at: $0).value }
    }

    /// Whether another map has all keys of this one, with values that are the same.
    func isContained(in other: Self, _ isSame: (Value, Value) -> Bool) -> Bool {
        entries.allSatisfy { entry in
            other.entries.contains { $0.key == entry.key && isSame($0.value, entry.value) }
        }
    }

    func filter(_ isIncluded: (Element) -> Bool) -> Self {
        var map = self
        map.entries.removeAll { !isIncluded($0) }
        return map
    }

    func mapValues<T>(_ transform: (Value) -> T) -> [Key: T] {
        var values: [Key: T] = [:]
        for (key, value) in entries { values[key] = transform(value) }
        return values
    }
}

extension ShortMap: Sendable where Key: Sendable, Value: Sendable {}
